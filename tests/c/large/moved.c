/* Large blocks take the pages of freed ones, and move over them: the process comes to have few mappings more, what is
 * locked in memory is counted right, and each block keeps its bytes. */
#include "../tools.h"

#include <sys/resource.h>

enum { BLOCKS = 6 };
static unsigned char *block[BLOCKS];
static size_t size[BLOCKS];
static uint64_t state = 1;

static long mappings(void) {
    long lines = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    for (int c; (c = fgetc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    return lines;
}

/* Writable mappings of the process that are not locked in memory. */
static int unlocked(void) {
    static char line[512];
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps != NULL);
    int count = 0;
    bool writable = false;
    while (fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, " rw-p ") != NULL) writable = true;
        if (strncmp(line, "VmFlags:", 8) != 0) continue;
        count += writable && strstr(line, " lo") == NULL;
        writable = false;
    }
    fclose(maps);
    return count;
}

static bool holds(int i, size_t bytes) {
    return block[i][0] == i + 1 && block[i][bytes / 2] == i + 1 && block[i][bytes - 1] == i + 1;
}

static void churn(int rounds) {
    for (int round = 0; round < rounds; round++) {
        int i = random_next(&state) % BLOCKS;
        if (block[i] != NULL) CHECK(holds(i, size[i]));
        if (block[i] != NULL && round % 3 == 0 && size[i] < 32 * MIB) {
            size_t larger = size[i] + size[i] / 2;
            CHECK((block[i] = resize(block[i], larger)) != NULL && holds(i, size[i]));
            size[i] = larger;
        } else {
            give(block[i]);
            size[i] = (1 + random_next(&state) % 15) * MIB + random_next(&state) % 256 * PAGE_BYTES;
            CHECK((block[i] = take(size[i])) != NULL);
        }
        memset(block[i], i + 1, size[i]);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "locked") == 0) {
        struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
        setrlimit(RLIMIT_MEMLOCK, &none);
        CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0); /* wants privilege, or a limit (RLIMIT_MEMLOCK) of 100 MiB */
        int before = unlocked();
        churn(200);
        CHECK(unlocked() <= before);
        size_t locked = proc_figure("/proc/self/status", "VmLck:"), all = proc_figure("/proc/self/status", "VmSize:");
        if (locked > all) dprintf(STDERR_FILENO, "%zu KiB locked of %zu\n", locked, all);
        CHECK(locked <= all);
    } else {
        churn(100);
        long before = mappings();
        churn(600);
        long now = mappings();
        if (now > before + 200) dprintf(STDERR_FILENO, "%ld mappings, then %ld\n", before, now);
        CHECK(now <= before + 200);
    }
    for (int i = 0; i < BLOCKS; i++) give(block[i]);
    sound();
    return 0;
}

/* usage: dying misuse|crash - the library ends the program, or crashes itself in a slow path with its locks held; a
 * handler allocates and frees all the same, and the program ends. */
#include "../tools.h"

#include <signal.h>
#include <sys/resource.h>

static char *early[64];

static void handler(int signal) {
    for (int i = 0; i < 200; i++) {
        void *block = take((size_t)i * 997 % 300000 + 1);
        if (block != NULL) give(block);
    }
    for (int i = 0; i < 64; i++) give(early[i]);
    dprintf(STDOUT_FILENO, "handled %d\n", signal == SIGABRT || signal == SIGSEGV);
    _exit(3);
}

/* Takes away the page bitmaps, which the allocator reads under its page lock. Where they lie is told by the header
 * at the start of the metadata region, which is found by its first word. */
static void spoil(void) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start, end;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3 || strcmp(access, "rw-p") != 0) continue;
        const uint64_t *words = (const uint64_t *)start;
        if (words[0] != 0x6564697362616c73u) continue; /* "slabside" */
        const uint64_t *groups = words + 4 + 2 * 2;     /* offset and bytes of the third area (region.rs) */
        CHECK(mprotect((char *)start + groups[0], PAGE_BYTES, PROT_NONE) == 0);
        return;
    }
    CHECK(!"there is a metadata region");
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    struct sigaction action = {.sa_handler = handler};
    CHECK(sigaction(SIGABRT, &action, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0);
    for (int i = 0; i < 64; i++) early[i] = take((size_t)i * 5000 + 1);
    if (strcmp(argv[1], "misuse") == 0) {
        void *block = take(100);
        give(block);
        give(block);
    } else {
        spoil();
        for (int i = 0; i < 100000; i++) take(1000);
    }
    return 0;
}

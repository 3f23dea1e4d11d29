/* With `background:on` a free gives nothing back itself: the thread does it a moment later. Without the option the frees
 * give back most of it.
 *
 * usage: background_frees COUNT SIZE             COUNT blocks of SIZE bytes, freed in random order
 *        background_frees COUNT SIZE child       with the option, in a fork child that allocates nothing, so that it has no
 *                                                such thread: as without it
 *        background_frees COUNT SIZE waits ...   with the option */
#include "../threads/work.h"

#include <sys/wait.h>

enum { TRIES = 20, PATIENCE_MS = 60000 };

static size_t count, size;
static void **block;

static void fill(void) {
    for (size_t i = 0; i < count; i++) block[i] = memset(take(size), 1, size);
}

/* Bytes that went back while the blocks were freed, and moves of the break. */
static void let_go(size_t *purged, size_t *moves, size_t *mapped) {
    struct slabside_stats before = figures(), after;
    for (size_t i = 0; i < count; i++) give(block[i]);
    after = figures();
    *purged = after.purged - before.purged, *moves = after.break_moves - before.break_moves;
    *mapped = before.mapped - after.mapped;
}

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    size_t purged = 1, moves = 1, mapped = 1, before = resident_bytes();
    count = strtoul(argv[1], NULL, 10), size = strtoul(argv[2], NULL, 10);
    block = mmap(NULL, count * sizeof *block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(block != MAP_FAILED);
    small_pages_only();
    fill(), shuffle(block, count, 7);
    if (argc == 3 || strcmp(argv[3], "child") == 0) {
        pid_t child = argc == 3 ? 0 : fork();
        if (child == 0) {
            let_go(&purged, &moves, &mapped);
            CHECK(purged + mapped > count * size / 2 || moves > 0);
            return 0;
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        return 0;
    }
    let_go(&purged, &moves, &mapped);
    /* A tick may come in between. Then another process tries, which has learnt nothing of what it frees. */
    if ((purged | moves | mapped) != 0 && argc < 3 + TRIES) {
        char *again[3 + TRIES + 2] = {0};
        for (int i = 0; i < argc; i++) again[i] = argv[i];
        again[argc] = "waits";
        execv("/proc/self/exe", again);
    }
    CHECK(purged == 0 && moves == 0 && mapped == 0);
    for (int waited = 0; waited < PATIENCE_MS && resident_bytes() > before + count * size / 10; waited += 50) wait_ms(50);
    CHECK(resident_bytes() <= before + count * size / 10);
    return 0;
}

/* usage: limit as|data SIZE - starts itself under a limit of 64 MiB of address space or 20 MiB of data, and
 * takes blocks of SIZE bytes until there are no more: nearly all of it, all of them intact, and NULL with
 * ENOMEM at the end; then frees them, and there is room again. */
#include "tools.h"

#include <sys/resource.h>

struct block {
    struct block *next;
    size_t number;
    unsigned char rest[];
};

static struct block *taken;

static size_t take_all(size_t size) {
    size_t count = 0;
    struct block *block;
    errno = 0;
    while ((block = take(size)) != NULL) {
        block->next = taken;
        block->number = count;
        memset(block->rest, (int)count & 0xff, size - sizeof *block);
        taken = block;
        count++;
        errno = 0;
    }
    CHECK(errno == ENOMEM);
    CHECK(take(size) == NULL && errno == ENOMEM);
    return count;
}

static void give_all(size_t size, size_t count) {
    while (taken != NULL) {
        struct block *block = taken;
        CHECK(block->number == --count);
        CHECK(all_are(block->rest, (unsigned char)count, size - sizeof *block));
        taken = block->next;
        give(block);
    }
    CHECK(count == 0);
}

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    bool data = strcmp(argv[1], "data") == 0;
    size_t bytes = data ? 20 * MIB : 64 * MIB, size = strtoul(argv[2], NULL, 10);
    if (argc == 3) {
        struct rlimit limit = {bytes, bytes};
        CHECK(setrlimit(data ? RLIMIT_DATA : RLIMIT_AS, &limit) == 0);
        execl("/proc/self/exe", argv[0], argv[1], argv[2], "limited", NULL);
        CHECK(!"it starts under the limit");
    }
    size_t count = take_all(size);
    if (count * size < bytes / 4 * 3)
        dprintf(STDERR_FILENO, "%zu of %zu KiB used\n", count * size >> 10, bytes >> 10);
    CHECK(count * size >= bytes / 4 * 3);
    give_all(size, count);
    void *block = take(MIB);
    CHECK(block != NULL);
    memset(block, 1, MIB);
    give(block);
    count = take_all(size);
    CHECK(count * size >= bytes / 4 * 3);
    give_all(size, count);
    sound();
    return 0;
}

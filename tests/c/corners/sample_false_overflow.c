/* The system neither closes nor discards the page of a freed sampled block: what it held is no overflow of the next. */
#include "../tools.h"

#include <sys/syscall.h>

static int refusing;
void *mmap(void *at, size_t bytes, int access, int flags, int file, off_t offset) {
    if (refusing && flags & MAP_FIXED) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, bytes, access, flags, file, offset);
}
int madvise(void *at, size_t bytes, int advice) {
    if (refusing) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, at, bytes, advice);
}

int main(void) {
    uint64_t seed = 1;
    CHECK(slabside_option_set("guard-sample", "2") == 0);
    slabside_free(slabside_malloc(8));
    refusing = 1;
    for (int i = 0; i < 100000; i++) {
        size_t size = 225 + random_next(&seed) % 16;
        unsigned char *block = random_next(&seed) % 2 ? slabside_calloc(1, size) : slabside_aligned_alloc(64, size);
        if (block == NULL) continue;
        memset(block, 1, size);
        slabside_free(block);
    }
    sound();
    return 0;
}

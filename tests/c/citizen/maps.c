/* The process has as many mappings as it may (vm.max_map_count), so that mapping and unmapping fail: allocations
 * are refused or served, frees are taken, and once there is room again all goes on. */
#include "../tools.h"

enum { COUNT = 2000 };

int main(void) {
    static unsigned char *blocks[COUNT];
    size_t most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    CHECK(file != NULL && fscanf(file, "%zu", &most) == 1);
    fclose(file);
    if (most > 200000) {
        puts("skipped"); /* so many that they cannot be made in a test */
        return 0;
    }
    for (int i = 0; i < COUNT / 2; i++) CHECK((blocks[i] = take(150000 + (size_t)i * 64)) != NULL);
    /* Neighbours of different access are a mapping each. */
    char *area = mmap(NULL, (most + 10) * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(area != MAP_FAILED);
    size_t split = 0;
    while (split < most && mprotect(area + split * PAGE_BYTES, PAGE_BYTES, PROT_READ) == 0) split += 2;
    CHECK(split < most + 10);
    size_t refused = 0;
    for (int i = 0; i < COUNT; i++) {
        if (blocks[i] != NULL && i % 3 == 0) {
            give(blocks[i]);
            blocks[i] = NULL;
        } else if (blocks[i] == NULL) {
            size_t size = i % 2 ? 200000 + (size_t)i * 512 : 1 + (size_t)i;
            errno = 0;
            blocks[i] = take(size);
            if (blocks[i] == NULL) CHECK(errno == ENOMEM && ++refused);
            else blocks[i][0] = blocks[i][size - 1] = 7;
        }
    }
    sound();
    CHECK(munmap(area, (most + 10) * PAGE_BYTES) == 0);
    for (int i = 0; i < COUNT; i++) {
        if (blocks[i] == NULL) CHECK((blocks[i] = take(300000)) != NULL);
        blocks[i][0] = 9;
    }
    for (int i = 0; i < COUNT; i++) give(blocks[i]);
    sound();
    puts("done");
    return 0;
}

/* usage: peak [walled] - the address space that is chosen for the heap, and not used yet, was mapped at no moment: a
 * limit would have refused what another thread maps just then. With "walled" the break cannot move, and the heap lies in
 * a window. */
#include "tools.h"

static void put_a_wall(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "walled") == 0) put_a_wall();
    for (int i = 0; i < 1 << 10; i++) CHECK(take(1000) != NULL);
    CHECK(take(20 * MIB) != NULL);
    CHECK(proc_figure("/proc/self/status", "VmPeak:") * KIB < 160 * MIB);
    puts("done");
    return 0;
}

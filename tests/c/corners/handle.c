/* usage: handle NUMBER|close|other - the use of a heap that was never created. */
#include "../tools.h"

#include <inttypes.h>

int main(int argc, char **argv) {
    CHECK(argc == 2);
    slabside_heap *heap = slabside_heap_create(), *other = slabside_heap_create();
    CHECK(heap != NULL && other != NULL);
    uintptr_t handle = strtoul(argv[1], NULL, 0);
    if (!strcmp(argv[1], "close")) handle = (uintptr_t)heap ^ (uintptr_t)1 << 40;
    if (!strcmp(argv[1], "other")) handle = ((uintptr_t)heap & ~(uintptr_t)0xfffff) | ((uintptr_t)other & 0xfffff);
    slabside_heap_malloc((slabside_heap *)handle, 10);
    return 0;
}

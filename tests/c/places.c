/* usage: places [walled] - prints where things lie: the program, a library (the allocator's, if it is one), a small block,
 * a large one, the metadata. With "walled" the break cannot move, and the small block lies in a window. */
#include "tools.h"

#include <dlfcn.h>

static void put_a_wall(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "walled") == 0) put_a_wall();
    void *small = take(100), *large = take(MIB);
#ifdef PREFIXED
    void *library = dlsym(RTLD_DEFAULT, "puts");
    size_t metadata = slabside_region;
#else
    void *library = dlsym(RTLD_DEFAULT, "slabside_region");
    CHECK(library != NULL);
    size_t metadata = *(const volatile size_t *)library;
#endif
    CHECK(small != NULL && large != NULL && library != NULL && metadata != 0);
    printf("%zu %zu %zu %zu %zu\n", (size_t)&main, (size_t)library, (size_t)small, (size_t)large, metadata);
    return 0;
}

/* Questions are the first thing that the library is asked, before any allocation. */
#include "../tools.h"

int main(void) {
    CHECK(mallinfo2().arena == 0 && malloc_trim(0) == 0 && figures().live == 0);
    CHECK(slabside_good_size(100) == 112 && room(NULL) == 0);
    free_sized(NULL, 1);
    slabside_heap_destroy(NULL);
    sound();
    slabside_heap *heap = slabside_heap_create();
    CHECK(heap != NULL && slabside_heap_malloc(heap, 100) != NULL);
    slabside_heap_destroy(heap);
    CHECK(!slabside_try_expand(NULL, 1));
    sound();
    return 0;
}

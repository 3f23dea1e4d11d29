/* With `background:on`, in a program that allocates from a first-class heap alone: the thread is made with no lock held,
 * not the heap's either. The program's own pthread_create takes the place of the C library's, and allocates from it. */
#include "../tools.h"

#include <dlfcn.h>
#include <pthread.h>

static slabside_heap *heap;
static int made;

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument) {
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    CHECK(next != NULL && next != pthread_create);
    CHECK(slabside_heap_malloc(heap, 100) != NULL);
    made++;
    return next(thread, how, run, argument);
}

int main(void) {
    heap = slabside_heap_create();
    CHECK(heap != NULL);
    for (int i = 0; i < 8000; i++) CHECK(slabside_heap_malloc(heap, 1000) != NULL);
    CHECK(made == 1);
    sound();
    return 0;
}

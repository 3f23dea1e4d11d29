/* Prints the handle of the process's first heap. */
#include "../tools.h"

int main(void) {
    printf("%p\n", (void *)slabside_heap_create());
    return 0;
}

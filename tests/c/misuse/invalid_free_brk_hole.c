/* attack:     free of memory that another sbrk took inside the heap
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

int main(void) {
    one_of_some(48);
    char *p = sbrk(3 * PAGE_BYTES + 100);
    CHECK(p != (void *)-1);
    for (int i = 0; i < 5000; i++) fill(take(1000), 1000); /* the heap goes on behind it */
    give((void *)(((uintptr_t)p + PAGE_BYTES) & -(uintptr_t)16));
    return go_on("it was not found");
}

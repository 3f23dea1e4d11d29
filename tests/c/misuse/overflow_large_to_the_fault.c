/* attack:     overflow of a large block up to the first fault
 * default:    sound: a fault ended it, the heap is whole
 * hardened:   sound: a fault ended it, the heap is whole or abort: overflow or abort: write after free
 * certainty:  default: harmless to the heap
 * mechanism:  metadata out of band, in a region of its own */
#include "misuse.h"

#include <setjmp.h>
#include <signal.h>

/* Thread-local, since a program's static variables may lie on the way. */
static _Thread_local sigjmp_buf stopped;

static void at_fault(int signal) { siglongjmp(stopped, signal); }
/* Closed memory of the program's own, so that the libraries' data are not overwritten: pieces as large as the block,
 * until some lie right below one another. The holes between libraries are full then, and the block lies right below. */
static void fence(void) {
    char *above = NULL;
    for (int adjacent = 0; adjacent < 4;) {
        char *here = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(here != MAP_FAILED);
        adjacent = here + MIB == above ? adjacent + 1 : 0;
        above = here;
    }
}

int main(void) {
    fence();
    char *p = take(MIB);
    signal(SIGSEGV, at_fault);
    if (sigsetjmp(stopped, 1) == 0)
        for (volatile char *at = p;; at++) *at = 0x5a;
    return go_on("a fault ended it, the heap is whole");
}

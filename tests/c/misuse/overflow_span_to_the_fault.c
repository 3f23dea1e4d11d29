/* attack:     overflow of a span up to the first fault
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

int main(void) {
    char *p = one_of_some(40960);
    signal(SIGSEGV, at_fault);
    if (sigsetjmp(stopped, 1) == 0)
        for (volatile char *at = p;; at++) *at = 0x5a;
    return go_on("a fault ended it, the heap is whole");
}

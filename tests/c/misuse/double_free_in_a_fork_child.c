/* attack:     double free by a fork child of what the parent freed
 * default:    abort: double free of P (slot N of a 48-byte slab)
 * hardened:   abort: double free of P
 * certainty:  always
 * mechanism:  bitmap exact at every moment */
#include "misuse.h"

#include <signal.h>
#include <sys/wait.h>

int main(void) {
    void *p = one_of_some(48);
    give(p);
    int status;
    pid_t child = fork();
    if (child == 0) give(p);
    CHECK(child >= 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    raise(WTERMSIG(status));
    return go_on("it was not found");
}

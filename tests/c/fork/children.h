/* Children, and parents that see how they ended. Whoever hangs is ended by the harness. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "../threads/work.h"

#include <sys/wait.h>

static inline pid_t child_start(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

/* Waits for a child, which must exit with 0. */
static inline void child_end(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) fprintf(stderr, "child %d ended by signal %d\n", (int)child, WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Takes and gives back many spans at a time, and so keeps the locks of the heap's pages busy: that is
 * when a fork finds most to repair. */
static inline void spans_churn(uint64_t *state) {
    void *spans[32];
    for (int i = 0; i < 32; i++) spans[i] = malloc(9000 + random_next(state) % 100000);
    for (int i = 0; i < 32; i++) CHECK(spans[i] != NULL);
    for (int i = 0; i < 32; i++) free(spans[i]);
}

#endif

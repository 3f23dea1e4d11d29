/* Allocates a little, says "ready", and waits: to be read from outside by its own user. With "closed" it is not dumpable;
 * with "ends" it forks a child that allocates, and both end. */
#include "../check.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    static void *volatile kept;
    CHECK(kept = malloc(1000));
    if (strcmp(argv[1], "closed") == 0)
        CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
    if (argc > 2) {
        pid_t child = fork();
        CHECK(child >= 0);
        CHECK(kept = malloc(2000));
        if (child == 0)
            exit(0);
        CHECK(waitpid(child, NULL, 0) == child);
        return 0;
    }
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}

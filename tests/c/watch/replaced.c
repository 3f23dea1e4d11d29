/* Another thread than the first makes another program of the process, and the first one waits.
 * usage: replaced PROGRAM [ARGUMENTS] */
#include "../check.h"

#include <pthread.h>
#include <unistd.h>

static void *replace(void *argument) {
    char **arguments = argument;
    execv(arguments[0], arguments);
    CHECK(0);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, replace, argv + 1) == 0);
    for (;;) pause();
}

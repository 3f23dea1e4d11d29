/* Allocates and frees at once, in small bursts, and keeps some blocks. Then it ends.
 * usage: churn returns|exits|aborts */
#include "../tools.h"

#include <stdlib.h>
#include <unistd.h>

#define SITE __attribute__((noipa)) void

SITE churn_small(void) {
    for (int i = 0; i < 1000; i++) give(take(1000));
}

SITE churn_big(void) {
    for (int i = 0; i < 1000; i++) give(take(3000));
}

SITE keep(void) {
    for (int i = 0; i < 2000; i++) CHECK(take(3000));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    keep();
    for (int i = 0; i < 100; i++) {
        churn_small();
        churn_big();
        if (i % 4 == 0) usleep(3000);
    }
    if (strcmp(argv[1], "exits") == 0) _exit(0);
    if (strcmp(argv[1], "aborts") == 0) abort();
    return 0;
}

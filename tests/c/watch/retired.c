/* Allocates BLOCKS blocks of 5,000 bytes, frees the first FREED of them, and waits: to be read from outside.
 * usage: retired BLOCKS FREED */
#include "../tools.h"

enum { SIZE = 5000, MOST = 10000 };

static char *held[MOST];

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int blocks = atoi(argv[1]), freed = atoi(argv[2]);
    CHECK(freed <= blocks && blocks <= MOST);
    for (int i = 0; i < blocks; i++) {
        CHECK(held[i] = take(SIZE));
        memset(held[i], 'x', SIZE);
    }
    for (int i = 0; i < freed; i++)
        give(held[i]);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}

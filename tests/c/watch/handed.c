/* Allocates as many blocks of 48 bytes as it is told, keeps them, and ends by exit or, with a second argument, by
 * _exit. */
#include "../check.h"

int main(int argc, char **argv) {
    static void *volatile kept;
    for (int i = 0; i < atoi(argv[1]); i++)
        CHECK(kept = malloc(48));
    if (argc > 2)
        _exit(0);
    return 0;
}

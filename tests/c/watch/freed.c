/* Frees some blocks, and tells in a file the addresses of: a small block that it has, one that it freed, a freed large
 * block, and a block of no bytes. Then it waits.
 * usage: freed FILE */
#include "../tools.h"

#include <fcntl.h>

int main(int argc, char **argv) {
    CHECK(argc == 2);
    char *live = take(100), *freed = take(100), *large = take(500000), *empty = take(0);
    CHECK(live && freed && large && empty);
    int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0);
    CHECK(dprintf(file, "%p %p %p %p\n", (void *)live, (void *)freed, (void *)large, (void *)empty) > 0);
    give(freed);
    give(large);
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}

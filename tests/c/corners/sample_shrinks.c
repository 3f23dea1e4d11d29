/* A sampled block that has to stay where it is as it shrinks, since there is no memory, is one of its new size. */
#include "../tools.h"

#include <fcntl.h>

enum { SIZE = 1008, SMALLER = 100 };

/* Whether a block of SIZE bytes has a page of its own, which ends where the block does. */
static bool is_sampled(char *block) {
    char *end = block + SIZE;
    return (uintptr_t)end % PAGE_BYTES == 0 && write(STDIN_FILENO, end, 1) != 1 && errno == EFAULT;
}

int main(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0 && dup2(pipes[1], STDIN_FILENO) >= 0);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    char *block;
    do {
        CHECK((block = take(SIZE)) != NULL);
    } while (!is_sampled(block));
    memset(block, 7, SIZE);
    while (take(SMALLER) != NULL) {}
    CHECK(resize(block, SMALLER) == block && room(block) >= SMALLER);
    CHECK(all_are((unsigned char *)block, 7, SMALLER));
    free_sized(block, SMALLER);
    sound();
    return 0;
}

/* Blocks that are held in different ways, told by address in a file: by a global variable, by another block, in its
 * middle, by itself alone. Says "ready". pointers FILE */
#include "../check.h"

#include <string.h>

static void **volatile global;

/* Not inlined: what it leaves behind lies below its caller's frame. */
__attribute__((noinline)) static void make(const char *name) {
    void **outer = malloc(200), **inner = malloc(100), **self = malloc(300);
    char *middle = malloc(5000);
    CHECK(outer && inner && self && middle);
    memset(outer, 0, 200);
    memset(self, 0, 300);
    global = outer;
    outer[3] = inner;
    outer[4] = middle + 1000;
    self[2] = self;
    FILE *file = fopen(name, "w");
    CHECK(file);
    fprintf(file, "%p %p %p %p\n", (void *)outer, (void *)inner, (void *)middle, (void *)self);
    fclose(file);
}

/* Nor this: it clears what others left on the stack. */
__attribute__((noinline)) static void wipe(void) {
    volatile char room[64 << 10];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    make(argv[1]);
    wipe();
    CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6);
    for (;;)
        pause();
}

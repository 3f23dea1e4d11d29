/* usage: shrink ORDER SIZE - after 20 MiB of objects were allocated, written and freed, in whatever order,
 * the break stands within 256 KiB of where it was: at once, with no further call. */
#include "tools.h"

enum { MOST = 20 << 20 >> 6 };
static void *object[MOST], *other[MOST];

static void even_then_odd(size_t count) {
    memcpy(other, object, count * sizeof *object);
    for (size_t i = 0; i < count; i++) object[i] = other[2 * i < count ? 2 * i : 2 * i - count + 1 - count % 2];
}

static void inside_out(size_t count) {
    memcpy(other, object, count * sizeof *object);
    for (size_t i = 0; i < count; i++) object[i] = other[i % 2 ? count / 2 - 1 - i / 2 : count / 2 + i / 2];
}

static void backward(size_t count) {
    memcpy(other, object, count * sizeof *object);
    for (size_t i = 0; i < count; i++) object[i] = other[count - 1 - i];
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    size_t size = strtoul(argv[2], NULL, 10), count = (20 * MIB / size) & -(size_t)2;
    CHECK(count <= MOST);
    char *start = break_now();
    for (size_t i = 0; i < count; i++) object[i] = memset(take(size), 0xee, size);
    CHECK(break_now() - start >= (ptrdiff_t)(19 * MIB));
    if (strcmp(argv[1], "backward") == 0) backward(count);
    else if (strcmp(argv[1], "random") == 0) shuffle(object, count, 1);
    else if (strcmp(argv[1], "even-then-odd") == 0) even_then_odd(count);
    else if (strcmp(argv[1], "inside-out") == 0) inside_out(count);
    else CHECK(strcmp(argv[1], "forward") == 0);
    for (size_t i = 0; i < count; i++) give(object[i]);
    ptrdiff_t left = break_now() - start;
    if (left > (ptrdiff_t)(256 * KIB)) dprintf(STDERR_FILENO, "%td KiB left\n", left / 1024);
    CHECK(left <= (ptrdiff_t)(256 * KIB));
    sound();
    return 0;
}

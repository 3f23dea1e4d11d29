/* usage: wall first|later - a mapping lies right behind the break, from the start or once the heap has begun
 * there: 64 MiB of small objects find room elsewhere, all intact, and soon cost nothing once freed. */
#include "exercise.h"

enum { OBJECTS = 1 << 20 };
static size_t *object[OBJECTS];

static void put_a_wall(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
    CHECK(sbrk(65536) == (void *)-1);
}

static void fill_and_free(void) {
    for (size_t i = 0; i < OBJECTS; i++) {
        object[i] = take(64);
        CHECK(object[i] != NULL);
        for (size_t j = 0; j < 8; j++) object[i][j] = i;
    }
    for (size_t i = 0; i < OBJECTS; i++)
        for (size_t j = 0; j < 8; j++) CHECK(object[i][j] == i);
    for (size_t i = 0; i < OBJECTS; i++) give(object[i]);
}

int main(int argc, char **argv) {
    static struct exercise work = {.state = 5};
    CHECK(argc == 2);
    small_pages_only();
    if (strcmp(argv[1], "later") == 0)
        for (int i = 0; i < 20000; i++) exercise_step(&work);
    put_a_wall();
    fill_and_free();
    wait_ms(1200);
    for (int i = 0; i < 100 && resident_bytes() >= 40 * MIB; i++) {
        for (int j = 0; j < 1000; j++) give(take(100));
        wait_ms(20);
    }
    CHECK(resident_bytes() < 40 * MIB); /* the pointers and the random work's blocks are 8 MiB each */
    for (int i = 0; i < 20000; i++) exercise_step(&work);
    exercise_end(&work);
    fill_and_free();
    sound();
    return 0;
}

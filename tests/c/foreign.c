/* Somebody else moves the break too, by odd sizes, up and at once down again: nobody gets the other's
 * bytes. */
#include "exercise.h"

enum { FOREIGN = 400 };
static struct {
    unsigned char *bytes;
    size_t size;
} foreign[FOREIGN];

static void foreign_take(int i, uint64_t *state) {
    static const size_t odd[] = {1, 7, 100, 4095, 4096, 4097, 12296, 70001};
    size_t size = odd[random_next(state) % 8];
    foreign[i].bytes = sbrk((intptr_t)size);
    CHECK(foreign[i].bytes != (void *)-1);
    foreign[i].size = size;
    memset(foreign[i].bytes, i, size);
}

/* Takes it and gives it back with none of our calls between. */
static void foreign_up_and_down(uint64_t *state) {
    intptr_t size = (intptr_t)(random_next(state) % 20000);
    unsigned char *bytes = sbrk(size);
    CHECK(bytes != (void *)-1);
    memset(bytes, 0xdd, (size_t)size);
    CHECK(sbrk(-size) == bytes + size);
}

int main(void) {
    static struct exercise work = {.state = 9};
    static void *small[FOREIGN * 100];
    uint64_t state = 3;
    sbrk(13);
    for (int i = 0; i < FOREIGN; i++) {
        for (int j = 0; j < 300; j++) exercise_step(&work);
        for (int j = 0; j < 100; j++) small[i * 100 + j] = memset(take(1000), 0x99, 1000);
        foreign_take(i, &state);
        if (i % 3 == 0) foreign_up_and_down(&state);
        if (i % 7 == 0) /* and the heap's end comes near again, as far as the others let it */
            for (int j = 0; j < i * 100; j++) {
                give(small[j]);
                small[j] = NULL;
            }
    }
    for (int i = 0; i < FOREIGN; i++) CHECK(all_are(foreign[i].bytes, (unsigned char)i, foreign[i].size));
    for (int j = 0; j < FOREIGN * 100; j++) CHECK(small[j] == NULL || all_are(small[j], 0x99, 1000));
    exercise_end(&work);
    for (int j = 0; j < FOREIGN * 100; j++) give(small[j]);
    for (int i = 0; i < FOREIGN; i++) CHECK(all_are(foreign[i].bytes, (unsigned char)i, foreign[i].size));
    sound();
    return 0;
}

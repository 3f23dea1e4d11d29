/* A library whose code is gone when its samples are read. */
#include <stdlib.h>

static void *volatile held;

__attribute__((noipa)) void hold_by_plugin(void) {
    for (int i = 0; i < 3000; i++) held = malloc(700);
}

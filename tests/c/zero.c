/* malloc(0) gives a pointer of its own each time, which can be freed, measured and resized. */
#include "tools.h"

enum { COUNT = 2000 };

int main(void) {
    static void *block[COUNT];
    for (int i = 0; i < COUNT; i++) {
        block[i] = i % 2 ? take(0) : calloc(i % 4, 0);
        CHECK(block[i] != NULL);
    }
    for (int i = 0; i < COUNT; i++) memset(block[i], i, room(block[i]));
    for (int i = 0; i < COUNT; i++) CHECK(all_are(block[i], (unsigned char)i, room(block[i])));
    sort_addresses(block, COUNT);
    for (int i = 1; i < COUNT; i++) CHECK(block[i - 1] != block[i]);
    for (int i = 0; i < COUNT; i++) give(i % 2 ? block[i] : resize(block[i], 100));
    sound();
    return 0;
}

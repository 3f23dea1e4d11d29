/* More blocks than a process may have mappings, each made small by realloc from a mapping of its own. */
#include "../tools.h"

enum { BLOCKS = 100000 };

int main(void) {
    static size_t *block[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t *large = take(200000);
        CHECK(large != NULL);
        *large = i;
        CHECK((block[i] = resize(large, 1000)) != NULL);
    }
    size_t mappings = 0;
    char text[8192];
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t n; (n = read(maps, text, sizeof text)) > 0;) {
        for (ssize_t i = 0; i < n; i++) mappings += text[i] == '\n';
    }
    close(maps);
    CHECK(mappings > 0 && mappings < 1000);
    for (size_t i = 0; i < BLOCKS; i++) {
        CHECK(*block[i] == i);
        give(block[i]);
    }
    sound();
    return 0;
}

/* attack:     free of an address of the metadata
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

/* The region begins with what is open of it, and a gigabyte of closed reserve follows. */
static char *metadata(void) {
    char line[512], access[8];
    size_t start, end, before = 0, reached = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    for (; fgets(line, sizeof line, maps) != NULL; before = start, reached = end) {
        CHECK(sscanf(line, "%zx-%zx %7s", &start, &end, access) == 3);
        if (access[0] == '-' && end - start > 256 * MIB && reached == start) return (char *)before;
    }
    CHECK(!"a region of metadata");
    return NULL;
}

int main(void) {
    one_of_some(48);
    give(metadata() + 256);
    return go_on("it was not found");
}

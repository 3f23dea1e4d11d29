/* attack:     free of an address of the metadata
 * default:    abort: invalid free of P
 * hardened:   abort: invalid free of P
 * certainty:  always
 * mechanism:  page map */
#include "misuse.h"

/* The region begins with a mapping, and with its magic number. */
static char *metadata(void) {
    char line[512], access[8];
    size_t start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL) {
        CHECK(sscanf(line, "%zx-%zx %7s", &start, &end, access) == 3);
        if (access[0] == 'r' && access[1] == 'w' && memcmp((void *)start, "slabside", 8) == 0)
            return (char *)start;
    }
    CHECK(!"a region of metadata");
    return NULL;
}

int main(void) {
    one_of_some(48);
    give(metadata() + 256);
    return go_on("it was not found");
}

/* Where the process locks its memory (mlockall), a block that grew has no room behind it: it would be resident. */
#include "../tools.h"

#include <sys/resource.h>

int main(void) {
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MEMLOCK, &none);
    small_pages_only();
    give(take(1));
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0); /* wants privilege, or a limit (RLIMIT_MEMLOCK) of 100 MiB */
    size_t before = resident_bytes(), peak = resident_peak();
    unsigned char *block = memset(take(20 * MIB), 1, 20 * MIB);
    for (size_t size = 30 * MIB; size <= 60 * MIB; size += 10 * MIB) {
        CHECK((block = resize(block, size)) != NULL && all_are(block, 1, size - 10 * MIB));
        memset(block, 1, size);
        CHECK(resident_bytes() - before < size + 2 * MIB);
    }
    CHECK(resident_peak() - peak < 62 * MIB);
    give(block);
    sound();
    return 0;
}

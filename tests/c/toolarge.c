/* What exceeds PTRDIFF_MAX, or what there is, gives NULL and ENOMEM, and harms nothing. */
#include "tools.h"

#define REFUSED(call)                              \
    do {                                           \
        errno = 0;                                 \
        CHECK((call) == NULL && errno == ENOMEM);  \
    } while (0)

int main(void) {
    static const size_t sizes[] = {
        PTRDIFF_MAX,          (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096, SIZE_MAX - 4096,
        SIZE_MAX - 4095,      SIZE_MAX - 16,           SIZE_MAX - 15,              SIZE_MAX - 7,
        SIZE_MAX,             PTRDIFF_MAX - 15,        PTRDIFF_MAX - 4095,         (size_t)1 << 62,
    };
    static const size_t old_sizes[] = {8, 100, 8000, 50000, 500000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = opaque_size(sizes[i]);
        REFUSED(take(size));
        REFUSED(calloc(1, size));
        REFUSED(calloc(size, 1));
        REFUSED(resize(NULL, size));
        REFUSED(aligned_alloc(4096, size & -(size_t)4096));
        REFUSED(aligned_alloc(16, size));
        for (int j = 0; j < 5; j++) {
            void *old = take(old_sizes[j]);
            memset(old, 0x77, old_sizes[j]);
            REFUSED(resize(old, size));
            CHECK(all_are(old, 0x77, old_sizes[j]));
            give(old);
        }
    }
    void *old = take(100);
    REFUSED(reallocarray(old, opaque_size(SIZE_MAX / 2), 3));
    REFUSED(reallocarray(old, opaque_size((size_t)1 << 33), (size_t)1 << 33));
    give(old);
    give(take(100));
    sound();
    return 0;
}

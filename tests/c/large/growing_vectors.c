/* Twelve vectors that grow by half each time, as large blocks side by side, of freed mappings and fresh ones: the
 * kernel refuses to move a block of several mappings (EFAULT). None of what is kept is given back for that: then
 * pages that were touched once would fault again and again. mremap is wrapped to count the refusals, and getrlimit,
 * which is asked after a refusal for want of memory. */
#include "../tools.h"

#include <sys/resource.h>

enum { VECTORS = 12, STEPS = 3000 };

static size_t refused, asked;

void *__real_mremap(void *old, size_t old_size, size_t size, int flags, ...);
void *__wrap_mremap(void *old, size_t old_size, size_t size, int flags, ...) {
    void *moved = __real_mremap(old, old_size, size, flags);
    refused += moved == MAP_FAILED && (flags & MREMAP_MAYMOVE) != 0;
    return moved;
}

int __real_getrlimit(int resource, struct rlimit *limit);
int __wrap_getrlimit(int resource, struct rlimit *limit) {
    asked++;
    return __real_getrlimit(resource, limit);
}

int main(void) {
    static unsigned char *vector[VECTORS];
    static size_t size[VECTORS];
    uint64_t state = 1;
    small_pages_only();
    give(take(1));
    asked = 0;
    for (int step = 0; step < STEPS; step++) {
        size_t i = random_next(&state) % VECTORS;
        if (size[i] > (random_next(&state) % 8 + 1) * MIB) {
            CHECK(all_are(vector[i], (unsigned char)i, size[i]));
            give(vector[i]);
            vector[i] = NULL;
            size[i] = 0;
            continue;
        }
        size_t more = size[i] != 0 ? size[i] * 3 / 2 : 200000;
        CHECK((vector[i] = resize(vector[i], more)) != NULL);
        memset(vector[i] + size[i], (int)i, more - size[i]);
        size[i] = more;
    }
    for (size_t i = 0; i < VECTORS; i++) CHECK(all_are(vector[i], (unsigned char)i, size[i]));
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    dprintf(STDOUT_FILENO, "%zu refused, %ld page faults\n", refused, used.ru_minflt);
    CHECK(asked == 0);
    for (size_t i = 0; i < VECTORS; i++) give(vector[i]);
    sound();
    return 0;
}

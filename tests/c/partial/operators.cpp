// usage: operators - the program replaces some of the basic operators new and delete (-DARRAYS: those of arrays,
// -DALIGNED: those with an alignment too, -DCOUNTED: they call malloc and count), and all other forms end in these.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <unistd.h>
#include <vector>

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            dprintf(2, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
            _exit(1);                                                                        \
        }                                                                                    \
    } while (0)

static long news, deletes, array_news, array_deletes, aligned_news, aligned_deletes;

// Blocks of the program's own: of an array, or of malloc behind a header, where they lie inside a block.
#ifdef COUNTED
static const size_t header = 64;
#else
static char pool[8 << 20];
static size_t used;
#endif

static void *give(size_t size, size_t align) {
#ifdef COUNTED
    char *block = static_cast<char *>(aligned_alloc(align < header ? header : align, size + header + align));
    return block ? block + (align < header ? header : align) : nullptr;
#else
    used = (used + align - 1) & ~(align - 1);
    if (size > sizeof pool - used) return nullptr;
    void *block = pool + used;
    used += size + 16;
    return block;
#endif
}

static void take(void *block, size_t align) {
#ifdef COUNTED
    free(static_cast<char *>(block) - (align < header ? header : align));
#else
    CHECK(block >= pool && block < pool + sizeof pool);
    (void)align;
#endif
}

void *operator new(size_t size) {
    news++;
    void *block = give(size, 16);
    if (!block) throw std::bad_alloc();
    return block;
}
void operator delete(void *block) noexcept {
    if (!block) return;
    deletes++;
    take(block, 16);
}

#ifdef ARRAYS
void *operator new[](size_t size) {
    array_news++;
    void *block = give(size, 16);
    if (!block) throw std::bad_alloc();
    return block;
}
void operator delete[](void *block) noexcept {
    if (!block) return;
    array_deletes++;
    take(block, 16);
}
#endif

#ifdef ALIGNED
void *operator new(size_t size, std::align_val_t align) {
    aligned_news++;
    void *block = give(size, size_t(align));
    if (!block) throw std::bad_alloc();
    return block;
}
void operator delete(void *block, std::align_val_t align) noexcept {
    if (!block) return;
    aligned_deletes++;
    take(block, size_t(align));
}
#endif

// Seen by nobody but at run time.
static size_t opaque(size_t n) {
    static volatile size_t seen;
    return seen = n;
}

static void plain_forms(size_t size) {
    operator delete(operator new(size), size);
    operator delete(operator new(size, std::nothrow), std::nothrow);
    CHECK(news == 2 && deletes == 2);
    operator delete[](operator new[](size));
    operator delete[](operator new[](size), size);
    operator delete[](operator new[](size, std::nothrow), std::nothrow);
#ifdef ARRAYS
    CHECK(array_news == 3 && array_deletes == 3 && news == 2 && deletes == 2);
#else
    CHECK(news == 5 && deletes == 5);
#endif
    news = deletes = array_news = array_deletes = 0;
}

static void aligned_forms(size_t size) {
    std::align_val_t align = std::align_val_t(opaque(128));
    operator delete(operator new(size, align), align);
    operator delete(operator new(size, align), size, align);
    operator delete(operator new(size, align, std::nothrow), align, std::nothrow);
    operator delete[](operator new[](size, align), align);
    operator delete[](operator new[](size, align), size, align);
    operator delete[](operator new[](size, align, std::nothrow), align, std::nothrow);
#ifdef ALIGNED
    CHECK(aligned_news == 6 && aligned_deletes == 6);
#endif
    CHECK(news == 0 && deletes == 0);
    aligned_news = aligned_deletes = 0;
}

static void what_cannot_be_had() {
    size_t vast = opaque(size_t(1) << 60);
    CHECK(!operator new(vast, std::nothrow));
    CHECK(!operator new[](vast, std::nothrow));
    bool thrown = false;
    try {
        operator delete[](operator new[](vast));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    news = deletes = array_news = array_deletes = 0;
}

int main() {
    for (size_t size : {1, 24, 100, 1024, 1025, 5000, 100000}) {
        plain_forms(opaque(size));
        aligned_forms(opaque(size));
    }
    what_cannot_be_had();
    {
        std::vector<std::string> words;
        for (int i = 0; i < 1000; i++) words.push_back(std::string(i % 50, 'x'));
        auto shared = std::make_shared<std::vector<int>>(100);
    }
    CHECK(news > 0 && news == deletes);
    puts("ok");
}

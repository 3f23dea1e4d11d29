// usage: operators PART - C++'s operators new and delete, where the allocator is the process's malloc.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

// Absent where another allocator is compared.
extern "C" size_t slabside_good_size(size_t) __attribute__((weak));
extern "C" size_t slabside_validate(void) __attribute__((weak));

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            dprintf(2, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
            _exit(1);                                                                        \
        }                                                                                    \
    } while (0)

static const size_t vast = size_t(1) << 60;
static size_t opaque(size_t n) {
    static volatile size_t seen;
    return seen = n;
}
static std::align_val_t at(size_t align) { return std::align_val_t(align); }

static void every_form() {
    static const size_t sizes[] = {0, 1, 8, 9, 16, 100, 1000, 5000, 20000, 200000};
    for (size_t size : sizes) {
        size_t usable = slabside_good_size ? slabside_good_size(size) : size;
        void *block[] = {operator new(size),           operator new(size, std::nothrow),
                         operator new[](size),         operator new[](size, std::nothrow),
                         operator new(size),           operator new[](size)};
        for (void *one : block) CHECK(malloc_usable_size(one) >= usable && memset(one, 1, size));
        operator delete(block[0]);
        operator delete(block[1], std::nothrow);
        operator delete[](block[2]);
        operator delete[](block[3], std::nothrow);
        operator delete(block[4], size);
        operator delete[](block[5], size);
        for (size_t align = 1; align <= 65536; align *= 2) {
            void *aligned[] = {operator new(size, at(align)),   operator new(size, at(align), std::nothrow),
                               operator new[](size, at(align)), operator new[](size, at(align), std::nothrow),
                               operator new(size, at(align)),   operator new[](size, at(align))};
            for (void *one : aligned) CHECK(uintptr_t(one) % align == 0 && memset(one, 2, size));
            operator delete(aligned[0], at(align));
            operator delete(aligned[1], at(align), std::nothrow);
            operator delete[](aligned[2], at(align));
            operator delete[](aligned[3], at(align), std::nothrow);
            operator delete(aligned[4], size, at(align));
            operator delete[](aligned[5], size, at(align));
        }
    }
    operator delete(nullptr);
    operator delete(nullptr, size_t(8));
    operator delete(nullptr, size_t(8), at(64));
    // New and malloc are one heap.
    free(operator new(100));
    operator delete(malloc(100));
}

struct alignas(64) Line {
    char bytes[192];
};
struct Base {
    virtual ~Base() {}
    long a[3];
};
struct Derived : Base {
    long b[10];
};
static void the_languages_own() {
    for (int i = 1; i < 1000; i++) {
        delete new int(i);
        delete[] new std::string[i % 20 + 1];
        delete new Line;
        delete[] new Line[i % 5 + 1];
        Base *base = new Derived;
        delete base;
        std::vector<Line> lines(i % 7 + 1);
        std::vector<int> numbers(i * 10);
        CHECK(uintptr_t(lines.data()) % 64 == 0);
        std::thread([moved = std::move(numbers)] {}).join();
    }
    CHECK(!slabside_validate || slabside_validate() == 0);
}

struct Destroyed {
    ~Destroyed() { count++; }
    static int count;
};
int Destroyed::count;

template <class F> static bool throws(F f) {
    Destroyed::count = 0;
    try {
        Destroyed here;
        f();
    } catch (const std::bad_alloc &) {
        return Destroyed::count == 1;
    }
    return false;
}

static void out_of_memory_throws() {
    for (int i = 0; i < 100; i++) {
        CHECK(throws([] { operator delete(operator new(opaque(vast))); }));
        CHECK(throws([] { operator delete[](operator new[](opaque(vast))); }));
        CHECK(throws([] { operator delete(operator new(opaque(vast), at(64)), at(64)); }));
        CHECK(throws([] { operator delete[](operator new[](opaque(vast), at(4096)), at(4096)); }));
        CHECK(throws([] { operator delete(operator new(opaque(SIZE_MAX))); }));
        CHECK(throws([] { operator delete(operator new(8, at(SIZE_MAX)), at(1)); }));
        CHECK(throws([] { std::vector<char> v(opaque(vast)); }));
    }
    CHECK(operator new(opaque(vast), std::nothrow) == nullptr);
    CHECK(operator new[](opaque(vast), std::nothrow) == nullptr);
    CHECK(operator new(opaque(vast), at(64), std::nothrow) == nullptr);
    CHECK(operator new[](opaque(vast), at(64), std::nothrow) == nullptr);
    std::thread([] { CHECK(throws([] { operator delete(operator new(opaque(vast))); })); }).join();
}

// A handler is called again and again until it helps, throws, or takes itself away.
static int calls;
static void *reserve;
static void gives_up() {
    if (++calls == 3) std::set_new_handler(nullptr);
}
static void helps() {
    calls++;
    free(reserve);
    reserve = nullptr;
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
}
struct Mine {};
static void throws_its_own() {
    calls++;
    throw Mine();
}
static void throws_bad_alloc() {
    calls++;
    throw std::bad_alloc();
}

static void the_handler_is_heeded() {
    calls = 0;
    std::set_new_handler(gives_up);
    CHECK(throws([] { operator delete(operator new(opaque(vast))); }) && calls == 3);
    calls = 0;
    std::set_new_handler(gives_up);
    CHECK(throws([] { operator delete(operator new(opaque(vast), at(64)), at(64)); }) && calls == 3);
    calls = 0;
    std::set_new_handler(gives_up);
    CHECK(operator new(opaque(vast), std::nothrow) == nullptr && calls == 3);
    calls = 0;
    std::set_new_handler(gives_up);
    CHECK(operator new(opaque(vast), at(64), std::nothrow) == nullptr && calls == 3);

    calls = 0;
    std::set_new_handler(throws_its_own);
    bool caught = false;
    try {
        operator delete(operator new(opaque(vast)));
    } catch (Mine) {
        caught = true;
    }
    CHECK(caught && calls == 1);

    std::set_new_handler(throws_bad_alloc);
    CHECK(throws([] { operator delete(operator new(opaque(vast))); }) && calls == 2);
    // Thrown through a form that must not throw: caught inside.
    CHECK(operator new(opaque(vast), std::nothrow) == nullptr && calls == 3);
    CHECK(operator new[](opaque(vast), at(64), std::nothrow) == nullptr && calls == 4);

    // One that frees memory lets the allocation succeed.
    struct rlimit limit = {};
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = size_t(1) << 30;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    calls = 0;
    std::set_new_handler(helps);
    char *block = static_cast<char *>(operator new(size_t(2) << 30));
    CHECK(calls >= 1);
    block[0] = 1;
    operator delete(block, size_t(2) << 30);
    CHECK(!slabside_validate || slabside_validate() == 0);
}

int main(int argc, char **argv) {
    std::string part = argc > 1 ? argv[1] : "";
    void *volatile block;
    if (part == "forms") every_form();
    else if (part == "language") the_languages_own();
    else if (part == "throws") out_of_memory_throws();
    else if (part == "handler") the_handler_is_heeded();
    else if (part == "wrong-size") operator delete(block = operator new(100), size_t(200));
    else if (part == "wrong-array-size") operator delete[](block = operator new[](1000), size_t(10));
    else if (part == "wrong-alignment") operator delete(block = operator new(100, at(64)), size_t(100));
    else if (part == "wrong-base") {
        struct Flat { long a[3]; };
        struct Longer : Flat { long b[10]; };
        Flat *flat = new Longer; // no virtual destructor
        block = flat;
        delete static_cast<Flat *>(const_cast<void *>(block));
    } else if (part == "twice") {
        block = operator new(100);
        operator delete(block, size_t(100));
        operator delete(block, size_t(100));
    } else CHECK(!"a part");
    return 0;
}

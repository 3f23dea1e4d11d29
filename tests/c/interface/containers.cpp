// slabside's own names from C++: the standard containers on slabside::allocator, and slabside_new.
#include "slabside.h"

#include <cstdio>
#include <cstdint>
#include <list>
#include <map>
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

template <class T> using on = slabside::allocator<T>;
struct alignas(64) Line {
    char bytes[64];
};

static int calls;
static void gives_up() {
    if (++calls == 2) std::set_new_handler(nullptr);
}

template <class F> static bool throws(F f) {
    try {
        f();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

int main() {
    struct slabside_stats before;
    ::slabside_stats(&before);
    {
        std::vector<int, on<int>> numbers;
        std::list<Line, on<Line>> lines;
        std::map<int, std::string, std::less<int>, on<std::pair<const int, std::string>>> names;
        for (int i = 0; i < 10000; i++) {
            numbers.push_back(i);
            lines.emplace_back();
            CHECK(uintptr_t(&lines.back()) % 64 == 0);
            names[i % 100] = std::to_string(i);
        }
        CHECK(slabside_usable_size(numbers.data()) >= 40000 && numbers[9999] == 9999 && names[7] == "9907");
        CHECK(on<int>() == on<Line>());
    }
    struct slabside_stats after;
    ::slabside_stats(&after);
    CHECK(after.live == before.live && slabside_validate() == 0);

    volatile size_t vast = size_t(1) << 60;
    CHECK(throws([&] { std::vector<int, on<int>> v(vast / 4); }));
    CHECK(throws([&] { on<Line>().allocate(SIZE_MAX / 8); }));
    CHECK(throws([&] { slabside_free(slabside_new(vast)); }));
    std::set_new_handler(gives_up);
    CHECK(throws([&] { slabside_free(slabside_new_aligned(vast, 64)); }) && calls == 2);
    slabside_free_sized(slabside_new(100), 100);
    slabside_free_aligned_sized(slabside_new_aligned(100, 256), 256, 100);
    return 0;
}

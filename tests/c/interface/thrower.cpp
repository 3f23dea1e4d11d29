// A library that an ordinary C program opens for itself: its C++ runtime comes with it.
#include <cstddef>
#include <new>
#include <vector>

extern "C" int runs_out_of_memory() {
    try {
        volatile size_t vast = size_t(1) << 60;
        std::vector<char> bytes(vast);
    } catch (const std::bad_alloc &) {
        return 42;
    }
    return 0;
}

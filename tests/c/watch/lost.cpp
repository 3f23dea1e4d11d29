// Objects that are lost: 3 nodes in a ring, and 2 owners that hold a text each. As many are held by a pointer to a base
// that lies in their middle. Says "ready".
// lost
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

struct Node {
    virtual ~Node() {}
    Node *next = nullptr;
    long room[20] = {};
};

struct Owner {
    virtual ~Owner() {}
    std::string text = "far too long for the small string of this library, and longer still";
    long room[30] = {};
};

struct Other {
    virtual ~Other() {}
    long number = 1;
};

struct Both : Owner, Other {};

std::vector<Other *> held;

// Has the compiler believe that others see the object: it is made as it is written.
template <typename Object> Object *seen(Object *object) {
    __asm__ volatile("" : : "r"(object) : "memory");
    return object;
}

__attribute__((noinline)) void lose() {
    Node *ring[3] = {seen(new Node), seen(new Node), seen(new Node)};
    for (int i = 0; i < 3; i++)
        ring[i]->next = ring[(i + 1) % 3];
    seen(ring[0]);
    seen(new Owner);
    seen(new Owner);
    held.push_back(new Both);
    held.push_back(new Both);
}

__attribute__((noinline)) void wipe() {
    volatile char room[64 << 10];
    for (char volatile &byte : room)
        byte = 0;
}

} // namespace

int main() {
    lose();
    wipe();
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        abort();
    for (;;)
        pause();
}

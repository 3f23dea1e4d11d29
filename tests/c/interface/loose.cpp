// Old code that deletes a block as another type than it was made of, as every other allocator lets it: a struct with
// data behind it, a base without a virtual destructor, new[] freed by delete.
#include <cstdio>
#include <cstring>
#include <new>

struct Message {
    int length;
    char text[1];
};
struct Base {
    int kind;
};
struct Derived : Base {
    char rest[500];
};

static __attribute__((noipa)) Message *make(size_t length) {
    Message *message = static_cast<Message *>(operator new(sizeof(Message) + length));
    memset(message->text, 'x', length);
    return message;
}
static __attribute__((noipa)) void drop(Message *message) { delete message; }
static __attribute__((noipa)) void drop(Base *base) { delete base; }
static __attribute__((noipa)) void drop(double *numbers) { delete numbers; }

int main() {
    for (size_t length = 1; length < 400000; length = length * 5 / 4 + 1) {
        drop(make(length));
        drop(static_cast<Base *>(new Derived));
        drop(new double[length]);
    }
    puts("ok");
}

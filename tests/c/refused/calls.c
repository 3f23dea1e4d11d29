/* usage: calls SIZE TIMES LIMIT - asks TIMES for SIZE bytes, which are refused each time. Between two writes to no file,
 * for whoever counts system calls. Below an address space of LIMIT bytes (0: any), which blocks of up to 100,000 bytes
 * use up before. Then counts the instructions of three more refusals, where the processor can be stepped, and prints how
 * many the shortest took: what the clock brings about now and then may fall into one. */
#include "../tools.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>

static volatile long instructions;

#if defined(__x86_64__)
static void count(int signal) {
    (void)signal;
    instructions++;
}

static bool refused_stepped(size_t size) {
    CHECK(signal(SIGTRAP, count) != SIG_ERR);
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    void *block = take(size);
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
    return block == NULL;
}
#else
static bool refused_stepped(size_t size) { return take(size) == NULL; }
#endif

int main(int argc, char **argv) {
    CHECK(argc > 3);
    size_t size = strtoull(argv[1], NULL, 0), times = strtoull(argv[2], NULL, 0), limit = strtoull(argv[3], NULL, 0);
    if (limit != 0) {
        struct rlimit both = {limit, limit};
        CHECK(setrlimit(RLIMIT_AS, &both) == 0);
        while (take(size < 100000 ? size : 100000) != NULL) continue;
    }
    CHECK(write(-1, "begin", 5) == -1);
    size_t refused = 0;
    for (size_t i = 0; i < times; i++) refused += take(size) == NULL && errno == ENOMEM;
    CHECK(write(-1, "end", 3) == -1);
    long least = LONG_MAX;
    for (int i = 0; i < 3; i++) {
        instructions = 0;
        CHECK(refused_stepped(size));
        if (instructions < least) least = instructions;
    }
    printf("%ld\n", least);
    return refused == times ? 0 : 1;
}

/* Twelve vectors that grow by half each time, where the kernel refuses to move any block, as it refuses one of several
 * mappings (EFAULT). A block grows by a copy then. None of what is kept is given back for that, and the limits are not
 * asked for: the filter that refuses the moves ends a program that asks. */
#include "../filter.h"
#include "../tools.h"

#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { VECTORS = 12, STEPS = 3000 };

static void refuse_moves(void) {
    struct sock_filter filter[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MREMAP_MAYMOVE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EFAULT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install_filter(filter, sizeof filter / sizeof *filter, 0);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED && mremap(page, 4096, 8192, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
}

int main(void) {
    static unsigned char *vector[VECTORS];
    static size_t size[VECTORS];
    uint64_t state = 1;
    small_pages_only();
    give(take(1));
    refuse_moves();
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
    dprintf(STDOUT_FILENO, "%ld page faults\n", used.ru_minflt);
    for (size_t i = 0; i < VECTORS; i++) give(vector[i]);
    sound();
    return 0;
}

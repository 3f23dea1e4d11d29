/* Under a filter of system calls that refuses to map what is neither private nor shared, as the question is put whether a
 * range is free: the heap is made all the same, without a reserve of address space. */
#include "../filter.h"
#include "../tools.h"

#include <stddef.h>
#include <sys/syscall.h>

static void confine(void) {
    struct sock_filter filter[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_SHARED | MAP_PRIVATE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install_filter(filter, sizeof filter / sizeof *filter, 0);
}

int main(void) {
    confine();
    CHECK(mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EPERM);
    size_t before = mapped_bytes();
    static void *blocks[4000];
    for (int i = 0; i < 4000; i++) CHECK((blocks[i] = take(20000)) != NULL);
    CHECK(mapped_bytes() - before < 600 * MIB);
    for (int i = 0; i < 4000; i++) give(blocks[i]);
    sound();
    return 0;
}

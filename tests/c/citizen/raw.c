/* usage: raw COUNT - threads made by clone(2) without libc's knowledge, one after another, that allocate, free and
 * end by a bare system call: no destructor runs, and yet what they left is used again. */
#include "../tools.h"

#if defined(__x86_64__)

#include <dlfcn.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static atomic_int running;
static char *left;

static int run(void *unused) {
    (void)unused;
    char *blocks[200];
    for (int i = 0; i < 200; i++) {
        blocks[i] = take((size_t)i * 20 + 1);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], i, (size_t)i * 20 + 1);
    }
    for (int i = 1; i < 200; i++) {
        CHECK(all_are(blocks[i], (unsigned char)i, (size_t)i * 20 + 1));
        give(blocks[i]);
    }
    left = blocks[0];
    syscall(SYS_exit, 0);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    small_pages_only();
    /* libc's own way to thread-local storage, since nobody else may make it. */
    void *(*new_block)(void *) = (void *(*)(void *))dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
    void (*end_block)(void *, bool) = (void (*)(void *, bool))dlsym(RTLD_DEFAULT, "_dl_deallocate_tls");
    if (new_block == NULL || end_block == NULL) {
        puts("skipped");
        return 0;
    }
    enum { STACK = 256 << 10 };
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    uintptr_t *own;
    __asm__("mov %%fs:0, %0" : "=r"(own));
    size_t warm = 0;
    for (int i = 0; i < atoi(argv[1]); i++) {
        /* The thread's control block: itself, and the guards of stack and pointers (tls.h of glibc). */
        unsigned char *fresh = new_block(NULL);
        CHECK(fresh != NULL);
        uintptr_t *words = (uintptr_t *)fresh;
        words[0] = words[2] = (uintptr_t)fresh;
        words[5] = own[5];
        words[6] = own[6];
        atomic_store(&running, 1);
        int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                    CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;
        int id = clone(run, stack + STACK, flags, NULL, (int *)&running, fresh, (int *)&running);
        CHECK(id > 0);
        for (int now; (now = atomic_load(&running)) != 0;) syscall(SYS_futex, &running, FUTEX_WAIT, now, NULL, NULL, 0);
        CHECK(*left == 0);
        give(left);
        end_block(fresh, true);
        if (i == 100) warm = resident_bytes();
    }
    CHECK(resident_bytes() <= warm + 16 * MIB);
    sound();
    puts("done");
    return 0;
}

#else
int main(void) {
    puts("skipped");
    return 0;
}
#endif

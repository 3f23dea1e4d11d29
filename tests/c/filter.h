/* Refuses system calls: installs a seccomp filter. */
#ifndef FILTER_H
#define FILTER_H

#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Loads the number of the system call, which most filters look at first. */
#define LOAD_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))

/* Filters this thread's system calls, or those of all threads by SECCOMP_FILTER_FLAG_TSYNC. What seccomp(2) returns. */
static long install_filter(struct sock_filter *steps, size_t count, unsigned long flags) {
    struct sock_fprog program = {(unsigned short)count, steps};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    long said = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    CHECK(said >= 0);
    return said;
}

/* Kills the process at its next system call of this number. */
static inline void kill_on(unsigned number) {
    struct sock_filter steps[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install_filter(steps, sizeof steps / sizeof *steps, 0);
}

#endif

/* A fork child samples blocks that are zero, also where a thread of its parent was about to close a sampled page. */
#include "../filter.h"
#include "../tools.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* A block of the first size leaves nothing of its page behind it, one of the second does. */
enum { TAKEN = 30000, SIZE = 112, SMALLER = 100 };

static sem_t stopped, forked;

/* In place of the system call that would close the page. */
static void stop(int signal) {
    (void)signal;
    sem_post(&stopped);
    while (sem_wait(&forked) != 0) {}
}

/* From now on this thread cannot close a page: it maps nothing that it cannot touch. */
static void stop_at_close(void) {
    struct sock_filter steps[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_NONE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install_filter(steps, sizeof steps / sizeof *steps, 0);
}

/* Blocks that are samples lie at the ends of pages, apart from the others. */
static bool is_sampled(char *block) {
    char *end = (char *)(((uintptr_t)block + SIZE + 15) & -(uintptr_t)16);
    unsigned char resident;
    return (uintptr_t)end % PAGE_BYTES == 0 && mincore(end, PAGE_BYTES, &resident) == 0 &&
           write(STDIN_FILENO, end, 1) != 1;
}

static void *work(void *unused) {
    char *block;
    do {
        block = take(SIZE);
    } while (!is_sampled(block));
    memset(block, 0xff, SIZE);
    stop_at_close();
    give(block);
    return unused;
}

int main(void) {
    int pipes[2];
    CHECK(pipe(pipes) == 0 && dup2(pipes[1], STDIN_FILENO) >= 0);
    struct sigaction action = {.sa_handler = stop};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(sem_init(&stopped, 0, 0) == 0 && sem_init(&forked, 0, 0) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    while (sem_wait(&stopped) != 0) {}
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        static char *taken[TAKEN];
        for (int i = 0; i < TAKEN; i++) {
            CHECK((taken[i] = calloc(1, SMALLER)) != NULL && all_are(taken[i], 0, SMALLER));
            memset(taken[i], 0xff, SMALLER);
        }
        for (int i = 0; i < TAKEN; i++) give(taken[i]);
        _exit(0);
    }
    sem_post(&forked);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    pthread_join(thread, NULL);
    return 0;
}

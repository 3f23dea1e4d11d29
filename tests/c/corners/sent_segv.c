/* A SIGSEGV that a process sends does what it does without the handler that sampling installs. */
#include "../tools.h"

#include <signal.h>
#include <sys/wait.h>

static volatile sig_atomic_t caught;
static volatile siginfo_t how;

static void handle(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    caught++;
    how = *info;
}

static void watch_segv(int flags) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | flags};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
}

/* Some of these blocks are samples. */
static void take_samples(void) {
    for (int i = 0; i < 10000; i++) give(take(100));
}

static void raised(void) {
    take_samples();
    raise(SIGSEGV);
}

static void killed(void) {
    take_samples();
    kill(getpid(), SIGSEGV);
}

static void handled(void) {
    watch_segv(0);
    take_samples();
    raise(SIGSEGV);
    CHECK(caught == 1 && how.si_code == SI_TKILL);
    sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = 42});
    CHECK(caught == 2 && how.si_code == SI_QUEUE && how.si_value.sival_int == 42);
}

static void queued(void) {
    watch_segv(0);
    take_samples();
    sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = 42});
    CHECK(caught == 1 && how.si_code == SI_QUEUE && how.si_value.sival_int == 42 && how.si_pid == getpid());
}

static void handled_once(void) {
    watch_segv((int)SA_RESETHAND);
    take_samples();
    raise(SIGSEGV);
    CHECK(caught == 1);
    raise(SIGSEGV);
}

static void ignored(void) {
    signal(SIGSEGV, SIG_IGN);
    take_samples();
    for (int i = 0; i < 3; i++) raise(SIGSEGV);
}

static void ends(void (*run)(void), bool by_signal) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(by_signal ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV : status == 0);
}

int main(void) {
    ends(raised, true);
    ends(killed, true);
    ends(handled, false);
    ends(queued, false);
    ends(handled_once, true);
    ends(ignored, false);
    return 0;
}

/* Sixty-four blocks are out in mremap at once, and as many others come meanwhile: the table of records has room for
 * those that come back. A filter holds each mremap until all have begun (seccomp_unotify(2)). */
#include "../filter.h"
#include "../tools.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

enum { OUT = 64, SIZE = 160 << 10 };

/* From now on each mremap of this thread and of those it makes waits to be answered; where it can be read of. */
static int hold_mremap(void) {
    struct sock_filter filter[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    long listener = install_filter(filter, sizeof filter / sizeof *filter, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    CHECK(listener >= 0);
    return (int)listener;
}

/* The next mremap that waits. */
static uint64_t next_held(int listener) {
    struct seccomp_notif asked;
    memset(&asked, 0, sizeof asked);
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0 && asked.data.nr == SYS_mremap);
    return asked.id;
}

/* Lets it go on. */
static void let_on(int listener, uint64_t id) {
    struct seccomp_notif_resp answer = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    CHECK(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) == 0);
}

static pthread_t thread[OUT];
static void *block[OUT], *other[OUT];
static int listener;

static void *grown(void *of) { return resize(of, 4 * SIZE); }

/* Answers whatever comes after the sixty-four. */
static void *let_all_on(void *unused) {
    for (;;) let_on(listener, next_held(listener));
    return unused;
}

int main(void) {
    uint64_t held[OUT];
    pthread_t answering;
    for (int i = 0; i < OUT; i++) memset(block[i] = take(SIZE), i, SIZE);
    listener = hold_mremap();
    for (int i = 0; i < OUT; i++) CHECK(pthread_create(&thread[i], NULL, grown, block[i]) == 0);
    for (int i = 0; i < OUT; i++) held[i] = next_held(listener);
    for (int i = 0; i < OUT; i++) CHECK((other[i] = take(SIZE)) != NULL);
    for (int i = 0; i < OUT; i++) let_on(listener, held[i]);
    CHECK(pthread_create(&answering, NULL, let_all_on, NULL) == 0);
    for (int i = 0; i < OUT; i++) {
        CHECK(pthread_join(thread[i], &block[i]) == 0);
        CHECK(block[i] != NULL && all_are(block[i], (unsigned char)i, SIZE));
    }
    CHECK(figures().large == 2 * OUT);
    for (int i = 0; i < OUT; i++) give(other[i]);
    for (int i = 0; i < OUT; i++) give(block[i]);
    CHECK(figures().large == 0);
    sound();
    return 0;
}

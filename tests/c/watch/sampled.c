/* Holds known bytes by functions of known names, for a heap profile. Says "ready" and waits.
 * usage: sampled [PLUGIN]    a library whose function `hold_by_plugin` allocates, and which is closed after that */
#include "../tools.h"

#include <dlfcn.h>
#include <pthread.h>

#define SITE __attribute__((noipa)) void

SITE hold_much(void) {
    for (int i = 0; i < 12000; i++) CHECK(take(1000));
}

SITE hold_little(void) {
    for (int i = 0; i < 20000; i++) CHECK(take(200));
}

SITE hold_spans(void) {
    for (int i = 0; i < 150; i++) CHECK(take(20000));
}

SITE hold_large(void) {
    for (int i = 0; i < 10; i++) CHECK(take(300000));
}

/* One block in two is freed again, half of those by another thread. */
static void *lost[10000];

static void *lose_quarter(void *unused) {
    (void)unused;
    for (int i = 3; i < 10000; i += 4) give(lost[i]);
    return NULL;
}

SITE hold_half(void) {
    for (int i = 0; i < 10000; i++) CHECK((lost[i] = take(500)));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, lose_quarter, NULL) == 0);
    for (int i = 1; i < 10000; i += 4) give(lost[i]);
    CHECK(pthread_join(thread, NULL) == 0);
}

__attribute__((noipa)) void *hold_in_thread(void *unused) {
    for (int i = 0; i < 6000; i++) CHECK(take(300));
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold_in_thread, NULL) == 0);
    hold_much();
    hold_little();
    hold_spans();
    hold_large();
    hold_half();
    CHECK(pthread_join(thread, NULL) == 0);
    if (argc > 1) {
        void *library = dlopen(argv[1], RTLD_NOW);
        CHECK(library != NULL);
        void (*hold)(void) = (void (*)(void))dlsym(library, "hold_by_plugin");
        CHECK(hold != NULL);
        hold();
        CHECK(dlclose(library) == 0);
    }
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}

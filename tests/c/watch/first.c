/* Its first thread ends at once. The other one holds 1,000 blocks of 1,000 bytes after a while, and ends the program. */
#include "../tools.h"

#include <pthread.h>
#include <unistd.h>

__attribute__((noipa)) static void hold(void) {
    for (int i = 0; i < 1000; i++) CHECK(take(1000));
}

static void *second(void *unused) {
    (void)unused;
    usleep(200000);
    hold();
    exit(5);
}

int main(void) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, second, NULL) == 0);
    hold();
    pthread_exit(NULL);
}

/* Its first thread ends at once. When it has, the other one holds 1,000 blocks of 1,000 bytes, and ends the program. */
#include "../tools.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

__attribute__((noipa)) static void hold(void) {
    for (int i = 0; i < 1000; i++) CHECK(take(1000));
}

/* Whether the first thread has ended, and nobody who traces it keeps it. */
static int has_ended(void) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    int file = open(path, O_RDONLY);
    CHECK(file >= 0);
    ssize_t length = read(file, text, sizeof text - 1);
    CHECK(length > 0 && close(file) == 0);
    text[length] = 0;
    const char *name = strrchr(text, ')');
    CHECK(name);
    return name[2] == 'Z';
}

static void *second(void *unused) {
    (void)unused;
    while (!has_ended()) usleep(1000);
    hold();
    exit(5);
}

int main(void) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, second, NULL) == 0);
    hold();
    pthread_exit(NULL);
}

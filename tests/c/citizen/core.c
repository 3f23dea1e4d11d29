/* Ends by SIGQUIT with a core dump, which holds a string in a block that was allocated last, by a thread: where the
 * break is not to be moved then, it lies in a fallback window. Or prints how many KiB of reserves would be in one, by
 * the flags of /proc/self/smaps, "flags" given. */
#include "../tools.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static size_t dumped_reserves(void) {
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    size_t kib = 0, sum = 0;
    bool reserve = false;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        char access[5];
        if (sscanf(line, "%*x-%*x %4s", access) == 1 && strchr("r-", access[0]) && access[4] == 0)
            reserve = strcmp(access, "---p") == 0;
        sscanf(line, "Size: %zu", &kib);
        if (strncmp(line, "VmFlags:", 8) == 0 && reserve && strstr(line, " dd") == NULL && kib > 4096) sum += kib;
    }
    fclose(maps);
    return sum;
}

/* Each letter is one less than what the block gets, so that the string lies nowhere else. */
static const char before[] = "`.a`^j-hm-sgd-ctlo";

static void *mark(void *unused) {
    char *block = NULL;
    for (int i = 0; i < 4000; i++) block = take(500);
    for (size_t i = 0; i < sizeof before - 1; i++) block[i] = (char)(before[i] + 1);
    return unused;
}

int main(int argc, char **argv) {
    for (int i = 0; i < 10000; i++) memset(take(500), 0x5a, 500);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, mark, NULL) == 0 && pthread_join(thread, NULL) == 0);
#ifdef PREFIXED
    CHECK(figures().metadata * 100 <= 7 * MIB * 3);
#endif
    if (argc > 1) {
        printf("%zu\n", dumped_reserves());
        return 0;
    }
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_CORE, &limit) == 0);
    raise(SIGQUIT);
    return 0;
}

/* Ends by SIGQUIT with a core dump; or prints how many KiB of reserves would be in one, by the flags of
 * /proc/self/smaps, "flags" given. */
#include "../tools.h"

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

int main(int argc, char **argv) {
    for (int i = 0; i < 10000; i++) memset(take(500), 0x5a, 500);
    if (argc > 1) {
        printf("%zu\n", dumped_reserves());
        return 0;
    }
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_CORE, &limit) == 0);
    raise(SIGQUIT);
    return 0;
}

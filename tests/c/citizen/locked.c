/* A program that locks all its memory, present and future, before it allocates: the reserves cost it nothing. */
#include "../tools.h"

#include "../exercise.h"

int main(void) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        puts("skipped");
        return 0;
    }
    static struct exercise work = {.state = 3};
    for (int i = 0; i < 20000; i++) exercise_step(&work);
    size_t locked = proc_figure("/proc/self/status", "VmLck:") * KIB;
    if (resident_bytes() >= 200 * MIB) dprintf(STDERR_FILENO, "%zu MiB resident\n", resident_bytes() / MIB);
    CHECK(resident_bytes() < 200 * MIB && locked > 0);
    exercise_end(&work);
    sound();
    puts("done");
    return 0;
}

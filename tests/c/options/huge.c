/* Fills 64 MiB of small blocks and one large one: prints how many KiB of it are huge pages. */
#include "../tools.h"

int main(void) {
    for (int i = 0; i < 64 << 10; i++) memset(take(1000), 1, 1000);
    memset(take(16 * MIB), 1, 16 * MIB);
    printf("%zu\n", proc_figure("/proc/self/smaps_rollup", "AnonHugePages:"));
    return 0;
}

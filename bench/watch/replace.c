/* Replaces blocks at random.
 *
 * replace BLOCKS SIZE TIMES */
#include <stdint.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    long blocks = atol(argv[1]), size = atol(argv[2]), times = atol(argv[3]);
    void **held = malloc(blocks * sizeof *held);
    uint64_t state = 88172645463325252u;
    for (long i = 0; i < blocks; i++)
        held[i] = malloc(size);
    for (long i = 0; i < times; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        void **place = &held[state % blocks];
        free(*place);
        *place = malloc(size);
    }
    return 0;
}

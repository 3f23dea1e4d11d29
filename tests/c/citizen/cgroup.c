/* usage: cgroup DIRECTORY MIB - joins the memory control group at DIRECTORY, which allows MIB, and swells to half
 * of that again and again, by blocks of another size each time: what it frees is there again, or it would be
 * killed. Then limits itself by an option to what the group allows, and is refused before it is killed. */
#include "../tools.h"

int main(int argc, char **argv) {
    CHECK(argc == 3);
    char path[512];
    snprintf(path, sizeof path, "%s/cgroup.procs", argv[1]);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fprintf(file, "%d", (int)getpid()) > 0 && fclose(file) == 0);
    size_t most = strtoul(argv[2], NULL, 10) * MIB, sizes[] = {40, 300, 4000, 30000, 200000, 2000000, 100};
    for (int round = 0; round < 21; round++) {
        size_t size = sizes[round % 7];
        void *list = NULL;
        for (size_t sum = 0; sum < most / 2; sum += size) {
            void **block = take(size);
            CHECK(block != NULL);
            memset(block, 1, size);
            *block = list;
            list = block;
        }
        while (list != NULL) {
            void **block = list;
            list = *block;
            give(block);
        }
    }
    size_t count = 0;
    for (char *block; (block = take(5000)) != NULL; count++) memset(block, 1, 5000);
    CHECK(count * 5000 > most / 2);
    puts("done");
    return 0;
}

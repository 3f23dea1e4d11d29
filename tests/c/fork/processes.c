/* Threads start processes by popen, system and posix_spawn while others allocate: vfork-like children
 * share the parent's memory until they exec, and must not disturb its heap.
 *
 * usage: processes EACH */
#include "children.h"

#include <spawn.h>

extern char **environ;

enum { SLOTS = 256, STARTERS = 3, CHURNERS = 2 };

static slot slots[SLOTS];
static atomic_int over;
static int each;

static void *churn(void *argument) {
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    while (!atomic_load(&over))
        block_end(atomic_exchange(&slots[random_next(&state) % SLOTS], block_new(random_size(&state), random_next(&state))));
    return NULL;
}

static void by_popen(int number) {
    char command[64], line[64];
    snprintf(command, sizeof command, "echo %d; exit 4", number);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    CHECK(fgets(line, sizeof line, pipe) != NULL && atoi(line) == number);
    CHECK(fgets(line, sizeof line, pipe) == NULL);
    int status = pclose(pipe);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 4);
}

static void by_system(int number) {
    char command[64];
    snprintf(command, sizeof command, "exit %d", number % 100);
    int status = system(command);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == number % 100);
}

static void by_spawn(void) {
    pid_t child;
    char *arguments[] = {"true", NULL};
    CHECK(posix_spawnp(&child, "true", NULL, NULL, arguments, environ) == 0);
    child_end(child);
}

static void *start_processes(void *argument) {
    int first = (int)(intptr_t)argument * 1000;
    for (int i = first; i < first + each; i++) {
        by_popen(i);
        by_system(i);
        by_spawn();
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    each = atoi(argv[1]);
    pthread_t churners[CHURNERS], starters[STARTERS];
    for (long i = 0; i < CHURNERS; i++) churners[i] = thread_start(churn, (void *)i);
    for (long i = 0; i < STARTERS; i++) starters[i] = thread_start(start_processes, (void *)i);
    for (int i = 0; i < STARTERS; i++) thread_end(starters[i]);
    atomic_store(&over, 1);
    for (int i = 0; i < CHURNERS; i++) thread_end(churners[i]);
    slots_end(slots, SLOTS);
    sound();
    return 0;
}

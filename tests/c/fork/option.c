/* The one thread with a heap forks while another, which never allocates, sets an option again and again: the lock of
 * the options may be held at that moment, and the child sets one too.
 *
 * usage: option FORKS */
#include "children.h"

static atomic_int sets, stop;

static void *set_options(void *unused) {
    while (!atomic_load(&stop)) {
        CHECK(slabside_option_set("guard-sample", "100000") == 0);
        CHECK(slabside_option_set("guard-sample", "0") == 0);
        atomic_fetch_add(&sets, 1);
    }
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    free(malloc(100));
    pthread_t thread = thread_start(set_options, NULL);
    while (atomic_load(&sets) == 0) continue;
    for (int i = 0; i < atoi(argv[1]); i++) {
        pid_t child = child_start();
        if (child == 0) {
            CHECK(slabside_option_set("guard-sample", "0") == 0);
            free(malloc(100));
            CHECK(slabside_validate() == 0);
            _exit(0);
        }
        child_end(child);
    }
    atomic_store(&stop, 1);
    thread_end(thread);
    return 0;
}

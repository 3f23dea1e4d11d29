/* usage: unloaded PLUGIN - a library that brings the allocator with it is closed; threads that used it end, the
 * program forks, and what it handed out stays. */
#include "../tools.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>

typedef int (*work_t)(void);
typedef char *(*keep_t)(size_t);

static void *library;
static work_t work;
static keep_t keep;
static pthread_barrier_t used, closed;
static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER; /* the plugin validates its heap */

static void *run(void *unused) {
    pthread_mutex_lock(&alone);
    CHECK(work() == 42);
    pthread_mutex_unlock(&alone);
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&closed);
    return unused;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t threads[4];
    for (int round = 0; round < 3; round++) {
        library = dlopen(argv[1], RTLD_NOW);
        if (library == NULL) dprintf(STDERR_FILENO, "%s\n", dlerror());
        CHECK(library != NULL);
        work = (work_t)dlsym(library, "plugin_work");
        keep = (keep_t)dlsym(library, "plugin_keep");
        CHECK(work != NULL && keep != NULL);
        pthread_barrier_init(&used, NULL, 5);
        pthread_barrier_init(&closed, NULL, 5);
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, run, NULL) == 0);
        pthread_barrier_wait(&used);
        char *kept = keep(5000);
        CHECK(dlclose(library) == 0);
        CHECK(all_are(kept, 9, 5000));
        pthread_barrier_wait(&closed);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) _exit(all_are(kept, 9, 5000) ? 0 : 1);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    puts("done");
    return 0;
}

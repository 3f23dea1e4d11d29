/* With `background:on`, what was freed goes back although no thread makes a call any more.
 *
 * usage: background SIZE KEPT [sleeper|fork]   all but every KEPT-th block of SIZE bytes are freed (0: all), by the first
 *                                        thread, by another one, which sleeps then, or in a fork child
 *        background off                  without the option there is no other thread */
#include "../threads/work.h"

#include <dirent.h>
#include <sys/wait.h>

enum { TOTAL = 100000000, PATIENCE_MS = 60000 };

static size_t size, kept, count;
static unsigned char **block;
static pthread_barrier_t freed;

/* The threads of this process, and the number of one that is not the calling one; no stdio, which allocates. */
static int threads(int *other) {
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;)
        if (task->d_name[0] != '.') {
            n++;
            if (atoi(task->d_name) != (int)getpid()) *other = atoi(task->d_name);
        }
    closedir(tasks);
    return n;
}

static void fill(void) {
    for (size_t i = 0; i < count; i++) block[i] = memset(take(size), (int)(1 + i % 200), size);
}

static bool stays(size_t i) { return kept != 0 && i % kept == kept - 1; }

static void let_go(void) {
    for (size_t i = 0; i < count; i++)
        if (!stays(i)) give(block[i]);
}

static void *sleeper(void *unused) {
    fill();
    let_go();
    pthread_barrier_wait(&freed);
    pthread_barrier_wait(&freed);
    return unused;
}

/* Waits until no more than the blocks that stay, each with its pages, and a fiftieth are resident. */
static void await(size_t before) {
    size_t live = kept ? count / kept * ((size + 2 * PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES) : 0;
    size_t most = before + live + TOTAL / 50, resident = 0;
    for (int waited = 0; waited < PATIENCE_MS; waited += 50) {
        resident = resident_bytes();
        if (resident <= most) break;
        wait_ms(50);
    }
    if (resident > most) dprintf(STDERR_FILENO, "%zu of %d bytes stay, %zu at most\n", resident, TOTAL, most);
    CHECK(resident <= most);
    for (size_t i = 0; i < count; i++)
        if (stays(i)) CHECK(all_are(block[i], (unsigned char)(1 + i % 200), size));
}

/* The other thread sleeps: it is not scheduled any more. */
static void rests(int thread) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", thread);
    size_t before = 0, now = 1;
    for (int waited = 0; waited < PATIENCE_MS && before != now; waited += 1500) {
        before = proc_figure(path, "\nvoluntary_ctxt_switches:");
        wait_ms(1500);
        now = proc_figure(path, "\nvoluntary_ctxt_switches:");
    }
    CHECK(before == now);
}

static void once(void) {
    size_t before = resident_bytes();
    fill();
    let_go();
    await(before);
}

static void *nothing(void *unused) { return unused; }

int main(int argc, char **argv) {
    int other = 0;
    small_pages_only();
    if (argc == 2) {
        size = 1000, kept = 0, count = TOTAL / size;
        block = take(count * sizeof *block);
        fill();
        let_go();
        CHECK(threads(&other) == 1);
        return 0;
    }
    CHECK(argc >= 3);
    size = strtoul(argv[1], NULL, 10), kept = strtoul(argv[2], NULL, 10), count = TOTAL / size;
    block = mmap(NULL, count * sizeof *block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(block != MAP_FAILED);
    if (argc == 3) {
        once();
        CHECK(threads(&other) == 2);
        rests(other);
    } else if (strcmp(argv[3], "sleeper") == 0) {
        pthread_barrier_init(&freed, NULL, 2);
        size_t before = resident_bytes();
        pthread_t thread = thread_start(sleeper, NULL);
        pthread_barrier_wait(&freed);
        await(before + MIB);
        pthread_barrier_wait(&freed);
        thread_end(thread);
    } else if (strcmp(argv[3], "identity") == 0) {
        /* Of the first thread of a process libc unblocks its own signals in any case. */
        thread_end(thread_start(nothing, NULL));
        once();
        CHECK(threads(&other) == 2);
        CHECK(setuid(getuid()) == 0);
    } else {
        once();
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            once();
            CHECK(threads(&other) == 2);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        once();
    }
    /* The check wants nobody at work. */
    CHECK(threads(&other) == 2);
    rests(other);
    sound();
    return 0;
}

/* One thread forks, one loops in fflush(NULL), and two in getline, which allocates while it holds its
 * FILE's lock. fork takes the lock of the list of FILEs, so an allocator that holds a lock of its own
 * round fork closes a circle of three here, and hangs for good.
 *
 * usage: stdio FORKS */
#include "children.h"

enum { LONGEST = 6000, KEPT = 500 };

static atomic_int over;

static void *flush(void *unused) {
    (void)unused;
    while (!atomic_load(&over)) CHECK(fflush(NULL) == 0);
    return NULL;
}

/* In the prefixed form getline would use libc's heap: there a line is read into a block of ours, under
 * the same lock. NULL at the file's end. */
static char *read_line(FILE *file) {
    char *line = NULL;
#ifdef PREFIXED
    flockfile(file);
    line = malloc(LONGEST);
    if (fgets(line, LONGEST, file) == NULL) {
        free(line);
        line = NULL;
    }
    funlockfile(file);
#else
    size_t room = 0;
    if (getline(&line, &room, file) < 0) {
        free(line);
        line = NULL;
    }
#endif
    return line;
}

/* Keeps many lines before it frees any, so that the allocations under the FILE's lock are not served by
 * whatever the thread has at hand. */
static void *read_lines(void *argument) {
    FILE *file = argument;
    char *lines[KEPT] = {0};
    int count = 0;
    while (!atomic_load(&over)) {
        char *line = read_line(file);
        if (line == NULL) rewind(file);
        else lines[count++] = line;
        if (count < KEPT) continue;
        while (count > 0) free(lines[--count]);
    }
    while (count > 0) free(lines[--count]);
    return NULL;
}

/* A file of lines from the shortest to some that a buffer must grow for. */
static FILE *file_of_lines(void) {
    FILE *file = tmpfile();
    CHECK(file != NULL);
    for (int i = 0; i < 400; i++) fprintf(file, "%0*d\n", 1 + i * 37 % (LONGEST - 2), i);
    rewind(file);
    return file;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    long forks = atol(argv[1]);
    FILE *files[2] = {file_of_lines(), file_of_lines()};
    pthread_t threads[3];
    threads[2] = thread_start(flush, NULL);
    for (int i = 0; i < 2; i++) threads[i] = thread_start(read_lines, files[i]);
    struct block *own = block_new(100, 2);
    for (long i = 0; i < forks; i++) {
        pid_t child = child_start();
        if (child == 0) {
            block_end(own);
            block_end(block_new(1000, 3));
            _exit(0);
        }
        block_end(own);
        own = block_new(100, 2);
        child_end(child);
    }
    block_end(own);
    atomic_store(&over, 1);
    for (int i = 0; i < 3; i++) thread_end(threads[i]);
    for (int i = 0; i < 2; i++) fclose(files[i]);
    sound();
    return 0;
}

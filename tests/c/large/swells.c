/* swells blocks SIZE COUNT BURST: after BURST blocks of SIZE bytes were taken and freed once, COUNT of them are, again
 * and again. swells resize FROM TO: a block shrinks from FROM to TO bytes and grows back, again and again.
 * The program pays for a few such rounds, in page faults and in calls that give memory back and map it again: after
 * that the memory stays. Some rounds may be lost to a machine that lets the program wait. */
#include "../tools.h"

#include <sys/resource.h>

enum { ROUNDS = 100, LEARNING = 6, LOST = 6, MOST = 1000 };

static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* Writes to each page from `from` to before `to`. */
static void touch(char *block, size_t from, size_t to) {
    for (size_t at = from; at < to; at += PAGE_BYTES) block[at] = 1;
}

static void swell(size_t size, size_t count) {
    static void *block[MOST];
    for (size_t i = 0; i < count; i++) touch(block[i] = take(size), 0, size);
    for (size_t i = 0; i < count; i++) give(block[i]);
}

/* Whether more or less is mapped now than before, or something was discarded: each unmapping and mapping tells. */
static bool changed(struct slabside_stats *before) {
    struct slabside_stats now = figures();
    bool differs = now.mapped != before->mapped || now.purged != before->purged;
    *before = now;
    return differs;
}

int main(int argc, char **argv) {
    CHECK(argc == 5 || argc == 4);
    size_t first = strtoul(argv[2], NULL, 10), second = strtoul(argv[3], NULL, 10), pages;
    char *resized = NULL;
    small_pages_only();
    if (argc == 5) {
        swell(first, strtoul(argv[4], NULL, 10));
        pages = first * second / PAGE_BYTES;
    } else {
        touch(resized = take(first), 0, first);
        pages = (first - second) / PAGE_BYTES;
    }
    long faults_before = 0, lost = 0;
    struct slabside_stats before = figures();
    for (int i = 0; i < ROUNDS; i++) {
        if (i == LEARNING) faults_before = faults(), lost = 0;
        if (argc == 5) {
            swell(first, second);
        } else {
            CHECK(resize(resized, second) == resized);
            lost += changed(&before);
            touch(resized = resize(resized, first), second, first);
        }
        lost += changed(&before);
    }
    long paid = faults() - faults_before;
    if (paid > LOST * (long)pages || lost > LOST) dprintf(STDERR_FILENO, "%ld faults, %ld rounds lost\n", paid, lost);
    CHECK(paid <= LOST * (long)pages);
    CHECK(lost <= LOST);
    give(resized);
    sound();
    return 0;
}

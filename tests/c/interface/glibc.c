/* usage: glibc PART - glibc's own functions: figures that are true, trimming, parameters, XML, statistics. */
#include "../tools.h"

enum { BLOCKS = 4000 };
static void *block[BLOCKS];

static struct mallinfo2 info(void) { return mallinfo2(); }

/* Every change is seen to the byte. */
static void true_figures(void) {
    give(take(50000)), give(take(300000));
    struct mallinfo2 before = info();
    CHECK(before.arena == before.uordblks + before.fordblks);
    for (int i = 0; i < BLOCKS; i++) block[i] = take(1000);
    void *span = take(50000), *large = take(300000);
    struct mallinfo2 full = info();
    size_t each = room(block[0]);
    CHECK(full.uordblks - before.uordblks == BLOCKS * each + room(span));
    CHECK(full.hblks - before.hblks == 1 && full.hblkhd - before.hblkhd == room(large));
    CHECK(full.arena == full.uordblks + full.fordblks && full.arena >= full.uordblks);
    CHECK(full.usmblks >= full.uordblks + full.hblkhd);
    for (int i = 0; i < BLOCKS; i += 2) give(block[i]);
    struct mallinfo2 half = info();
    CHECK(full.uordblks - half.uordblks == BLOCKS / 2 * each && half.ordblks >= full.ordblks + BLOCKS / 2);
    for (int i = 1; i < BLOCKS; i += 2) give(block[i]);
    give(span), give(large);
    struct mallinfo2 after = info();
    /* What is held and not live lies in free blocks: slots, spans and runs of pages. */
    CHECK(after.ordblks >= 1 && after.fordblks > 0);
    CHECK(after.uordblks == before.uordblks && after.hblks == before.hblks && after.hblkhd == before.hblkhd);
    CHECK(after.usmblks == full.usmblks);
    /* Of them, slots: their number and bytes. */
    CHECK(half.smblks >= full.smblks + BLOCKS / 2 && half.fsmblks >= full.fsmblks + BLOCKS / 2 * each);
    CHECK(half.smblks <= half.ordblks && half.fsmblks <= half.fordblks && after.fsmblks <= after.fordblks);
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    struct mallinfo narrow = mallinfo();
#pragma GCC diagnostic pop
#endif
    CHECK((size_t)narrow.uordblks == after.uordblks && (size_t)narrow.arena == after.arena);
    /* Figures that exceed an int do not wrap round. */
    char *vast = take((size_t)5 << 30);
    if (vast != NULL) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        narrow = mallinfo();
#pragma GCC diagnostic pop
        CHECK(narrow.hblkhd == __INT_MAX__ && info().hblkhd >= (size_t)5 << 30);
        give(vast);
    }
}

/* Trimming gives back what is kept, says so, and the second time there is nothing. */
static void trim(void) {
    small_pages_only();
    for (int i = 0; i < BLOCKS; i++) block[i] = memset(take(3000), 1, 3000);
    void *kept = take(3000);
    for (int i = 0; i < BLOCKS; i++) give(block[i]);
    for (int i = 0; i < 30; i++) block[i] = memset(take(30000), 1, 30000);
    for (int i = 0; i < 30; i++) give(block[i]);
    give(memset(take(2 * MIB), 1, 2 * MIB));
    size_t before = resident_bytes();
    CHECK(malloc_trim(0) == 1);
    CHECK(before - resident_bytes() >= 2 * MIB);
    CHECK(info().keepcost < 64 * KIB);
    CHECK(malloc_trim(0) == 0);
    give(kept);
    sound();
}

/* A pad stays. */
static void pad(void) {
    CHECK(mallopt(M_TRIM_THRESHOLD, -1) == 1);
    for (int i = 0; i < BLOCKS; i++) block[i] = take(1000);
    for (int i = 0; i < BLOCKS; i++) give(block[i]);
    malloc_trim(MIB);
    size_t kept = info().keepcost;
    CHECK(kept >= MIB && kept < MIB + 64 * KIB);
    malloc_trim(0);
    CHECK(info().keepcost == 0);
}

/* The threshold is honoured: never, late, at once. */
static size_t left_after_free(int threshold) {
    CHECK(mallopt(M_TRIM_THRESHOLD, threshold) == 1);
    malloc_trim(0);
    for (int i = 0; i < BLOCKS; i++) block[i] = take(1000);
    char *high = break_now();
    for (int i = 0; i < BLOCKS; i++) give(block[i]);
    return (size_t)(high - break_now());
}
static void threshold(void) {
    give(take(1000));
    CHECK(left_after_free(-1) == 0);
    for (int i = 0; i < 30; i++) wait_ms(20), give(take(64 + (size_t)i * 700));
    CHECK(left_after_free(-1) == 0);
    CHECK(left_after_free(512 << 20) == 0);
    CHECK(left_after_free(128 << 10) >= 3 * MIB);
}

static void parameters(void) {
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(M_MMAP_THRESHOLD, __INT_MAX__) == 0);
    CHECK(mallopt(M_MXFAST, 64) == 1 && mallopt(M_MXFAST, 161) == 0 && mallopt(M_MXFAST, -1) == 0);
    CHECK(mallopt(M_ARENA_MAX, 2) == 1 && mallopt(M_ARENA_MAX, 0) == 0 && mallopt(M_ARENA_TEST, 1) == 1);
    CHECK(mallopt(M_TOP_PAD, 1 << 20) == 1 && mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_PERTURB, 1) == 1);
    CHECK(mallopt(M_CHECK_ACTION, 3) == 1);
    CHECK(mallopt(12345, 1) == 0);
    char *large = take(300000); /* still a mapping, whatever M_MMAP_MAX says */
    CHECK(info().hblks >= 1);
    give(large);
}

static void xml(void) {
    static char text[16384]; /* so that writing allocates nothing */
    setvbuf(stdout, text, _IOFBF, sizeof text);
    for (int i = 0; i < BLOCKS; i++) block[i] = take(48);
    for (int i = 0; i < BLOCKS; i += 2) give(block[i]);
    void *large = take(300000);
    CHECK(malloc_info(1, stdout) == EINVAL);
    CHECK(malloc_info(0, stdout) == 0);
    struct mallinfo2 now = info();
    printf("%zu %zu %zu\n", now.arena, now.fordblks, now.hblkhd);
    give(large);
    FILE *full = fopen("/dev/full", "w");
    CHECK(full != NULL);
    setvbuf(full, NULL, _IONBF, 0);
    CHECK(malloc_info(0, full) == -1 && errno == ENOSPC);
    fclose(full);
}

static void statistics(void) {
    void *kept = take(300000);
    malloc_stats();
    give(kept);
}

static void refused(void) {
    errno = 0;
    CHECK(reallocarray(NULL, opaque_size(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    char *kept = take(10);
    strcpy(kept, "kept");
    errno = 0;
    CHECK(reallocarray(kept, opaque_size(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    kept = reallocarray(kept, 1000, 3);
    CHECK(room(kept) >= 3000 && !strcmp(kept, "kept"));
    give(kept);
    CHECK(room(NULL) == 0);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } part[] = {{"figures", true_figures}, {"trim", trim},       {"pad", pad},
                {"threshold", threshold},  {"parameters", parameters}, {"xml", xml},
                {"statistics", statistics}, {"refused", refused}};
    CHECK(argc == 2);
    for (int i = 0; i < 8; i++)
        if (!strcmp(argv[1], part[i].name)) {
            part[i].run();
            return 0;
        }
    CHECK(!"a part");
}

/* usage: pages CASE - pages of freed large blocks that later ones have: that they come, that nothing of the program comes
 * with them, and that none of a block does that the program did something to. Exits 0. */
#include "../filter.h"
#include "../tools.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { SIZE = 1 << 20, SIZE_PAGES = SIZE / PAGE_BYTES };
enum { GUARD_INSTALL = 102 };

/* Whether pages move: the kernel has guards that leave a mapping as it is (Linux 6.13), and gives no huge pages unasked. */
static bool guards_exist(void) {
    char huge[64] = {0};
    int file = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        CHECK(read(file, huge, sizeof huge - 1) >= 0);
        close(file);
    }
    if (strncmp(huge, "[always]", 8) == 0) return false;
    char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    bool done = madvise(page, PAGE_BYTES, GUARD_INSTALL) == 0;
    munmap(page, PAGE_BYTES);
    return done;
}

static long faults_now(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* Whether a byte can be read: the kernel tries, and tells. */
static bool is_open(const volatile void *byte) {
    static int ends[2];
    if (ends[0] == 0) CHECK(pipe2(ends, O_CLOEXEC) == 0);
    ssize_t written = write(ends[1], (const void *)byte, 1);
    CHECK(written == 1 || errno == EFAULT);
    char read_back;
    if (written == 1) CHECK(read(ends[0], &read_back, 1) == 1);
    return written == 1;
}

/* Whether there are closed pages around blocks: none can be put into mappings that are locked. */
static bool closed = true;
/* A new block of `size` bytes that was found zero and between closed pages, all of it used now. Says how many faults
 * that took. */
static char *use(size_t size, long *faults) {
    char *p = take(size);
    CHECK(p != NULL);
    size_t room = (size + PAGE_BYTES - 1) & -(size_t)PAGE_BYTES;
    CHECK(!closed || (!is_open(p - 1) && is_open(p + room - 1) && !is_open(p + room)));
    long before = faults_now();
    for (size_t i = 0; i < size; i += PAGE_BYTES) {
        CHECK(__atomic_fetch_add(p + i, 1, __ATOMIC_RELAXED) == 0); /* one fault at most */
    }
    if (faults != NULL) *faults = faults_now() - before;
    size_t last = size & -(size_t)PAGE_BYTES;
    for (size_t i = 0; i < last; i += PAGE_BYTES) CHECK(all_are(p + i + 1, 0, PAGE_BYTES - 1));
    CHECK(last == size || all_are(p + last + 1, 0, size - last - 1));
    memset(p, 0xaa, size);
    return p;
}
static void end(char *p) {
    give(p);
    CHECK(!is_open(p) && !is_open(p + SIZE / 2));
}

/* What the kernel says of the mapping that `place` lies in, without what tells nothing here: whether its pages were
 * written to of late, and whether there are guards in it. */
static void flags_of(const void *place, char *flags, size_t bytes) {
    static char text[4 << 20];
    size_t length = 0;
    int file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    for (ssize_t n; (n = read(file, text + length, sizeof text - 1 - length)) > 0;) length += (size_t)n;
    close(file);
    text[length] = 0;
    bool here = false;
    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *behind;
        uintptr_t start = strtoul(line, &behind, 16);
        if (*behind == '-') here = start <= (uintptr_t)place && (uintptr_t)place < strtoul(behind + 1, NULL, 16);
        if (!here || strncmp(line, "VmFlags:", 8) != 0) continue;
        size_t used = 0;
        for (char *flag = line + 9; *flag != '\n'; flag += 3) {
            if (strncmp(flag, "sd", 2) == 0 || strncmp(flag, "gu", 2) == 0) continue;
            CHECK(used + 4 < bytes);
            memcpy(flags + used, flag, 3);
            used += 3;
        }
        flags[used] = 0;
        return;
    }
    CHECK(!"a mapping");
}

static size_t locked_bytes(void) { return proc_figure("/proc/self/status", "VmLck:") * KIB; }

/* The pages come, and are clear: to a block of the same size, a shorter one and a longer one. */
static void they_serve_later_blocks(void) {
    bool guards = guards_exist();
    end(use(SIZE, NULL));
    long faults;
    for (int round = 0; round < 20; round++) {
        char *p = use(SIZE, &faults);
        CHECK(!guards || faults < SIZE_PAGES / 8);
        end(p);
    }
    for (int round = 0; round < 20; round++) {
        end(use(SIZE, NULL));
        char *p = use(SIZE / 2, &faults), *other = use(SIZE / 2, NULL);
        CHECK(!guards || faults < SIZE_PAGES / 16);
        give(other);
        give(p);
        p = use(2 * SIZE, &faults);
        CHECK(!guards || faults < SIZE_PAGES * 7 / 4);
        end(p);
        char *zeroed = calloc(1, opaque_size(3 * SIZE / 2));
        CHECK(zeroed != NULL && all_are(zeroed, 0, 3 * SIZE / 2));
        memset(zeroed, 0xbb, 3 * SIZE / 2);
        give(zeroed);
    }
    sound();
}

/* Of a block of which little was used little comes, and none of its other pages is made. */
static void what_was_not_used_stays_so(void) {
    small_pages_only();
    end(use(SIZE, NULL));
    size_t before = resident_bytes();
    for (int round = 0; round < 20; round++) {
        char *p = take(32 * SIZE);
        p[0] = 1;
        p[16 * SIZE] = 1;
        long faults = faults_now();
        give(p);
        CHECK(faults_now() - faults < 20);
    }
    CHECK(resident_bytes() < before + 2 * SIZE);
    sound();
}

static bool some_are_kept(void) { return figures().idle_large > 0; }

/* Nor is anything kept of blocks of which hardly anything was used. */
static void little_is_not_kept(void) {
    for (int round = 0; round < 20; round++) {
        char *p = take(SIZE);
        memset(p, 1, 3 * PAGE_BYTES);
        end(p);
        CHECK(!some_are_kept());
    }
    sound();
}

/* Huge pages stay whole: with the option huge-pages. */
static void huge_pages_stay(void) {
    for (int round = 0; round < 5; round++) {
        end(use(4 * SIZE, NULL));
        CHECK(!some_are_kept());
    }
    sound();
}

/* Of what a thread has freed no more than a little stays when it has ended. */
static void *replace_many(void *unused) {
    (void)unused;
    char *window[32];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 32; i++) window[i] = use(SIZE, NULL);
        for (int i = 0; i < 32; i++) end(window[i]);
    }
    CHECK(!guards_exist() || figures().slabs == 0 || figures().idle_large > 8 * MIB);
    return NULL;
}
static void what_a_thread_freed_goes_when_it_ends(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, replace_many, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(figures().idle_large <= 2 * MIB);
    sound();
}

/* With a thread in the background: nothing is called meanwhile. */
static void an_idle_process_gives_them_back(void) {
    replace_many(NULL);
    while (some_are_kept()) usleep(10000);
    sound();
}

/* Of several threads at a limit of 40 MiB: what is kept counts, and goes back for what is wanted. */
static int how_many(void) {
    static char *blocks[100];
    int count = 0;
    while (count < 100 && (blocks[count] = malloc(opaque_size(SIZE))) != NULL) count++;
    for (int i = 0; i < count; i++) give(blocks[i]);
    malloc_trim(0);
    return count;
}
static void *replace_as_it_goes(void *seed) {
    uint64_t next = (uintptr_t)seed;
    char *window[4] = {0};
    for (int i = 0; i < 300; i++) {
        size_t at = random_next(&next) % 4, size = 140000 + random_next(&next) % (8 * SIZE);
        free(window[at]);
        window[at] = malloc(size);
        if (window[at] != NULL) memset(window[at], 1, size);
    }
    for (int at = 0; at < 4; at++) free(window[at]);
    return NULL;
}
static void they_count_for_a_limit(void) {
    void *small = take(1); /* The pages of small blocks count too: they are there before and after. */
    int before = how_many();
    pthread_t threads[6];
    for (uintptr_t i = 0; i < 6; i++) CHECK(pthread_create(&threads[i], NULL, replace_as_it_goes, (void *)(i + 1)) == 0);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    malloc_trim(0);
    CHECK(how_many() == before);
    give(small);
    sound();
}

/* What a program can do to a block of its own. False where this system cannot. */
static bool lock_all(char *p) { return mlock(p, SIZE) == 0; }
static bool lock_half(char *p) { return mlock(p + SIZE / 2, SIZE / 2) == 0; }
static bool lock_on_fault(char *p) { return syscall(SYS_mlock2, p, SIZE, 1) == 0; }
static bool close_all(char *p) { return mprotect(p, SIZE, PROT_NONE) == 0; }
static bool only_read(char *p) { return mprotect(p, SIZE, PROT_READ) == 0; }
static bool only_read_a_page(char *p) { return mprotect(p + SIZE / 2, PAGE_BYTES, PROT_READ) == 0; }
static bool execute(char *p) { return mprotect(p, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0; }
static bool set_a_key(char *p) {
    long key = syscall(SYS_pkey_alloc, 0, 1 /* no access */);
    return key >= 0 && syscall(SYS_pkey_mprotect, p, SIZE, PROT_READ | PROT_WRITE, key) == 0;
}
static bool advise(char *p, int advice) { return madvise(p, SIZE, advice) == 0; }
static bool keep_from_children(char *p) { return advise(p, MADV_DONTFORK); }
static bool wipe_in_children(char *p) { return advise(p, MADV_WIPEONFORK); }
static bool keep_from_dumps(char *p) { return advise(p, MADV_DONTDUMP); }
static bool want_no_huge_pages(char *p) { return advise(p, MADV_NOHUGEPAGE); }
static bool want_huge_pages(char *p) { return advise(p, MADV_HUGEPAGE); }
static bool read_at_random(char *p) { return advise(p, MADV_RANDOM); }
static bool merge(char *p) { return advise(p, MADV_MERGEABLE); }
static bool bind_to_a_node(char *p) {
    unsigned long nodes = 1;
    return syscall(SYS_mbind, p, SIZE, 2 /* MPOL_BIND */, &nodes, 8 * sizeof nodes, 0) == 0;
}
static int file = -1;
static bool map_a_file(char *p) {
    file = memfd_create("pages", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, SIZE) == 0);
    CHECK(mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == p);
    memset(p, 'm', SIZE);
    return true;
}
static bool map_memory_to_share(char *p) {
    return mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p;
}

static const struct {
    const char *name;
    bool (*act)(char *p);
} acts[] = {
    {"mlock", lock_all}, {"mlock of a half", lock_half}, {"mlock2", lock_on_fault}, {"PROT_NONE", close_all},
    {"PROT_READ", only_read}, {"PROT_READ of a page", only_read_a_page}, {"PROT_EXEC", execute}, {"a key", set_a_key},
    {"MADV_DONTFORK", keep_from_children}, {"MADV_WIPEONFORK", wipe_in_children}, {"MADV_DONTDUMP", keep_from_dumps},
    {"MADV_NOHUGEPAGE", want_no_huge_pages}, {"MADV_HUGEPAGE", want_huge_pages}, {"MADV_RANDOM", read_at_random},
    {"MADV_MERGEABLE", merge}, {"mbind", bind_to_a_node}, {"a file", map_a_file}, {"memory to share", map_memory_to_share},
};

/* A block that something was set for is no different to free, and its pages serve none. So nothing that was set comes along. */
static void none_come_of_a_block_that_something_was_set_for(void) {
    char fresh[256], flags[256];
    char *first = take(SIZE);
    flags_of(first, fresh, sizeof fresh);
    give(first);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        long faults;
        /* In a block all of whose pages are new, and in one that has pages from another. */
        for (int moved = 0; moved < 2; moved++) {
            malloc_trim(0);
            if (moved) end(use(SIZE, NULL));
            char *p = use(SIZE, NULL);
            if (!acts[i].act(p)) {
                give(p);
                continue;
            }
            end(p);
            p = use(SIZE, &faults);
            flags_of(p, flags, sizeof flags);
            if (faults < SIZE_PAGES / 2 || strcmp(fresh, flags) != 0 || locked_bytes() != 0) {
                fprintf(stderr, "%s: %ld faults, %s for %s\n", acts[i].name, faults, flags, fresh);
                CHECK(!"nothing of it");
            }
            end(p);
            sound();
        }
    }
    static char bytes[SIZE];
    CHECK(pread(file, bytes, SIZE, 0) == SIZE && all_are(bytes, 'm', SIZE));
}

/* What the program has guarded or dropped within a block is no page of its own. */
static void guards_of_the_programs_own_do_not_come(void) {
    if (!guards_exist()) return;
    for (int page = 0; page < SIZE_PAGES - 3; page += 50) {
        char *p = use(SIZE, NULL);
        CHECK(madvise(p + page * PAGE_BYTES, PAGE_BYTES, GUARD_INSTALL) == 0);
        end(p);
        end(use(SIZE, NULL));
        p = use(SIZE, NULL);
        CHECK(madvise(p + page * PAGE_BYTES, 3 * PAGE_BYTES, MADV_DONTNEED) == 0);
        end(p);
        end(use(SIZE, NULL));
    }
    sound();
}

/* A process that locks all of its memory, before, while pages are kept, or later: what is to be locked is, what is not to be is
 * not, and the kernel's count comes back to where it was. */
static void locked_memory_stays_and_counts(void) {
    char flags[256];
    char *live = use(SIZE, NULL);
    end(use(SIZE, NULL));
    if (mlockall(MCL_CURRENT) != 0) return;
    char *p = use(SIZE, NULL);
    flags_of(p, flags, sizeof flags);
    CHECK(strstr(flags, "lo") == NULL);
    end(p);
    end(live);
    live = use(SIZE, NULL);
    CHECK(munlockall() == 0 && locked_bytes() == 0);
    end(live);
    end(use(SIZE, NULL));
    CHECK(mlockall(MCL_FUTURE) == 0);
    closed = false;
    for (int round = 0; round < 3; round++) {
        size_t before = locked_bytes();
        p = use(SIZE, NULL);
        flags_of(p, flags, sizeof flags);
        CHECK(strstr(flags, "lo") != NULL && locked_bytes() >= before + SIZE);
        end(p);
    }
    CHECK(munlockall() == 0 && locked_bytes() == 0);
    closed = true;
    for (int round = 0; round < 3; round++) end(use(SIZE, NULL));
    CHECK(locked_bytes() == 0);
    sound();
}

/* Blocks of many sizes, of which a part is used, replaced at random. */
enum { WINDOW = 12 };
static void replace(int operations, uint64_t seed) {
    char *window[WINDOW] = {0};
    size_t used[WINDOW];
    for (int i = 0; i < operations; i++) {
        size_t at = random_next(&seed) % WINDOW, size = 140000 + random_next(&seed) % (SIZE * 3 / 2);
        if (window[at] != NULL) {
            CHECK(all_are(window[at], (unsigned char)(0x80 + at), used[at]));
            give(window[at]);
        }
        bool zeroed = random_next(&seed) % 2 == 0;
        char *p = window[at] = zeroed ? calloc(1, size) : take(size);
        CHECK(p != NULL && room(p) == size);
        used[at] = random_next(&seed) % (size + 1);
        if (used[at] % 3 == 0) CHECK(all_are(p, 0, size));
        else CHECK(all_are(p, 0, used[at]));
        memset(p, (int)(0x80 + at), used[at]);
    }
    for (int at = 0; at < WINDOW; at++) give(window[at]);
}
static void *replace_in_a_thread(void *seed) {
    replace(200, (uintptr_t)seed);
    return NULL;
}
static void no_byte_comes_along(void) {
    replace(600, 7);
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, replace_in_a_thread, (void *)(i + 1)) == 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    sound();
}

/* They are in the figures, are no more than what lived of late, go back when asked, and keep no block from being had. */
static void they_count(void) {
    small_pages_only();
    end(use(SIZE, NULL));
    malloc_trim(0);
    size_t before = resident_bytes();
    struct slabside_stats start = figures();
    CHECK(start.idle_large == 0);
    char *window[8];
    for (int i = 0; i < 8; i++) window[i] = use(SIZE, NULL);
    size_t full = figures().mapped;
    for (int i = 0; i < 8; i++) {
        end(window[i]);
        CHECK(figures().mapped <= full);
        CHECK(!guards_exist() || figures().slabs == 0 || figures().idle_large > 0);
    }
    CHECK(resident_bytes() < before + 9 * SIZE);
    malloc_trim(0);
    struct slabside_stats now = figures();
    CHECK(now.idle_large == 0 && now.mapped == start.mapped);
    CHECK(resident_bytes() < before + SIZE / 4);
    sound();
}

/* With a limit that what lives fits into, in memory or in address space. */
static void a_limit_suffices(void) {
    end(use(SIZE, NULL));
    rlim_t room = mapped_bytes() + 80 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    for (int round = 0; round < 10; round++) {
        char *window[20];
        for (int i = 0; i < 20; i++) window[i] = use(SIZE, NULL);
        for (int i = 0; i < 20; i++) end(window[i]);
        end(use(22 * SIZE, NULL));
    }
    sound();
}

/* With limits of the system's that refuse moves: what is refused is not lost. */
static void nothing_is_lost_at_a_limit(void) {
    end(use(SIZE, NULL));
    size_t start = mapped_bytes();
    for (int kind = 0; kind < 2; kind++) {
        int limit = kind == 0 ? RLIMIT_AS : RLIMIT_DATA;
        struct rlimit old;
        CHECK(getrlimit(limit, &old) == 0);
        rlim_t used = kind == 0 ? start : proc_figure("/proc/self/status", "VmData:") * KIB;
        for (rlim_t room = MIB; room < 10 * MIB; room += MIB + 80 * KIB) {
            CHECK(setrlimit(limit, &(struct rlimit){used + room, old.rlim_max}) == 0);
            char *window[6] = {0};
            uint64_t seed = room;
            for (int i = 0; i < 120; i++) {
                size_t at = random_next(&seed) % 6, size = 200 * KIB + random_next(&seed) % (2 * SIZE);
                free(window[at]);
                window[at] = malloc(size);
                if (window[at] != NULL) memset(window[at], 1, size);
            }
            for (int at = 0; at < 6; at++) free(window[at]);
            malloc_trim(0);
            CHECK(mapped_bytes() <= start + 256 * KIB);
        }
        CHECK(setrlimit(limit, &old) == 0);
    }
    sound();
}

/* Parent and child have what they had, and go on by themselves. */
static void passed(pid_t child) {
    int status;
    CHECK(child >= 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
static void forks_are_survived(void) {
    char *live = use(SIZE, NULL);
    for (int round = 0; round < 20; round++) {
        end(use(SIZE, NULL));
        pid_t child = fork();
        if (child == 0) {
            sound();
            CHECK(all_are(live, 0xaa, SIZE));
            char *p = use(SIZE, NULL), *q = use(2 * SIZE, NULL);
            end(live);
            end(p);
            end(use(SIZE, NULL));
            end(q);
            sound();
            _exit(0);
        }
        if (round % 2 == 0) passed(child);
        char *p = use(SIZE, NULL);
        CHECK(all_are(live, 0xaa, SIZE));
        end(live);
        live = p;
        if (round % 2 != 0) passed(child);
    }
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, replace_in_a_thread, (void *)5) == 0);
    for (int round = 0; round < 40; round++) {
        pid_t child = round % 2 == 0 ? fork() : _Fork();
        if (child == 0) {
            CHECK(all_are(live, 0xaa, SIZE));
            for (int i = 0; i < 3; i++) end(use(SIZE, NULL));
            sound();
            _exit(0);
        }
        passed(child);
    }
    pthread_join(thread, NULL);
    sound();
}

/* To clear pages that a child has as well would copy them. */
static void what_a_child_has_too_stays(void) {
    for (int round = 0; round < 3; round++) {
        char *old = use(SIZE, NULL);
        malloc_trim(0);
        int ends[2];
        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        pid_t child = fork();
        if (child == 0) {
            char byte;
            close(ends[1]);
            CHECK(read(ends[0], &byte, 1) == 0);
            CHECK(all_are(old, 0xaa, SIZE));
            end(old);
            CHECK(!some_are_kept());
            end(use(SIZE, NULL));
            CHECK(!guards_exist() || figures().slabs == 0 || some_are_kept());
            sound();
            _exit(0);
        }
        end(old);
        CHECK(!some_are_kept());
        end(use(SIZE, NULL));
        CHECK(!guards_exist() || figures().slabs == 0 || some_are_kept());
        close(ends[0]);
        close(ends[1]);
        passed(child);
    }
    sound();
}

/* A filter kills whoever opens a file from now on. */
static void no_file_is_read_for_them(void) {
    free(malloc(100));
    kill_on(SYS_openat);
    for (int round = 0; round < 8; round++) {
        char *block = take(SIZE);
        CHECK(block != NULL);
        memset(block, 1, SIZE);
        give(block);
    }
}

/* A large block that cannot move shrinks where it is: its end is found, however far from that of its pages. */
static void an_end_far_away_is_found(void) {
    const size_t much = (size_t)3 << 30, half = much / 2 + 3;
    char *block = take(much);
    CHECK(block != NULL);
    rlim_t room = mapped_bytes() + much / 6;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    block[0] = 1;
    block = resize(block, half);
    CHECK(block != NULL);
    block[half - 1] = 1;
    give(block);
    sound();
}

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(they_serve_later_blocks), CASE(what_was_not_used_stays_so), CASE(none_come_of_a_block_that_something_was_set_for),
    CASE(guards_of_the_programs_own_do_not_come), CASE(locked_memory_stays_and_counts), CASE(no_byte_comes_along),
    CASE(they_count), CASE(a_limit_suffices), CASE(forks_are_survived),
    CASE(little_is_not_kept), CASE(huge_pages_stay), CASE(what_a_thread_freed_goes_when_it_ends),
    CASE(an_idle_process_gives_them_back), CASE(they_count_for_a_limit), CASE(nothing_is_lost_at_a_limit),
    CASE(what_a_child_has_too_stays), CASE(no_file_is_read_for_them), CASE(an_end_far_away_is_found),
};

int main(int argc, char **argv) {
    CHECK(argc == 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, argv[1]) != 0) continue;
        cases[i].run();
        return 0;
    }
    CHECK(!"a case");
}

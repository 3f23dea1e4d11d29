/* usage: cases CASE [old-kernel] - does what hardened mode is to catch, or checks what it promises. Whoever survives a
 * misuse says so and exits 3; a check that holds exits 0. */
#include "../filter.h"
#include "../tools.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MANY = 4000 };
static void *block[MANY];

/* Allocates and frees blocks of one size until the slot that was written to has had its turn. */
static void use_again(size_t size) {
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 1000; k++) block[k] = take(size);
        for (int k = 0; k < 1000; k++) give(block[k]);
    }
}

static char *freed(size_t size) {
    char *dead = take(size);
    give(dead);
    return dead;
}

/* Misuse. */

static void overflow(size_t size, size_t past, char byte) {
    char *p = take(size);
    if (byte) { /* any other byte than the one that is there, which is the canary's */
        p[size + past] ^= byte;
    } else {
        p[size + past] = 0;
    }
    give(p);
}
static void overflow_by_1(void) { overflow(40, 0, 1); }
static void overflow_by_a_zero(void) { overflow(40, 0, 0); }
static void overflow_by_8(void) { overflow(100, 7, 1); }
static void overflow_into_the_slots_tail(void) { overflow(33, 0, 1); }
static void overflow_of_a_span(void) { overflow(20000, 3, 1); }
static void overflow_of_a_large_block(void) { overflow(300001, 0, 1); }
static void overflow_of_an_aligned_block(void) {
    char *p = aligned_alloc(64, opaque_size(65));
    p[65] ^= 1;
    give(p);
}
static void overflow_found_by_realloc(void) {
    char *p = take(40);
    p[40] ^= 1;
    resize(p, 41);
}
/* Neither the canary nor the slot's last bytes are hit, and the block grows over it. */
static void overflow_that_growth_takes_in(void) {
    char *p = take(1000);
    p[1010] = 1;
    resize(p, 1004);
}
/* The room is a number of whole pages, at whose end there would be a guard page. */
static void overflow_of_a_block_with_room(void) {
    char *p = resize(take(60000), 65530);
    p[65530] ^= 1;
    give(p);
}
static void overflow_up_to_a_fault(void) { memset(take(40), 1, opaque_size(1 << 20)); }
static void overflow_of_a_span_up_to_a_fault(void) { memset(take(20000), 1, opaque_size(40000)); }
static void overflow_of_a_large_block_up_to_a_fault(void) { memset(take(300000), 1, opaque_size(310000)); }
static void underflow_of_a_large_block(void) {
    volatile char *p = take(300000);
    p[-1] = 1;
}
/* Blocks of whole pages end at their guard pages, and begin after one. */
static void overflow_of_whole_pages(void) { ((volatile char *)take(17 * PAGE_BYTES))[17 * PAGE_BYTES] = 1; }
static void underflow_of_whole_pages(void) { ((volatile char *)take(17 * PAGE_BYTES))[-1] = 1; }
static void overflow_of_large_whole_pages(void) { ((volatile char *)take(MIB))[MIB] = 1; }
static void overflow_of_aligned_whole_pages(void) {
    volatile char *p = aligned_alloc(65536, opaque_size(65536));
    p[65536 + 100] = 1;
}
static void overflow_of_large_aligned_pages(void) {
    volatile char *p = aligned_alloc(2 * MIB, opaque_size(MIB));
    p[MIB + 100] = 1;
}
static void overflow_past_the_canary_of_a_span(void) { overflow(20000, 300, 1); }
static void overflow_past_the_canary_of_a_large_block(void) { overflow(300001, 3000, 1); }
static void write_after_free(void) {
    freed(40)[13] = 1;
    use_again(40);
}
static void write_after_free_of_8_bytes(void) {
    freed(8)[0] = 1;
    use_again(8);
}
static void write_after_free_of_8000_bytes(void) {
    freed(8000)[7999] = 1;
    use_again(8000);
}
static void write_after_free_of_a_span(void) {
    freed(20000)[10000] = 1;
    use_again(20000);
}
/* Whether no part of a live block, every twentieth, lies on the page of `at`. */
static bool is_idle_page(const char *at) {
    uintptr_t page = (uintptr_t)at / PAGE_BYTES;
    for (int i = 0; i < MANY; i += 20) {
        uintptr_t start = (uintptr_t)block[i];
        if (start / PAGE_BYTES <= page && (start + 1000) / PAGE_BYTES >= page) return false;
    }
    return true;
}
/* Pages of slabs in use on which no block is live may be discarded, but for what somebody wrote there. */
static void write_after_free_on_an_idle_page(void) {
    for (int i = 0; i < MANY; i++) block[i] = take(1000);
    for (int i = 0; i < MANY; i++)
        if (i % 20) give(block[i]);
    int dead = MANY / 2 + 1;
    while (dead % 20 == 0 || !is_idle_page((char *)block[dead] + 500)) dead++;
    CHECK(dead < MANY);
    ((char *)block[dead])[500] = 1;
    malloc_trim(0);
    for (int i = 0; i < MANY; i++) take(1000);
}
static void write_after_free_of_a_large_block(void) { freed(300000)[5] = 1; }
static void read_after_free_of_a_large_block(void) { *(volatile char *)freed(300000); }
static void double_free(void) { give(freed(40)); }
#if defined __x86_64__
/* Calls `run` on a stack that lies above the present one, by rules that lead back to it. */
void on_a_stack_above(void (*run)(void), char *top);
__asm__(".text\n"
        ".type on_a_stack_above, @function\n"
        "on_a_stack_above:\n"
        ".cfi_startproc\n"
        "push %rbp\n"
        ".cfi_def_cfa_offset 16\n"
        ".cfi_offset %rbp, -16\n"
        "mov %rsp, %rbp\n"
        ".cfi_def_cfa_register %rbp\n"
        "mov %rsi, %rsp\n"
        "call *%rdi\n"
        "mov %rbp, %rsp\n"
        "pop %rbp\n"
        ".cfi_def_cfa %rsp, 8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size on_a_stack_above, .-on_a_stack_above\n");
static void *change_stacks_and_free_twice(void *above) {
    on_a_stack_above(double_free, (char *)above);
    return NULL;
}
static void double_free_on_a_stack_above(void) {
    enum { SIZE = 256 << 10 };
    char *both = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(both != MAP_FAILED);
    pthread_attr_t below;
    pthread_t thread;
    CHECK(pthread_attr_init(&below) == 0 && pthread_attr_setstack(&below, both, SIZE) == 0);
    CHECK(pthread_create(&thread, &below, change_stacks_and_free_twice, both + 2 * SIZE) == 0);
    pthread_join(thread, NULL);
}
#else
static void double_free_on_a_stack_above(void) { double_free(); }
#endif
static void double_free_in_quarantine(void) {
    char *dead = freed(40);
    for (int i = 0; i < 100; i++) give(take(40));
    give(dead);
}
static void double_free_after_a_while(void) {
    char *dead = freed(40);
    wait_ms(1200);
    for (int i = 0; i < 1000; i++) give(take(40));
    give(dead);
}
static void double_free_of_a_span(void) { give(freed(20000)); }
static void double_free_of_a_large_block(void) { give(freed(300000)); }
static void double_free_of_nothing(void) { give(freed(0)); }
static void invalid_free(void) { give((char *)take(40) + 16); }
static void realloc_after_free(void) { resize(freed(40), 60); }
static void size_after_free(void) { room(freed(40)); }
static void write_to_nothing(void) { *(volatile char *)take(0) = 1; }
static void read_of_nothing(void) { *(volatile char *)take(0); }

static pthread_barrier_t both;
static void *free_when_both_are_there(void *p) {
    pthread_barrier_wait(&both);
    give(p);
    return NULL;
}
/* One of many rounds: each must end the program at once, whoever is first. */
static void racing_double_free(void) {
    pthread_t one, other;
    pthread_barrier_init(&both, NULL, 2);
    void *p = take(40);
    pthread_create(&one, NULL, free_when_both_are_there, p);
    pthread_create(&other, NULL, free_when_both_are_there, p);
    pthread_join(one, NULL);
    pthread_join(other, NULL);
}

/* Promises. */

static void sizes_are_exact(void) {
    for (size_t size = 0; size < 3 * PAGE_BYTES; size += 7) {
        void *p = take(size);
        CHECK(room(p) == size);
        p = resize(p, size + 5);
        CHECK(room(p) == size + 5);
        give(p);
    }
    for (size_t size = 100000; size < 3000000; size += 99991) {
        void *p = take(size);
        CHECK(room(p) == size);
        p = resize(p, size - 3);
        CHECK(room(p) == size - 3);
        p = resize(p, 2 * size);
        CHECK(room(p) == 2 * size);
        give(p);
    }
}

/* A freed block holds nothing of what it held. */
static void freed_blocks_are_cleared(void) {
    static const size_t sizes[] = {1, 8, 40, 200, 1000, 8000, 20000, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = take(sizes[i]);
        memset(p, 0x5a, sizes[i]);
        give(p);
        CHECK(all_are(p, 0, sizes[i]));
        block[i] = take(sizes[i]);
        CHECK(all_are(block[i], 0, sizes[i]));
    }
}

/* With `quarantine:64k` no block comes back before so many bytes of others were freed: all of them, and three
 * quarters where lots are drawn. */
static void reuse_waits(size_t least) {
    for (int round = 0; round < 200; round++) {
        char *dead = freed(48);
        for (size_t bytes = 0; bytes + 2 * 64 < least; bytes += 64) {
            void *p = take(48);
            CHECK(p != dead);
            give(p);
        }
    }
}

static void reuse_waits_for_the_quarantine(void) { reuse_waits(48 * KIB); }
static void reuse_waits_for_the_ring(void) { reuse_waits(48 * KIB * 3 / 4); }

/* Nor when blocks are freed meanwhile that are larger than the whole quarantine: they do not go through it. */
static void large_blocks_leave_the_quarantine_alone(void) {
    for (int round = 0; round < 50; round++) {
        char *dead = freed(48);
        give(take(100000));
        for (int i = 0; i < 200; i++) {
            void *p = take(48);
            CHECK(p != dead);
            give(p);
        }
    }
}

/* With `random` addresses do not simply rise. */
static void some_order(void) {
    for (int i = 0; i < 64; i++) block[i] = take(48);
    int up = 0;
    for (int i = 1; i < 64; i++) up += block[i] > block[i - 1];
    CHECK(up < 55);
}

/* Pages of one size are never of another, however much is freed in between. */
static void pages_keep_their_class(void) {
    static unsigned char size_at[1 << 16];
    char *low = break_now();
    static const size_t sizes[] = {40, 100, 500, 3000};
    for (int round = 0; round < 40; round++) {
        size_t pick = (size_t)(round * 7 + round / 3) % 4;
        for (int i = 0; i < MANY; i++) {
            block[i] = take(sizes[pick]);
            size_t page = (size_t)((char *)block[i] - low) / PAGE_BYTES;
            if ((char *)block[i] < low || page >= sizeof size_at) continue;
            CHECK(size_at[page] == 0 || size_at[page] == pick + 1);
            size_at[page] = (unsigned char)(pick + 1);
        }
        for (int i = 0; i < MANY; i++) give(block[i]);
    }
}

static void *churn(void *seed) {
    uint64_t state = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
    static _Atomic(void *) shared[512];
    for (int i = 0; i < 60000; i++) {
        size_t size = random_next(&state) % (i % 50 ? 600 : 40000);
        unsigned char *p = take(size);
        CHECK(p != NULL && (size == 0 || all_are(p, 0, size)));
        if (size) memset(p, 1, size);
        void *old = __atomic_exchange_n((void **)&shared[random_next(&state) % 512], p, __ATOMIC_ACQ_REL);
        if (old && i % 3 == 0) old = resize(old, random_next(&state) % 700 + 1);
        give(old);
    }
    return NULL;
}
/* Threads free each other's blocks, exit, and fork; all is zero when it is handed out. */
static void threads_and_forks(void) {
    /* Of the static library: not while another thread's first allocation of the process is under way (see
     * docs/compatibility.md). */
    give(take(1));
    for (int round = 0; round < 3; round++) {
        pthread_t threads[4];
        for (uintptr_t i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, churn, (void *)(i + 10 * round)) == 0);
        for (int k = 0; k < 5; k++) {
            pid_t child = fork();
            if (child == 0) {
                churn((void *)99);
                sound();
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    sound();
}

static void many_live(size_t count, size_t size) {
    void **all = take(count * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        all[i] = take(size);
        CHECK(all[i] != NULL);
        *(size_t *)all[i] = i;
    }
    for (size_t i = 0; i < count; i++) CHECK(*(size_t *)all[i] == i);
    for (size_t i = 0; i < count; i++) give(all[i]);
    give(all);
}
static void a_million_blocks_live(void) { many_live(1000000, 24); }
static void ten_million_blocks_live(void) { many_live(10000000, 24); }

/* Spans, which have a guard each: more than can be had where each guard is a mapping. Some mappings are left to the
 * program. */
static void more_spans_live_than_mappings_may(void) {
    enum { COUNT = 70000 };
    char **all = take(COUNT * sizeof *all);
    for (size_t i = 0; i < COUNT; i++) {
        all[i] = take(9000);
        CHECK(all[i] != NULL);
        memset(all[i] + 8000, (int)i, 1000);
    }
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    int lines = 0;
    for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    CHECK(lines < 40000);
    for (int i = 0; i < 10000; i++) {
        void *own = mmap(NULL, PAGE_BYTES, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(own != MAP_FAILED);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(all_are(all[i] + 8000, (unsigned char)i, 1000));
        give(all[i]);
    }
    for (int i = 0; i < 1000; i++) give(take(100000));
}

/* An older kernel: it knows no guards in its page tables. */
static void forbid_guards(void) {
    struct sock_filter code[] = {
        LOAD_NUMBER,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    install_filter(code, sizeof code / sizeof *code, 0);
}

/* Sampled blocks lie far from the break, on either side; one of 64 bytes ends where its page does. */
static bool is_far(const char *p) {
    size_t below = (uintptr_t)break_now() - (uintptr_t)p;
    return below > 1024 * MIB && -below > 1024 * MIB;
}
static char *sampled(void) {
    char *p = take(64);
    while ((uintptr_t)(p + 64) % PAGE_BYTES != 0 || !is_far(p)) {
        give(p);
        p = take(64);
    }
    return p;
}
static void sampled_overflow(void) { ((volatile char *)sampled())[64] = 1; }
static void sampled_use_after_free(void) {
    volatile char *p = sampled();
    give((void *)p);
    p[10] = 1;
}
/* A program that may not call sigaltstack(2) any more is no worse off for samples. */
static void samples_ask_nothing_about_the_stack(void) {
    kill_on(SYS_sigaltstack);
    for (int i = 0; i < 10000; i++) give(take(100));
}

/* A Rust program's threads have such a stack for faults: 8 KiB, of which the kernel's frame takes up to 3.4. */
static void sampled_use_after_free_on_a_small_stack(void) {
    static char stack[64 << 10];
    stack_t other = {.ss_sp = stack, .ss_size = getauxval(AT_MINSIGSTKSZ) + 4800};
    CHECK(sigaltstack(&other, NULL) == 0);
    sampled_use_after_free();
}
static void sampled_double_free(void) {
    char *p = sampled();
    give(p);
    give(p);
}
/* One in 100, of a million. */
static void samples_are_as_many_as_asked_for(void) {
    size_t count = 0;
    for (int i = 0; i < 1000000; i++) {
        char *p = take(64);
        count += (uintptr_t)(p + 64) % PAGE_BYTES == 0 && is_far(p);
        if (count == 1) CHECK(room(p) >= 64);
        give(p);
    }
    CHECK(count > 9000 && count < 11000);
}

/* The same for each size that fits on a page, all mixed: each has its share, as far as 200 samples can tell. */
static void samples_are_as_many_of_each_size(void) {
    static const size_t sizes[] = {8, 40, 500, 1040, 1500, 3000, 4000};
    enum { SIZES = sizeof sizes / sizeof *sizes, WINDOW = 64 };
    static char *live[SIZES][WINDOW];
    int count[SIZES] = {0};
    for (int i = 0; i < 200000; i++)
        for (int k = 0; k < SIZES; k++) {
            char **place = &live[k][i % WINDOW];
            if (*place) give(*place);
            *place = take(sizes[k]);
            count[k] += is_far(*place);
        }
    for (int k = 0; k < SIZES; k++) CHECK(count[k] > 100 && count[k] < 400);
}

/* Whether nobody can read the byte at `at`. */
static bool is_closed(const char *at) {
    static int ends[2];
    if (ends[0] == 0) CHECK(pipe(ends) == 0);
    char byte;
    if (write(ends[1], at, 1) == -1) return errno == EFAULT;
    CHECK(read(ends[0], &byte, 1) == 1);
    return false;
}

/* The first span of the heap, one at a chosen address, the first after what somebody else's sbrk took, and the first
 * where the break cannot move: each begins after a closed page. */
static void spans_begin_after_guards(void) {
    enum { SPANS = 60, PAGES = 17 };
    for (int round = 0; round < 4; round++) {
        if (round == 2) CHECK(sbrk(5000) != (void *)-1);
        if (round == 3) {
            char *end = (char *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
            CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
        }
        for (int i = 0; i < SPANS; i++) {
            size_t bytes = PAGES * PAGE_BYTES;
            char *p = round == 1 ? aligned_alloc(65536, opaque_size(65536)) : take(bytes);
            CHECK(p != NULL && is_closed(p - 1));
            block[round * SPANS + i] = p;
        }
    }
    for (int i = 0; i < 4 * SPANS; i++) give(block[i]);
    sound();
}

/* Also when a slot of the smallest class is cached, which a size that wraps round would be taken for. */
static void sizes_that_wrap_are_refused(void) {
    void *nothing = take(0), *live = take(1000);
    for (int i = 0; i < 20; i++) {
        size_t size = opaque_size(SIZE_MAX - (size_t)i);
        CHECK(take(size) == NULL);
        CHECK(resize(live, size) == NULL);
        CHECK(resize(nothing, size) == NULL);
    }
    give(live);
    give(nothing);
    sound();
}

/* Frees blocks each of which begins with the address of the next one. */
static void give_list(void **first) {
    while (first != NULL) {
        void **next = *first;
        give(first);
        first = next;
    }
}

/* Under a limit pages give up their class before a program runs out of memory that lies there for another one. */
static void pages_serve_another_class_under_a_limit(void) {
    static const size_t sizes[] = {3000, 100, 20000, 500, 9000, 8, 300000, 60000, 1500};
    rlim_t room = mapped_bytes() + 48 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    for (int round = 0; round < 18; round++) {
        size_t size = sizes[round % 9], bytes = 0;
        void **last = NULL;
        while (bytes < (size == 8 ? 2 : 16) * MIB) { /* a word of the list has 8 bytes */
            void **p = take(size);
            CHECK(p != NULL && all_are(p, 0, size));
            memset(p, 1, size);
            *p = last;
            last = p;
            bytes += size;
        }
        give_list(last);
    }
    sound();
}

/* The same where the system discards nothing. */
static void locked_pages_serve_another_class_under_a_limit(void) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        puts("skipped");
        return;
    }
    pages_serve_another_class_under_a_limit();
}

/* Blocks of `size` bytes at multiples of `align`, until no more are to be had; then all are freed. How many there were. */
static size_t fill_and_empty(size_t size, size_t align) {
    void **last = NULL;
    size_t count = 0;
    for (void **p; (p = align ? aligned_alloc(align, opaque_size(size)) : take(size)) != NULL; count++) {
        *p = last;
        last = p;
    }
    give_list(last);
    return count;
}

/* The guard page before a block at a chosen address serves others as well, once its slab has given up its class. It would
 * lie in the midst of all larger runs. */
static void guards_before_aligned_blocks_serve_others_under_a_limit(void) {
    rlim_t room = mapped_bytes() + 48 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    size_t first = fill_and_empty(40000, 0);
    CHECK(first > 500);
    for (int round = 0; round < 4; round++) {
        CHECK(fill_and_empty(12000, 32768) > 500);
        size_t again = fill_and_empty(40000, 0);
        if (again < first * 9 / 10) fprintf(stderr, "%zu blocks, then %zu\n", first, again);
        CHECK(again >= first * 9 / 10);
    }
    sound();
}

/* Two threads fill what a limit leaves, each with a size of its own in turn: what one of them has given up is there for
 * the other too. */
static pthread_barrier_t both;
static void *turn_by_turn(void *which) {
    static const size_t sizes[] = {3000, 700, 20000, 100};
    for (size_t round = 0; round < 24; round++) {
        size_t size = sizes[(round + (size_t)which) % 4], bytes = 0;
        void **last = NULL;
        pthread_barrier_wait(&both);
        while (bytes < 6 * MIB) {
            void **p = take(size);
            CHECK(p != NULL);
            *p = last;
            last = p;
            bytes += size;
        }
        give_list(last);
    }
    return NULL;
}
static void threads_share_what_was_given_up_under_a_limit(void) {
    pthread_t other;
    pthread_barrier_init(&both, NULL, 2);
    CHECK(pthread_create(&other, NULL, turn_by_turn, (void *)1) == 0);
    /* Near the limit slabs are small, and bookkeeping for more of them than there ever were needs fresh address space. */
    void **last = NULL;
    for (size_t bytes = 0; bytes < 96 * MIB; bytes += 100) {
        void **p = take(100);
        CHECK(p != NULL);
        *p = last;
        last = p;
    }
    give_list(last);
    malloc_trim(0);
    rlim_t room = mapped_bytes() + 28 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    turn_by_turn(NULL);
    pthread_join(other, NULL);
    sound();
}

/* Threads that first free when no memory is left for a heap of theirs, and live on. */
enum { LATE = 64 };
static void *late_block[LATE];
static pthread_barrier_t used_up, all_freed;
static void *free_late(void *block) {
    pthread_barrier_wait(&used_up);
    give(*(void **)block);
    pthread_barrier_wait(&all_freed);
    pause();
    return NULL;
}
static void use_all_memory_up_and_free_late(void) {
    pthread_barrier_init(&used_up, NULL, LATE + 1);
    pthread_barrier_init(&all_freed, NULL, LATE + 1);
    pthread_t thread;
    for (int i = 0; i < LATE; i++) {
        CHECK((late_block[i] = take(100)) != NULL);
        CHECK(pthread_create(&thread, NULL, free_late, &late_block[i]) == 0);
    }
    rlim_t room = mapped_bytes() + MIB;
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){room, room}) == 0);
    for (size_t size = 1 << 16; size >= 16; size /= 2) {
        while (take(size)) continue;
    }
    pthread_barrier_wait(&used_up);
    pthread_barrier_wait(&all_freed);
}
static void double_free_by_a_late_thread_without_memory(void) {
    use_all_memory_up_and_free_late();
    for (int i = LATE; i-- > 0;) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            give(late_block[i]);
            _exit(3); /* nothing was found */
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
            fprintf(stderr, "the double free of block %d was not found\n", i);
            return;
        }
    }
    abort();
}

/* A block that grows by little gets room, with its size known to the byte and what is added clear. */
static void blocks_grow_where_they_are(void) {
    char *p = take(16);
    int moves = 0;
    for (size_t size = 48; size <= 20000; size += 32) {
        char *grown = resize(p, size);
        moves += grown != p;
        p = grown;
        CHECK(room(p) == size);
        for (size_t i = size - 32; i < size; i++) CHECK(p[i] == 0);
        memset(p + size - 32, 1, 32);
    }
    CHECK(moves < 40);
    for (size_t i = 16; i < 20000 - 32; i++) CHECK(p[i] == 1);
    /* One of whole pages ends at its guard page wherever it comes from. */
    p = resize(p, 24576);
    CHECK((uintptr_t)p % PAGE_BYTES == 0 && room(p) == 24576);
    give(p);
}

/* A correct program, and one whose misuse is to be found: where it comes to its end, nothing was. */
#define CASE(name) {#name, name, false}
#define MISUSE(name) {#name, name, true}
static const struct {
    const char *name;
    void (*run)(void);
    bool misuse;
} cases[] = {
    MISUSE(overflow_by_1), MISUSE(overflow_by_a_zero), MISUSE(overflow_by_8), MISUSE(overflow_into_the_slots_tail),
    MISUSE(overflow_of_a_span), MISUSE(overflow_of_a_large_block), MISUSE(overflow_of_an_aligned_block),
    MISUSE(overflow_of_whole_pages), MISUSE(underflow_of_whole_pages), MISUSE(overflow_of_large_whole_pages),
    MISUSE(overflow_of_aligned_whole_pages), MISUSE(overflow_of_large_aligned_pages),
    MISUSE(overflow_past_the_canary_of_a_span), MISUSE(overflow_past_the_canary_of_a_large_block),
    MISUSE(overflow_found_by_realloc), MISUSE(overflow_that_growth_takes_in), MISUSE(overflow_of_a_block_with_room), MISUSE(overflow_up_to_a_fault), MISUSE(overflow_of_a_span_up_to_a_fault),
    MISUSE(overflow_of_a_large_block_up_to_a_fault), MISUSE(underflow_of_a_large_block), MISUSE(write_after_free),
    MISUSE(write_after_free_of_8_bytes), MISUSE(write_after_free_of_8000_bytes), MISUSE(write_after_free_of_a_span),
    MISUSE(write_after_free_on_an_idle_page), MISUSE(write_after_free_of_a_large_block), MISUSE(read_after_free_of_a_large_block), MISUSE(double_free), MISUSE(double_free_on_a_stack_above),
    MISUSE(double_free_in_quarantine), MISUSE(double_free_after_a_while), MISUSE(double_free_of_a_span), MISUSE(double_free_of_a_large_block),
    MISUSE(double_free_of_nothing), MISUSE(invalid_free), MISUSE(realloc_after_free), MISUSE(size_after_free),
    MISUSE(write_to_nothing), MISUSE(read_of_nothing), MISUSE(racing_double_free), CASE(sizes_are_exact),
    CASE(freed_blocks_are_cleared), CASE(reuse_waits_for_the_quarantine), CASE(reuse_waits_for_the_ring), CASE(some_order),
    CASE(pages_keep_their_class), CASE(threads_and_forks), CASE(a_million_blocks_live), MISUSE(sampled_overflow),
    MISUSE(sampled_use_after_free), MISUSE(sampled_use_after_free_on_a_small_stack), MISUSE(sampled_double_free), CASE(samples_are_as_many_as_asked_for),
    CASE(samples_ask_nothing_about_the_stack),
    CASE(samples_are_as_many_of_each_size), CASE(ten_million_blocks_live), CASE(more_spans_live_than_mappings_may),
    CASE(sizes_that_wrap_are_refused), CASE(spans_begin_after_guards), CASE(large_blocks_leave_the_quarantine_alone),
    CASE(pages_serve_another_class_under_a_limit), CASE(locked_pages_serve_another_class_under_a_limit),
    CASE(guards_before_aligned_blocks_serve_others_under_a_limit), CASE(threads_share_what_was_given_up_under_a_limit),
    MISUSE(double_free_by_a_late_thread_without_memory), CASE(blocks_grow_where_they_are),
};

int main(int argc, char **argv) {
    if (argc == 3) {
        forbid_guards();
        argv[2] = NULL;
        execv("/proc/self/exe", argv);
        CHECK(!"itself again");
    }
    CHECK(argc == 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, argv[1]) != 0) continue;
        cases[i].run();
        return cases[i].misuse ? 3 : 0; /* nothing was found */
    }
    CHECK(!"a case");
}

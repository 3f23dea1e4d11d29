/* usage: misuse CASE CALL [wall] - comes by a pointer that must not be given back, as CASE says, prints it,
 * the size of its slot and the slot's number as far as they are known (else 0 and -1), and misuses it:
 *
 *   free, remote (free by another thread), shrink, grow (realloc), measure (malloc_usable_size)
 *
 * With "wall" a mapping right behind the break makes the heap live elsewhere. Whoever survives exits 3. */
#include "tools.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { MANY = 20480 };
static void *object[MANY];
static size_t slot_size;
static long slot_number = -1;

static void *free_it(void *block) {
    give(block);
    return NULL;
}

static void elsewhere(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void *dead(void *block) {
    slot_size = room(block);
    give(block);
    return block;
}

static void *dead_elsewhere(void *block) {
    slot_size = room(block);
    elsewhere(free_it, block);
    return block;
}

/* Objects of one size; many enough to fill slabs, most of which are then full. */
static void **filled(size_t size, size_t count) {
    for (size_t i = 0; i < count; i++) object[i] = memset(take(size), 0xee, size);
    return object;
}

/* Slots that are free. */

static void *freed(void) {
    char *block = filled(48, 20)[10];
    slot_number = (long)((uintptr_t)block % PAGE_BYTES / 48); /* the first slab is one page */
    return dead(block);
}
static void *freed_zero(void) { return dead(filled(0, 20)[10]); }
static void *freed_tiny(void) { return dead(filled(8, 2000)[1500]); }
static void *freed_4096(void) { return dead(filled(4096, 100)[70]); }
static void *freed_8192(void) { return dead(filled(8192, 100)[70]); }
static void *freed_zeroed(void) {
    filled(100, 20);
    return dead(calloc(10, 10));
}
static void *freed_before_another(void) {
    void **block = filled(48, 20);
    dead(block[3]);
    give(block[4]);
    return block[3];
}
static void *freed_long_ago(void) {
    void *block = dead(filled(48, 20)[10]);
    for (size_t i = 0; i < 100000; i++) give(take(64 + i % 500));
    return block;
}
static void *freed_in_a_full_slab(void) { return dead(filled(64, 5000)[2500]); }
static void *freed_alone(void) { return dead(take(6000)); }
static void *freed_all(void) {
    filled(48, 100);
    for (int i = 0; i < 100; i++) give(object[i]);
    return object[50];
}
/* Checked out by a thread, which has not handed it out again. */
static void *freed_and_checked_out(void) {
    void **block = filled(64, 4096);
    dead(block[2000]);
    give(block[2001]);
    for (int i = 0; i < 4096; i++) {
        void *again = take(64);
        if (again == block[2000]) return block[2001];
        if (again == block[2001]) return block[2000];
    }
    CHECK(!"neither came again");
    return NULL;
}
static void *never_handed_out(void) { return (char *)take(48) + 10 * 48; }
static void *moved_away_from(void) {
    void *block = filled(48, 20)[10];
    slot_size = room(block);
    CHECK(resize(block, 5000) != block);
    return block;
}
static void *freed_aligned(void) {
    filled(128, 10);
    return dead(aligned_alloc(64, 100));
}

/* Slots freed by other threads, and slots whose owner is gone. */

static void *freed_elsewhere(void) { return dead_elsewhere(filled(48, 20)[10]); }
static void *freed_elsewhere_in_a_full_slab(void) { return dead_elsewhere(filled(64, 5000)[2500]); }
static void *freed_elsewhere_tiny(void) { return dead_elsewhere(filled(8, 2000)[1500]); }
static void *freed_elsewhere_span(void) { return dead_elsewhere(filled(20000, 10)[5]); }
static void *freed_elsewhere_large(void) { return dead_elsewhere(filled(300000, 10)[5]); }
static void *freed_elsewhere_after_another(void) {
    give(filled(48, 20)[9]);
    elsewhere(free_it, object[11]);
    return dead_elsewhere(object[10]);
}
static void *fill(void *unused) {
    filled(48, 1000);
    return unused;
}
static void *fill_and_free_one(void *unused) {
    filled(48, 1000);
    dead(object[500]);
    return unused;
}
static void *freed_by_an_owner_now_gone(void) {
    elsewhere(fill_and_free_one, NULL);
    return object[500];
}
static void *freed_after_its_owner_went(void) {
    elsewhere(fill, NULL);
    return dead(object[500]);
}
static void *freed_elsewhere_after_its_owner_went(void) {
    elsewhere(fill, NULL);
    return dead_elsewhere(object[500]);
}
static pthread_barrier_t meeting;
static void *fill_and_wait(void *unused) {
    filled(48, 1000);
    pthread_barrier_wait(&meeting);
    pthread_barrier_wait(&meeting);
    return unused;
}
static void *freed_before_its_owner_went(void) {
    pthread_t owner;
    CHECK(pthread_barrier_init(&meeting, NULL, 2) == 0);
    CHECK(pthread_create(&owner, NULL, fill_and_wait, NULL) == 0);
    pthread_barrier_wait(&meeting);
    dead(object[500]);
    pthread_barrier_wait(&meeting);
    CHECK(pthread_join(owner, NULL) == 0);
    return object[500];
}

/* Spans and large blocks. */

static void *freed_span(void) { return dead(filled(20000, 10)[5]); }
static void *freed_only_span(void) { return dead(take(100000)); }
static void *freed_large(void) { return dead(filled(300000, 10)[5]); }
static void *freed_huge(void) { return dead(take(64 * MIB)); }
static void *freed_aligned_large(void) { return dead(aligned_alloc(2 * MIB, 3 * MIB)); }
static void *inside_a_span(void) { return (char *)filled(20000, 10)[5] + 16; }
static void *inside_a_span_at_a_page(void) { return (char *)filled(20000, 10)[5] + 2 * PAGE_BYTES; }
static void *last_byte_of_a_span(void) {
    char *block = filled(20000, 10)[5];
    return block + room(block) - 1;
}
static void *inside_a_large_block(void) { return (char *)take(300000) + 16; }
static void *inside_a_large_block_at_a_page(void) { return (char *)take(300000) + 8 * PAGE_BYTES; }
static void *before_a_large_block(void) { return (char *)aligned_alloc(MIB, 2 * MIB) - 16; }
static void *inside_an_aligned_block(void) { return (char *)aligned_alloc(4096, 20000) + 4096; }

/* Not the start of a slot. */

static void *inside_by_1(void) { return (char *)filled(48, 20)[10] + 1; }
static void *inside_by_8(void) { return (char *)filled(48, 20)[10] + 8; }
static void *inside_by_16(void) { return (char *)filled(48, 20)[10] + 16; }
static void *inside_by_47(void) { return (char *)filled(48, 20)[10] + 47; }
static void *inside_tiny(void) { return (char *)filled(8, 20)[10] + 4; }
static void *inside_4096(void) { return (char *)filled(4096, 20)[10] + 2048; }
static void *inside_8192(void) { return (char *)filled(8192, 20)[10] + 4096; }
static void *inside_a_free_slot(void) { return (char *)dead(filled(48, 20)[10]) + 16; }

/* One past the last slot of a slab that ends in a rest. */
static void *past_the_last(size_t size, bool last) {
    void *past = NULL;
    sort_addresses(filled(size, 3000), 3000);
    for (int i = 0; i + 1 < 3000 && (last || past == NULL); i++)
        if ((char *)object[i + 1] - (char *)object[i] != (ptrdiff_t)size) past = (char *)object[i] + size;
    CHECK(past != NULL);
    return past;
}
static void *past_the_first_slab_of_48(void) { return past_the_last(48, false); }
static void *past_another_slab_of_48(void) { return past_the_last(48, true); }
static void *past_the_first_slab_of_80(void) { return past_the_last(80, false); }
static void *past_another_slab_of_240(void) { return past_the_last(240, true); }
static void *past_the_first_slab_of_320(void) { return past_the_last(320, false); }
static void *past_another_slab_of_5632(void) { return past_the_last(5632, true); }

/* Nothing of ours. */

static char in_bss[4096] __attribute__((aligned(4096)));
static char in_data[64] __attribute__((aligned(16))) = "data";

static void *on_the_stack(void) {
    char local[64] __attribute__((aligned(16)));
    return (void *)opaque_size((uintptr_t)local);
}
static void *of_the_program(void) { return in_bss; }
static void *of_its_data(void) { return in_data; }
static void *of_its_code(void) { return (void *)((uintptr_t)free_it & -(uintptr_t)16); }
static void *of_a_mapping(void) {
    void *map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    return (char *)map + 4096;
}
static void *of_a_lost_mapping(void) {
    void *map = of_a_mapping();
    munmap((char *)map - 4096, 65536);
    return map;
}
static void *of_another_sbrk(void) {
    filled(48, 100);
    char *block = sbrk(3 * PAGE_BYTES + 100);
    CHECK(block != (void *)-1);
    filled(1000, 5000); /* so that the heap goes on behind it */
    return (void *)(((uintptr_t)block + PAGE_BYTES) & -(uintptr_t)16);
}
static void *beyond_the_break(void) {
    filled(48, 100);
    return (void *)(((uintptr_t)break_now() + 64 * PAGE_BYTES) & -(uintptr_t)PAGE_BYTES);
}
static void *near_null(void) { return (void *)opaque_size(8); }
static void *near_null_at_16(void) { return (void *)opaque_size(16); }
static void *at_the_first_page(void) { return (void *)opaque_size(4096); }
static void *not_canonical(void) { return (void *)opaque_size(0xdeadbeefdeadbee0); }
static void *at_the_canonical_end(void) { return (void *)opaque_size(0x800000000000); }
static void *of_the_kernel(void) { return (void *)opaque_size(0xffffffff81000000); }
static void *minus_one(void) { return (void *)opaque_size(SIZE_MAX); }
static void *minus_16(void) { return (void *)opaque_size(SIZE_MAX - 15); }

/* Blocks whose slab has gone back. */

static void *of_a_slab_given_back(void) {
    filled(1024, MANY);
    for (int i = 0; i < MANY; i++) give(object[i]);
    return object[MANY / 2];
}
static void *of_a_slab_given_back_inside(void) {
    filled(1024, MANY);
    for (int i = 0; i < MANY - 1; i++) give(object[i]);
    return object[MANY / 2];
}
/* The child goes on, and the parent ends as it did. */
static void go_on_in_a_child(void) {
    int status;
    pid_t child = fork();
    if (child == 0) return;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    raise(WTERMSIG(status));
}
static void *of_a_slab_given_back_before_a_fork(void) {
    elsewhere(free_it, take(48)); /* the child has something to repair */
    void *block = of_a_slab_given_back();
    go_on_in_a_child();
    return block;
}
static void *of_a_slab_given_back_by_a_fork_child(void) {
    elsewhere(free_it, take(48));
    filled(1024, MANY);
    go_on_in_a_child();
    for (int i = 0; i < MANY; i++) give(object[i]);
    return object[MANY / 2];
}
static void *of_a_span_given_back_by_a_fork_child(void) {
    elsewhere(free_it, take(48));
    filled(100000, 100);
    go_on_in_a_child();
    for (int i = 0; i < 100; i++) give(object[i]);
    malloc_trim(0);
    return object[50];
}
static void *of_a_slab_purged(void) {
    void *block = of_a_slab_given_back_inside();
    wait_ms(1100);
    for (int i = 0; i < 1000; i++) give(take(64));
    return block;
}

static const struct {
    const char *name;
    void *(*come_by)(void);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(freed), CASE(freed_zero), CASE(freed_tiny), CASE(freed_4096), CASE(freed_8192), CASE(freed_zeroed),
    CASE(freed_before_another), CASE(freed_long_ago), CASE(freed_in_a_full_slab), CASE(freed_alone),
    CASE(freed_all), CASE(freed_and_checked_out), CASE(never_handed_out), CASE(moved_away_from),
    CASE(freed_aligned), CASE(freed_elsewhere), CASE(freed_elsewhere_in_a_full_slab),
    CASE(freed_elsewhere_tiny), CASE(freed_elsewhere_span), CASE(freed_elsewhere_large),
    CASE(freed_elsewhere_after_another), CASE(freed_by_an_owner_now_gone), CASE(freed_after_its_owner_went),
    CASE(freed_elsewhere_after_its_owner_went), CASE(freed_before_its_owner_went), CASE(freed_span),
    CASE(freed_only_span), CASE(freed_large), CASE(freed_huge), CASE(freed_aligned_large),
    CASE(inside_a_span), CASE(inside_a_span_at_a_page), CASE(last_byte_of_a_span),
    CASE(inside_a_large_block), CASE(inside_a_large_block_at_a_page), CASE(before_a_large_block),
    CASE(inside_an_aligned_block), CASE(inside_by_1), CASE(inside_by_8), CASE(inside_by_16),
    CASE(inside_by_47), CASE(inside_tiny), CASE(inside_4096), CASE(inside_8192), CASE(inside_a_free_slot),
    CASE(past_the_first_slab_of_48), CASE(past_another_slab_of_48), CASE(past_the_first_slab_of_80),
    CASE(past_another_slab_of_240), CASE(past_the_first_slab_of_320), CASE(past_another_slab_of_5632),
    CASE(on_the_stack), CASE(of_the_program), CASE(of_its_data), CASE(of_its_code), CASE(of_a_mapping),
    CASE(of_a_lost_mapping), CASE(of_another_sbrk), CASE(beyond_the_break), CASE(near_null),
    CASE(near_null_at_16), CASE(at_the_first_page), CASE(not_canonical), CASE(at_the_canonical_end),
    CASE(of_the_kernel), CASE(minus_one), CASE(minus_16), CASE(of_a_slab_given_back),
    CASE(of_a_slab_given_back_inside), CASE(of_a_slab_purged), CASE(of_a_slab_given_back_before_a_fork),
    CASE(of_a_slab_given_back_by_a_fork_child), CASE(of_a_span_given_back_by_a_fork_child),
};

static void put_a_wall_behind_the_break(void) {
    void *end = (void *)(((uintptr_t)break_now() + PAGE_BYTES - 1) & -(uintptr_t)PAGE_BYTES);
    CHECK(mmap(end, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end);
}

static void misuse(const char *call, void *block) {
    if (strcmp(call, "free") == 0) give(block);
    else if (strcmp(call, "remote") == 0) elsewhere(free_it, block);
    else if (strcmp(call, "shrink") == 0) resize(block, 1);
    else if (strcmp(call, "grow") == 0) resize(block, 5000);
    else if (strcmp(call, "measure") == 0) room(block);
    else CHECK(!"a call there is");
}

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    if (argc > 3) put_a_wall_behind_the_break();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(argv[1], cases[i].name) != 0) continue;
        void *block = cases[i].come_by();
        dprintf(STDOUT_FILENO, "%p %zu %ld\n", block, slot_size, slot_number);
        misuse(argv[2], block);
        return 3;
    }
    CHECK(!"a case there is");
    return 0;
}

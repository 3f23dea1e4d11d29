/* Destructors of thread-specific data allocate and free, over several rounds, before and after the
 * heap's own exit hook has run: they come late, and yet nothing may be lost or broken.
 *
 * usage: destructors THREADS */
#include "work.h"

enum { KEYS = 3, ROUNDS = 3, LEFT = 4 };

/* What a key holds: a block, and how many rounds it has been through. */
struct data {
    struct block *block;
    int key, round;
};

static pthread_key_t keys[KEYS];
static slot left[KEYS * LEFT];
static atomic_int ended;

static void renew(void *value) {
    struct data *old = value;
    uint64_t state = 0x9e3779b97f4a7c15u * (uint64_t)(old->key + 1) + (uint64_t)old->round;
    int key = old->key, round = old->round + 1;
    block_end(old->block);
    free(old);
    for (int i = 0; i < LEFT; i++) /* for the main thread, or a later destructor, to free */
        block_end(atomic_exchange(&left[key * LEFT + i], block_new(random_size(&state), random_next(&state))));
    if (round == ROUNDS) {
        atomic_fetch_add(&ended, 1);
        return;
    }
    struct data *fresh = malloc(sizeof *fresh);
    CHECK(fresh != NULL);
    *fresh = (struct data){block_new(random_size(&state), random_next(&state)), key, round};
    CHECK(pthread_setspecific(keys[key], fresh) == 0);
}

static void key_make(int key) { CHECK(pthread_key_create(&keys[key], renew) == 0); }

static void *live(void *unused) {
    (void)unused;
    for (int key = 0; key < KEYS; key++) {
        struct data *fresh = malloc(sizeof *fresh);
        CHECK(fresh != NULL);
        *fresh = (struct data){block_new(100, 7), key, 0};
        CHECK(pthread_setspecific(keys[key], fresh) == 0);
    }
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    int count = atoi(argv[1]);
    key_make(0); /* before the first allocation, and so before any key of the heap's own */
    free(malloc(1));
    for (int key = 1; key < KEYS; key++) key_make(key);
    for (int i = 0; i < count; i += 2) {
        pthread_t one = thread_start(live, NULL), other = thread_start(live, NULL);
        thread_end(one);
        thread_end(other);
    }
    CHECK(atomic_load(&ended) == count * KEYS);
    slots_end(left, KEYS * LEFT);
    sound();
    return 0;
}

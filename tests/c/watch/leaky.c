/* Loses blocks in one way, and ends.
 *
 * leaky WAY    prints how many blocks it has lost */
#include "../check.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define WAY __attribute__((noipa)) static int

static void *volatile kept;

/* The compiler must not know that nobody uses it. */
__attribute__((noipa)) static void *block(size_t size) {
    void *fresh = malloc(size);
    CHECK(fresh);
    memset(fresh, 1, size);
    return fresh;
}

WAY direct(void) {
    for (int i = 0; i < 10; i++)
        block(100);
    return 10;
}

struct node {
    struct node *left, *right;
    long payload[4];
};

__attribute__((noipa)) static struct node *tree(int depth) {
    struct node *node = block(sizeof *node);
    node->left = depth > 1 ? tree(depth - 1) : NULL;
    node->right = depth > 1 ? tree(depth - 1) : NULL;
    return node;
}

WAY lose_tree(void) {
    tree(6);
    return 63;
}

WAY list(void) {
    struct node *head = NULL;
    for (int i = 0; i < 50; i++) {
        struct node *node = block(sizeof *node);
        node->left = head;
        node->right = NULL;
        head = node;
    }
    return 50;
}

WAY ring(void) {
    void **all[4];
    for (int i = 0; i < 4; i++)
        all[i] = block(400);
    for (int i = 0; i < 4; i++)
        all[i][0] = all[(i + 1) % 4];
    memset(all, 0, sizeof all);
    return 4;
}

WAY table(void) {
    char **names = block(20 * sizeof *names);
    for (int i = 0; i < 20; i++)
        names[i] = block(40);
    return 21;
}

WAY large(void) {
    void **first = block(10 << 20);
    first[1000] = block(64);
    return 2;
}

WAY aligned(void) {
    void *fresh;
    CHECK(posix_memalign(&fresh, 4096, 5000) == 0);
    memset(fresh, 1, 5000);
    return 1;
}

/* Its only pointer lies in a block that was freed. */
WAY held_by_freed(void) {
    void **holder = block(2000);
    holder[100] = block(64);
    free(holder);
    return 1;
}

static __thread void *volatile own;

static void *hold_in_thread(void *unused) {
    own = block(64);
    return unused;
}

/* Its only pointer was a variable of a thread that has ended. */
WAY thread(void) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, hold_in_thread, NULL) == 0);
    CHECK(pthread_join(other, NULL) == 0);
    return 1;
}

/* ---- what is held ---- */

WAY held(void) {
    kept = block(64);
    return 0;
}

WAY middle(void) {
    kept = (char *)block(64) + 20;
    return 0;
}

/* In a mapping of the program's own. */
WAY mapped(void) {
    void **page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    page[7] = block(64);
    return 0;
}

WAY disguised(void) {
    kept = (void *)((uintptr_t)block(64) ^ 0x5a5a5a5a5a5a5a5au);
    return 0;
}

/* Not inlined: it clears what others left on the stack. */
__attribute__((noipa)) static void wipe(void) {
    volatile char room[64 << 10];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

static const struct {
    const char *name;
    int (*lose)(void);
} ways[] = {
    {"direct", direct},   {"list", list},       {"tree", lose_tree}, {"ring", ring},     {"table", table},
    {"large", large},     {"aligned", aligned}, {"freed", held_by_freed}, {"thread", thread},
    {"held", held},       {"middle", middle},   {"mapped", mapped},  {"disguised", disguised},
};

int main(int argc, char **argv) {
    CHECK(argc == 2);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, argv[1]) == 0) {
            int lost = ways[i].lose();
            printf("%d\n", lost);
            CHECK(fflush(stdout) == 0);
            /* Last of all: printf allocates, and what the allocator does by the clock may leave addresses there. */
            wipe();
            return 0;
        }
    return 2;
}

/* slabside.h - the slabside memory allocator, under names of its own.
 *
 * Link libslabside.a (with -lpthread on C libraries older than glibc 2.34). It replaces nobody else's
 * malloc: blocks from here go back here. All functions may be called from any thread; none may be called
 * from a signal handler that interrupted one of them. A block that was freed already, or was never
 * handed out, ends the program with one line on stderr and SIGABRT.
 */
#ifndef SLABSIDE_H
#define SLABSIDE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* At least `size` bytes, aligned to 8 for sizes up to 8 and to 16 above; size 0 gives a distinct
 * pointer. NULL and ENOMEM where there is no memory or size exceeds PTRDIFF_MAX. (C17 7.22.3.4) */
void *slabside_malloc(size_t size);
/* `count` times `size` zero bytes; NULL and ENOMEM where the product overflows. (C17 7.22.3.2) */
void *slabside_calloc(size_t count, size_t size);
/* The block resized, at the same address where it has room. A null block is allocated; size 0 gives a
 * block of the smallest size. On failure NULL and ENOMEM, and the old block stays. (C17 7.22.3.5) */
void *slabside_realloc(void *block, size_t size);
/* As realloc for `count` times `size` bytes, NULL and ENOMEM where that overflows. (reallocarray(3)) */
void *slabside_reallocarray(void *block, size_t count, size_t size);
/* Gives a block back; NULL is ignored; errno is kept. (POSIX.1-2024 free) */
void slabside_free(void *block);
/* `size` bytes at a multiple of `align`, a power of two, else NULL and EINVAL. (C17 7.22.3.1) */
void *slabside_aligned_alloc(size_t align, size_t size);
/* The same by *block; align is a power of two times sizeof(void *). Returns 0, EINVAL or ENOMEM, and
 * writes *block only on success. (POSIX posix_memalign) */
int slabside_posix_memalign(void **block, size_t align, size_t size);
/* Bytes that may be used in the block, at least what was asked for; 0 for NULL. */
size_t slabside_usable_size(void *block);

/* The heap's figures. Counts of slots are taken on slow paths: handed_out and live may run ahead by
 * what threads have checked out and not yet handed out (at most 64 slots a class and thread). */
struct slabside_stats {
    size_t handed_out;  /* bytes handed out so far, in slot sizes */
    size_t live;        /* bytes in live slots, spans and large blocks */
    size_t peak;        /* highest value of live */
    size_t break_bytes; /* bytes by which the break is moved now */
    size_t break_peak;  /* highest value of break_bytes */
    size_t break_moves; /* times the break was moved, up or down */
    size_t mapped;      /* bytes mapped for large blocks and fallback windows */
    size_t metadata;    /* bytes of metadata opened for use */
    size_t purged;      /* bytes given back inside the heap */
    size_t slabs;       /* slabs in use */
    size_t spans;       /* spans in use or kept for reuse */
    size_t large;       /* large blocks in use */
};
/* Fills *out; `live` is made exact by a walk over all slabs. */
void slabside_stats(struct slabside_stats *out);
/* Walks every slab header, list and bitmap; returns the number of broken invariants found (0: sound).
 * To be called while no other thread allocates or frees. */
size_t slabside_validate(void);
/* Sets an option (see docs/tuning.md, or `slabside options`) before the first allocation. 0; EINVAL: no
 * such option or value; EBUSY: memory was allocated already, and the options are frozen. What the
 * environment variable SLABSIDE_OPTIONS says has the last word. */
int slabside_option_set(const char *name, const char *value);

#ifdef __cplusplus
}
#endif
#endif

/* slabside.h - the slabside memory allocator, under names of its own.
 *
 * Link libslabside.a (with -lpthread on C libraries older than glibc 2.34). It replaces nobody else's malloc:
 * blocks from here go back here. Any thread may call these functions. A signal handler that interrupted one of
 * them must not. A free of a block that was freed already, or was never handed out, ends the program with one line
 * on stderr and SIGABRT.
 *
 * libslabside.so and libslabside_preload.a have the same functions under the system's names too (malloc, free,
 * operator new ...). (A build calls the first one libslabside_preload.so.) Then slabside serves the whole process,
 * and the names below use the same heap.
 */
#ifndef SLABSIDE_H
#define SLABSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- C and POSIX --------------------------------------------------------------------------------- */

/* At least `size` bytes, aligned to 8 for sizes up to 8 and to 16 above. Size 0 gives a distinct pointer. NULL
 * and ENOMEM if there is no memory or size exceeds PTRDIFF_MAX. (C17 7.22.3.4) */
void *slabside_malloc(size_t size);
/* `count` times `size` zero bytes. NULL and ENOMEM if the product overflows. (C17 7.22.3.2) */
void *slabside_calloc(size_t count, size_t size);
/* The block resized, at the same address where it has room. A null block is allocated. Size 0 gives a block of
 * the smallest size, or frees the block (option realloc-zero). On failure NULL and ENOMEM, and the old block
 * stays. (C17 7.22.3.5) */
void *slabside_realloc(void *block, size_t size);
/* As realloc for `count` times `size` bytes, NULL and ENOMEM where that overflows. (reallocarray(3)) */
void *slabside_reallocarray(void *block, size_t count, size_t size);
/* Gives a block back, ignores NULL, and keeps errno. (POSIX.1-2024 free) */
void slabside_free(void *block);
/* Gives a block back that was asked for with `size` bytes (by realloc: last), and ignores NULL. A size ends the
 * program if no such block would have been given for it. That is a size of another class, or for blocks above 32
 * KiB one that is larger than the block or far smaller. If a realloc has left a block that shrank in its place,
 * the size of blocks in its slab is from then on only checked not to exceed the block. (C23 7.24.4.4) */
void slabside_free_sized(void *block, size_t size);
/* The same for a block of aligned_alloc with that alignment and size. (C23 7.24.4.5) */
void slabside_free_aligned_sized(void *block, size_t align, size_t size);
/* `size` bytes at a multiple of `align`, a power of two, else NULL and EINVAL. `size` need not be a multiple of
 * it. (C17 7.22.3.1) */
void *slabside_aligned_alloc(size_t align, size_t size);
/* The same by *block. `align` is a power of two times sizeof(void *). Returns 0, EINVAL or ENOMEM, and writes
 * *block only on success. (POSIX posix_memalign) */
int slabside_posix_memalign(void **block, size_t align, size_t size);
/* As aligned_alloc, with `align` rounded up to a power of two. (memalign(3)) */
void *slabside_memalign(size_t align, size_t size);
/* At a multiple of the system's page size. pvalloc rounds the size up to whole pages. (valloc(3)) */
void *slabside_valloc(size_t size);
void *slabside_pvalloc(size_t size);
/* Bytes that may be used in the block, at least what was asked for. 0 for NULL. */
size_t slabside_usable_size(void *block);

/* ---- beside them --------------------------------------------------------------------------------- */

/* The usable size that a block of `size` bytes would have (larger blocks may get more). 0 if there can be no
 * such block. */
size_t slabside_good_size(size_t size);
/* As malloc, and writes the usable size to *usable (0 on failure) unless that is NULL. */
void *slabside_malloc_at_least(size_t size, size_t *usable);
/* `size` zero bytes. */
void *slabside_zalloc(size_t size);
/* As realloc, at a multiple of `align`. NULL and EINVAL if that is not a power of two. The contents are kept,
 * whatever alignment the block had. */
void *slabside_aligned_realloc(void *block, size_t align, size_t size);
/* Makes at least `size` bytes of the block usable without moving it. On true the block counts as asked for with
 * that size, if it was asked for with less. On false nothing changed. False for NULL. */
bool slabside_try_expand(void *block, size_t size);

/* ---- first-class heaps ---------------------------------------------------------------------------
 *
 * A heap of one's own, destroyed with all its blocks at once. Any thread may use it. Each call takes the heap's own
 * lock and sleeps while another thread holds it. (Without contention a pair with slabside_free costs some 370
 * instructions more than malloc and free.) A heap has slabs of its own, so at least one page for each size class
 * that it uses. slabside_free gives back a single block, from any thread, as a block of another thread's: by one
 * atomic operation, without the lock (hardened mode takes it). slabside_realloc may move a block out of its heap.
 * slabside_heap_realloc does not.
 *
 * After its destruction the use of a heap ends the program. So does a free of one of its blocks, until its memory
 * serves somebody else. A fork child has all heaps as its parent had. There may be as many heaps and threads as the
 * metadata provide for: 32768 on most machines, 64 at least. */
typedef struct slabside_heap slabside_heap;
/* A new heap. NULL and ENOMEM if there is no memory, or there are too many. */
slabside_heap *slabside_heap_create(void);
/* Destroys the heap and all its blocks, and ignores NULL. */
void slabside_heap_destroy(slabside_heap *heap);
/* As malloc, calloc, aligned_alloc and realloc, from the heap. A block of another heap is copied into this
 * one by realloc, and given back. */
void *slabside_heap_malloc(slabside_heap *heap, size_t size);
void *slabside_heap_calloc(slabside_heap *heap, size_t count, size_t size);
void *slabside_heap_aligned_alloc(slabside_heap *heap, size_t align, size_t size);
void *slabside_heap_realloc(slabside_heap *heap, void *block, size_t size);

/* ---- glibc's ------------------------------------------------------------------------------------- */

/* Gives back to the system all that is kept for reuse and can be reached from this thread, but for `pad`
 * bytes at the heap's end. 1 if memory went back, else 0. (malloc_trim(3)) */
int slabside_malloc_trim(size_t pad);
/* The figures of mallinfo(3), true ones. In mallinfo those that exceed an int are INT_MAX. */
struct slabside_mallinfo {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct slabside_mallinfo2 {
    size_t arena;    /* bytes that the break and mapped windows hold */
    size_t ordblks;  /* free slots, free spans and free runs of pages */
    size_t smblks;   /* free slots among them */
    size_t hblks;    /* large blocks in use */
    size_t hblkhd;   /* their bytes */
    size_t usmblks;  /* the most bytes that were ever live */
    size_t fsmblks;  /* bytes of free slots that may be resident */
    size_t uordblks; /* bytes in live slots and spans */
    size_t fordblks; /* arena - uordblks */
    size_t keepcost; /* bytes at the heap's end that a trim would give back */
};
struct slabside_mallinfo slabside_mallinfo(void);
struct slabside_mallinfo2 slabside_mallinfo2(void);
/* Writes the figures as XML. Returns 0, EINVAL if `options` is not 0, or -1 if the stream fails.
 * (malloc_info(3)) */
int slabside_malloc_info(int options, FILE *stream);
/* Writes a few figures to stderr. (malloc_stats(3)) */
void slabside_malloc_stats(void);
/* 1, or 0 if there is no such parameter or it cannot have that value. M_TRIM_THRESHOLD is honoured. The others
 * have nothing to set, and are accepted with the values that the manual allows. (mallopt(3)) */
int slabside_mallopt(int parameter, int value);

/* ---- C++ -----------------------------------------------------------------------------------------
 *
 * operator new under another name: where memory has run out they call the std::new_handler as long as
 * there is one, and then throw std::bad_alloc. To be given back by slabside_free or, with its size,
 * slabside_free_sized. See also slabside::allocator below. */
void *slabside_new(size_t size);
void *slabside_new_aligned(size_t size, size_t align);

/* ---- the heap's figures -------------------------------------------------------------------------- */

/* The heap's figures. Slow paths count slots. So handed_out and live may run ahead by what threads have cached
 * and not yet handed out (at most 64 slots a class and thread). */
struct slabside_stats {
    size_t handed_out;  /* bytes handed out so far, in slot sizes */
    size_t live;        /* bytes in live slots, spans and large blocks */
    size_t peak;        /* highest value of live, with what waits in a quarantine */
    size_t break_bytes; /* bytes by which the break is moved now */
    size_t break_peak;  /* highest value of break_bytes */
    size_t break_moves; /* times the break was moved, up or down */
    size_t mapped;      /* bytes mapped for large blocks and fallback windows */
    size_t metadata;    /* bytes of metadata opened for use */
    size_t purged;      /* bytes given back inside the heap */
    size_t slabs;       /* slabs in use */
    size_t spans;       /* spans in use or kept for reuse */
    size_t large;       /* large blocks in use */
    /* Idle memory, in bytes, by where it lies (docs/memory.md). */
    size_t idle_slots;  /* free slots in slabs in use, but for those of holes */
    size_t holes;       /* pages of slabs in use that were discarded: they take no memory */
    size_t idle_spans;  /* free spans kept for reuse */
    size_t idle_pages;  /* free pages that may be resident */
    size_t idle_large;  /* freed large blocks kept for reuse */
    /* In hardened mode: bytes of blocks that the program has freed, and that wait in a quarantine. */
    size_t quarantine;
};
/* Fills *out. A walk over all slabs makes `live` and the idle fields exact. */
void slabside_stats(struct slabside_stats *out);
/* Where the process's metadata region begins, for debuggers and other readers. 0 means that nothing was
 * allocated yet. */
extern const size_t slabside_region;
/* How full the slab of a block is, and together the slabs of its size class that wait with free slots. Those that a
 * thread takes slots from are not among them. The sums are counted anew after as many questions as there are slabs. All
 * 0 for NULL and for a block that has pages of its own. Other threads may be at work: then it is a moment's mixture. */
struct slabside_occupancy {
    size_t live;        /* live slots of the block's slab */
    size_t slots;       /* slots of the block's slab */
    size_t class_live;  /* live slots of the slabs of the class that wait with free ones */
    size_t class_slots; /* slots of these slabs */
};
void slabside_occupancy(const void *block, struct slabside_occupancy *out);
/* For programs that defragment. Whether it helps to give memory back if this live block is allocated anew,
 * copied and freed. It does if the block's slab waits and is no fuller than those of its class are on average, and if
 * these have more free slots than a slab has. Any thread may ask. The question costs about as much as
 * slabside_usable_size. */
bool slabside_should_move(const void *block);
/* Walks every slab header, list and bitmap. Returns the number of broken invariants found (0: sound). No other
 * thread may allocate or free meanwhile. SIZE_MAX: a signal handler asks that interrupted malloc or free, and nothing
 * was looked at. */
size_t slabside_validate(void);
/* Sets an option (see docs/tuning.md, or `slabside options`) before the first allocation. Returns 0, EINVAL if
 * there is no such option or value, or EBUSY if memory was allocated already and the options are frozen. The
 * option guard-sample alone can be set at any time. The environment variable SLABSIDE_OPTIONS has the last word. */
int slabside_option_set(const char *name, const char *value);
/* Takes a heap profile from now on: a sample every so many bytes on average, 512 KiB (524288) say; 0: none. The interval
 * before. `slabside profile` outside the process tells which code holds the memory. Threads learn of it within their next
 * 16 slow paths. */
size_t slabside_profile(size_t interval);
/* Options that a program brings with it, "name:value,name:value": it may define this variable, as
 *     const char *slabside_options = "decay:1s,guard-sample:5000";
 * What slabside_option_set and the environment say comes before it. */
extern const char *slabside_options;

#ifdef __cplusplus
}

#if __cplusplus >= 201103L
#include <new>

namespace slabside {

/* For the containers of the standard library: std::vector<int, slabside::allocator<int>>. */
template <class T> struct allocator {
    using value_type = T;
    allocator() = default;
    template <class U> allocator(const allocator<U> &) noexcept {}
    T *allocate(size_t count) {
        if (count > size_t(-1) / 2 / sizeof(T)) throw std::bad_alloc();
        return static_cast<T *>(slabside_new_aligned(count * sizeof(T), alignof(T)));
    }
    void deallocate(T *block, size_t count) noexcept {
        slabside_free_aligned_sized(block, alignof(T), count * sizeof(T));
    }
    template <class U> bool operator==(const allocator<U> &) const noexcept { return true; }
    template <class U> bool operator!=(const allocator<U> &) const noexcept { return false; }
};

} // namespace slabside
#endif
#endif
#endif

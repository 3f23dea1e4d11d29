/* What every test program begins with: CHECK, and the allocator's functions under the usual names.
 *
 * A program is compiled in two forms. With PREFIXED the usual names stand for the functions of the static
 * library, and the C library's own malloc stays beside them; without it the program is an ordinary one
 * that runs under LD_PRELOAD. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "slabside.h"

/* Ends the program with status 1 unless `condition` holds. Allocates nothing. */
#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            dprintf(STDERR_FILENO, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            _exit(1);                                                                        \
        }                                                                                    \
    } while (0)

#ifdef PREFIXED
#define malloc slabside_malloc
#define calloc slabside_calloc
#define realloc slabside_realloc
#define reallocarray slabside_reallocarray
#define free slabside_free
#define aligned_alloc slabside_aligned_alloc
#define posix_memalign slabside_posix_memalign
#define memalign slabside_memalign
#define valloc slabside_valloc
#define pvalloc slabside_pvalloc
#define free_sized slabside_free_sized
#define free_aligned_sized slabside_free_aligned_sized
#define malloc_usable_size slabside_usable_size
#define malloc_trim slabside_malloc_trim
#define mallinfo slabside_mallinfo
#define mallinfo2 slabside_mallinfo2
#define malloc_info slabside_malloc_info
#define malloc_stats slabside_malloc_stats
#define mallopt slabside_mallopt
#else
/* Present in the preloaded library alone. */
void free_sized(void *, size_t) __attribute__((weak));
void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));
#pragma weak slabside_stats
#pragma weak slabside_validate
#pragma weak slabside_profile
#pragma weak slabside_good_size
#pragma weak slabside_should_move
#pragma weak slabside_occupancy
#pragma weak slabside_malloc_at_least
#pragma weak slabside_zalloc
#pragma weak slabside_aligned_realloc
#pragma weak slabside_try_expand
#pragma weak slabside_heap_create
#pragma weak slabside_heap_destroy
#pragma weak slabside_heap_malloc
#pragma weak slabside_heap_calloc
#pragma weak slabside_heap_aligned_alloc
#pragma weak slabside_heap_realloc
#endif

#endif

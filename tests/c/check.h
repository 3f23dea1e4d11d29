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
#define malloc_usable_size slabside_usable_size
#else
/* Present where the preloaded library offers them. */
#pragma weak slabside_stats
#pragma weak slabside_validate
#endif

#endif

/* slabside in a C program by the static library, beside the C library's own malloc:
 *
 *     cargo build --release --workspace
 *     cc -Iinclude examples/static_library.c target/release/libslabside.a -o example && ./example
 */
#include "slabside.h"

#include <stdio.h>

int main(void)
{
    enum { COUNT = 100000 };
    static char *blocks[COUNT];
    struct slabside_stats full, empty;

    for (int i = 0; i < COUNT; i++)
        blocks[i] = slabside_malloc(48);
    slabside_stats(&full);
    for (int i = 0; i < COUNT; i++)
        slabside_free(blocks[i]);
    slabside_stats(&empty);
    printf("live %zu bytes in %zu slabs, then %zu in %zu\n", full.live, full.slabs, empty.live, empty.slabs);
    printf("break %zu bytes, then %zu\n", full.break_bytes, empty.break_bytes);
    return 0;
}

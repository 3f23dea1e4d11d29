/* Tells on whose heap it runs: "replaced" where malloc is slabside's, "beside" where it is another's. */
#include <slabside.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    struct slabside_stats before, after;
    char *block = slabside_malloc(100);
    slabside_stats(&before);
    char *large = malloc(4 << 20);
    if (!block || !large || slabside_usable_size(block) < 100)
        return 1;
    slabside_stats(&after);
    puts(after.large > before.large ? "replaced" : "beside");
    free(large);
    slabside_free(block);
    return slabside_validate() != 0;
}

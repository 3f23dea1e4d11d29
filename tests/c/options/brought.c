/* Options that the program brings: they count, but for what it sets itself (argument "sets"). */
#include "../tools.h"

const char *slabside_options = "limit-hard:8MB,misuse=report,dekay:1";

int main(int count, char **arguments) {
    int sets = count > 1 && strcmp(arguments[1], "sets") == 0;
    if (sets)
        CHECK(slabside_option_set("limit-hard", "32MB") == 0);
    void *block = take(16 * MIB);
    give(block);
    puts(block ? "had" : "refused");
    return 0;
}

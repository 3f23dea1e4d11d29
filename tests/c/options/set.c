/* Options by the program: before the first allocation, wrong ones, and too late. */
#include "../tools.h"

int main(void) {
    CHECK(slabside_option_set("dekay", "1") == EINVAL);
    CHECK(slabside_option_set("decay", "soon") == EINVAL);
    CHECK(slabside_option_set("decay:1,misuse", "report") == EINVAL);
    CHECK(slabside_option_set("", "") == EINVAL);
    CHECK(slabside_option_set(NULL, "1") == EINVAL);
    CHECK(slabside_option_set("limit-hard", "1m") == 0);
    CHECK(slabside_option_set("realloc-zero", "free") == 0);
    CHECK(take(2 * MIB) == NULL && errno == ENOMEM);
    void *block = take(100);
    CHECK(block != NULL);
    CHECK(resize(block, 0) == NULL);
    CHECK(slabside_option_set("limit-hard", "0") == EBUSY);
    CHECK(slabside_option_set("limit-hard", "some") == EINVAL);
    CHECK(slabside_option_set("guard-sample", "x") == EINVAL);
    CHECK(slabside_option_set("guard-sample", "0") == 0);
    CHECK(take(2 * MIB) == NULL);
    return 0;
}

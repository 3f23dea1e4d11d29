/* usage: opens LIBRARY | opens - opens a C++ library apart from the rest, whose exceptions still work; or
 * calls operator new where there is no C++ at all. */
#include "../tools.h"

#include <dlfcn.h>

int main(int argc, char **argv) {
    if (argc > 1) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL);
        int (*run)(void) = (int (*)(void))dlsym(library, "runs_out_of_memory");
        for (int i = 0; i < 10; i++) CHECK(run() == 42);
        return 0;
    }
    void *(*operator_new)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "_Znwm");
    CHECK(operator_new != NULL);
    give(operator_new(100));
    operator_new(opaque_size((size_t)1 << 60));
    return 0;
}

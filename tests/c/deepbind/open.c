/* usage: open HOW PLUGIN [OPENER] - opens PLUGIN by RTLD_DEEPBIND, by dlopen, by dlmopen, or by a library OPENER, and
   frees and resizes its blocks, and has it free and resize those of the program. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            dprintf(2, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, dlerror()); \
            _exit(1);                                                                  \
        }                                                                              \
    } while (0)

static void *open_by(const char *how, const char *plugin, const char *opener) {
    int mode = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;
    if (!strcmp(how, "dlopen")) return dlopen(plugin, mode);
    if (!strcmp(how, "dlmopen")) return dlmopen(LM_ID_BASE, plugin, mode);
    void *library = dlopen(opener, RTLD_NOW);
    CHECK(library);
    void *(*open)(const char *, int) = (void *(*)(const char *, int))dlsym(library, "open_for_us");
    CHECK(open);
    return open(plugin, mode);
}

int main(int count, char **arguments) {
    CHECK(count >= 3);
    CHECK(!dlopen("no-such-library.so", RTLD_NOW | RTLD_DEEPBIND) && dlerror());
    void *plugin = open_by(arguments[1], arguments[2], arguments[3]);
    CHECK(plugin);
    char *(*word)(void) = (char *(*)(void))dlsym(plugin, "plugin_word");
    void (*take)(char *) = (void (*)(char *))dlsym(plugin, "plugin_take");
    char *(*longer)(char *, size_t) = (char *(*)(char *, size_t))dlsym(plugin, "plugin_longer");
    void *(*block)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_block");
    CHECK(word && take && longer && block);
    for (int i = 0; i < 1000; i++) {
        char *one = realloc(word(), 100);
        CHECK(!strcmp(one, "a word of the plug-in's"));
        free(one);
        char *other = longer(strdup("a word of the program's"), 200);
        CHECK(!strcmp(other, "a word of the program's"));
        take(other);
        free(block(1 + i * 997 % 300000));
    }
    puts("ok");
    return 0;
}

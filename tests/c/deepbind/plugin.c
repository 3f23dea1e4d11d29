/* A plug-in that hands blocks over in both directions. */
#include <stdlib.h>
#include <string.h>

char *plugin_word(void) { return strdup("a word of the plug-in's"); }
void plugin_take(char *word) { free(word); }
char *plugin_longer(char *word, size_t size) { return realloc(word, size); }
void *plugin_block(size_t size) { return malloc(size); }

/* usage: apart [alone] - all metadata lies apart: neighbours touch, a freed slot's bytes stay as they are, and no word of user
 * memory points into the metadata, or was written by anyone but the program. The last is looked at where
 * this program is alone on the heap. */
#include "tools.h"

enum { COUNT = 2000, RANGES = 64 };
static void *object[COUNT];
static struct range { uintptr_t start, end; } before[RANGES], after[RANGES];

static void neighbours_touch(size_t size) {
    size_t touching = 0;
    for (int i = 0; i < COUNT; i++) object[i] = memset(take(size), 0xa5, size);
    sort_addresses(object, COUNT);
    for (int i = 1; i < COUNT; i++) {
        size_t apart = (size_t)((char *)object[i] - (char *)object[i - 1]);
        CHECK(apart >= size);
        touching += apart == size;
    }
    CHECK(touching >= COUNT / 2);
}

/* Every other one is freed, so that no slab is ever empty and goes back. */
static void freed_bytes_stay(size_t size) {
    for (int i = 0; i < COUNT; i++) object[i] = memset(take(size), 0xa5, size);
    for (int i = 0; i < COUNT; i += 2) give(object[i]);
    for (int i = 0; i < 1000; i++) give(memset(take(8000 - size), 0xa5, 8000 - size));
    for (int i = 0; i < COUNT; i++) CHECK(all_are(object[i], 0xa5, size));
    for (int i = 1; i < COUNT; i += 2) give(object[i]);
}

/* The ranges of /proc/self/maps, without those of the heap and the stack. */
static size_t ranges(struct range *range) {
    static char text[65536];
    size_t length = 0, count = 0;
    int file = open("/proc/self/maps", O_RDONLY);
    for (ssize_t n; (n = read(file, text + length, sizeof text - 1 - length)) > 0;) length += (size_t)n;
    close(file);
    text[length] = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = 0;
        if (strstr(line, "[heap]") || strstr(line, "[stack]")) continue;
        CHECK(count < RANGES && sscanf(line, "%lx-%lx", &range[count].start, &range[count].end) == 2);
        count++;
    }
    return count;
}

static bool within(const struct range *range, size_t count, uintptr_t word) {
    for (size_t i = 0; i < count; i++)
        if (range[i].start <= word && word < range[i].end) return true;
    return false;
}

/* What was mapped since the start, small requests alone having been made, is metadata. */
static void no_word_leads_out(uintptr_t *word, uintptr_t *end, size_t old_ranges) {
    size_t count = ranges(after), fresh = 0;
    for (size_t i = 0; i < count; i++) fresh += !within(before, old_ranges, after[i].start);
    CHECK(fresh > 0);
    for (; word < end; word++) {
        if (*word == 0 || *word == 0xa5a5a5a5a5a5a5a5) continue;
        CHECK(!within(after, count, *word) || within(before, old_ranges, *word));
        CHECK(!"a word that the program did not write");
    }
}

int main(int argc, char **argv) {
    (void)argv;
    size_t old_ranges = ranges(before);
    uintptr_t *start = (uintptr_t *)(((uintptr_t)break_now() + 7) & -(uintptr_t)8);
    for (size_t size = 8; size <= 4096; size *= 2) neighbours_touch(size);
    for (size_t size = 8; size <= 2000; size += 88) freed_bytes_stay(size);
    for (int i = 0; i < COUNT; i++) object[i] = memset(take(20000), 0xa5, 20000);
    for (int i = 0; i < COUNT; i += 2) give(object[i]);
    if (argc > 1) no_word_leads_out(start, (uintptr_t *)break_now(), old_ranges);
    sound();
    return 0;
}

/* attack:     a write to the allocator's settings, secrets and places of its tables
 * default:    sound: nothing is sealed
 * hardened:   fault
 * certainty:  hardened: always, for what never changes after the start
 * mechanism:  hardened: pages made read-only, and sealed where the kernel can */
#define _GNU_SOURCE
#include "misuse.h"

#include <link.h>
#include <sys/wait.h>

enum { MOST = 16 };
static struct { uintptr_t start, end; } written[MOST];
static int parts;

/* The parts of programs and libraries that the linker lets be written to for good. */
static int note(struct dl_phdr_info *info, size_t bytes, void *unused) {
    (void)bytes, (void)unused;
    uintptr_t fixed = 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_RELRO)
            fixed = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    for (int i = 0; i < info->dlpi_phnum && parts < MOST; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + part->p_vaddr, end = start + part->p_memsz;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_W)) continue;
        written[parts].start = start < fixed && fixed <= end ? (fixed + 4095) & ~4095ul : start & ~4095ul;
        written[parts++].end = end;
    }
    return 0;
}

/* Pages in one of them that are read-only: how many, and the `which`-th in `page`. */
static int sealed(int which, uintptr_t *page) {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    char line[512], mode[5];
    uintptr_t start, end;
    int found = 0;
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3 || strcmp(mode, "r--p") != 0) continue;
        for (int i = 0; i < parts; i++)
            for (uintptr_t at = start; at < end; at += 4096)
                if (at >= written[i].start && at < written[i].end && found++ == which) *page = at;
    }
    fclose(maps);
    return found;
}

int main(void) {
    give(take(48));
    dl_iterate_phdr(note, NULL);
    uintptr_t page = 0;
    int pages = sealed(0, &page);
    if (pages == 0) return go_on("nothing is sealed");
    CHECK(pages >= 3);
    /* Each of them faults: the others in children. */
    for (int i = 1; i < pages; i++) {
        sealed(i, &page);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            *(volatile char *)page = 1;
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status));
    }
    sealed(0, &page);
    *(volatile char *)page = 1;
    return go_on("nothing is sealed");
}

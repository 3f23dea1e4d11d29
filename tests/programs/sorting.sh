# Sorting in memory, by several threads, and by merging files, in a locale that compares slowly.
awk 'BEGIN {
    x = 42;
    for (i = 0; i < 150000; i++) {
        x = (x * 69069 + 1) % 4294967296;
        printf "%d %s%d\n", x % 100000, substr("abcdefghijklmnopqrstuvwxyz", 1 + x % 20, 1 + x % 6), i;
    }
}' >lines
export LC_ALL=C.UTF-8
cksum lines
sort --parallel=4 -S 64M lines | cksum
sort --parallel=2 -S 1M -T . -n -k1,1 -k2,2r lines | cksum
sort -u -k2,2 -t' ' lines | wc -l
cut -d' ' -f1 lines | sort -n | uniq -c | sort -rn | head -3

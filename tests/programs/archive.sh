# Headers are packed by tar and xz, in two threads, and unpacked again.
tar --sort=name -C /usr/include -cf - linux | xz -1 -T2 --block-size=1MiB >linux.tar.xz
cksum linux.tar.xz
tar -tJf linux.tar.xz | wc -l
mkdir out
tar -C out -xJf linux.tar.xz
diff -r out/linux /usr/include/linux && echo same
xz -t -v linux.tar.xz 2>/dev/null
xz -dc linux.tar.xz | xz -6 -c | cksum

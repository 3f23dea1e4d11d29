# The compiler's output, in C and in C++, and what the program that it made says.
gcc -O2 -S -I "$PROGRAMS/../../include" -o exchange.s "$PROGRAMS/../c/threads/exchange.c"
cksum exchange.s
g++ -std=c++17 -O1 -c -o compile.o "$PROGRAMS/compile.cc"
cksum compile.o
g++ -o compiled compile.o
./compiled

// A static C++ program on libslabside_preload.a.
#include <cstdio>
#include <iostream>
#include <map>
#include <new>
#include <string>
#include <vector>

extern "C" size_t slabside_validate(void);
extern "C" size_t slabside_good_size(size_t);
extern "C" size_t malloc_usable_size(void *);

int main() {
    std::map<std::string, std::vector<int>> words;
    for (int i = 0; i < 10000; i++) words[std::to_string(i % 100)].push_back(i);
    int *one = new int[100];
    bool ours = malloc_usable_size(one) == slabside_good_size(400);
    delete[] one;
    bool caught = false;
    try {
        std::vector<char> bytes(size_t(1) << 60);
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    std::cout << (ours && caught && words["7"].size() == 100 && slabside_validate() == 0 ? "done" : "wrong") << std::endl;
    return 0;
}

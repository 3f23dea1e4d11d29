// Enough of the standard library that the compiler fills many megabytes with small objects.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>

template <int N> struct Tower {
    std::map<int, std::vector<std::string>> floor;
    Tower<N - 1> rest;
    int height() const { return static_cast<int>(floor.size()) + rest.height(); }
};
template <> struct Tower<0> {
    int height() const { return 0; }
};

int main() {
    std::unordered_map<std::string, std::function<int(int)>> table;
    table["twice"] = [](int x) { return 2 * x; };
    table["next"] = [](int x) { return x + 1; };
    auto tower = std::make_unique<Tower<40>>();
    tower->floor[1].push_back("ground");
    std::vector<std::string> words{"slab", "slot", "span", "page"};
    std::sort(words.begin(), words.end(), std::greater<>());
    std::regex pattern("s(l|p)a[a-z]*");
    for (const auto &word : words)
        if (std::regex_match(word, pattern)) std::cout << word << ' ' << table["twice"](tower->height()) << '\n';
}

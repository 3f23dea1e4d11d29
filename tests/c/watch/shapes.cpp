// Objects of two classes, and texts of which most are alike: what the blocks are is to be told from outside. Says "ready".
// shapes
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

struct Shape {
    virtual ~Shape() {}
    virtual double area() const = 0;
    void *payload = nullptr;
};

struct Circle : Shape {
    double area() const override { return radius * radius * 3.14; }
    double radius = 1;
};

struct Square : Shape {
    double area() const override { return side * side; }
    double side = 1, room[20] = {};
};

std::vector<Shape *> shapes;
std::vector<char *> texts;

} // namespace

int main() {
    for (int i = 0; i < 500; i++)
        shapes.push_back(new Circle);
    for (int i = 0; i < 300; i++)
        shapes.push_back(new Square);
    for (int i = 0; i < 400; i++)
        texts.push_back(strdup("said by four hundred blocks"));
    for (int i = 0; i < 70; i++)
        texts.push_back(strdup(("said once: " + std::to_string(1000 + i)).c_str()));
    double sum = 0;
    for (Shape *shape : shapes)
        sum += shape->area();
    if (sum <= 0 || write(STDOUT_FILENO, "ready\n", 6) != 6)
        abort();
    for (;;)
        pause();
}

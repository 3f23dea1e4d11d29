/* The C++ server of the guide. It serves requests that it makes up. Sessions have requests in their log, and are looked
 * up by name. It forgets some sessions while two lead to each other, and some answers. */
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

struct Request {
    virtual ~Request() = default;
    std::string text;
};

struct Session {
    virtual ~Session() = default;
    std::string name;
    Session *peer = nullptr;
    std::vector<Request *> log;
};

struct Answer {
    virtual ~Answer() = default;
    uint64_t number = 0;
    std::string text;
};

static std::map<std::string, Session *> sessions;
static Answer *volatile last;
static uint64_t state = 88172645463325252u;

static uint64_t random_number() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

__attribute__((noinline)) static Request *parse_request(uint64_t number) {
    auto *request = new Request;
    request->text = "GET /a/path/of/some/length/" + std::to_string(number % 7) + " HTTP/1.1";
    return request;
}

__attribute__((noinline)) static Session *find_session(const std::string &name) {
    Session *&session = sessions[name];
    if (!session) {
        session = new Session;
        session->name = name;
    }
    return session;
}

/* Two sessions that lead to each other leave the map, and nobody deletes them. */
__attribute__((noinline)) static void drop_session(const std::string &name) {
    auto found = sessions.find(name);
    if (found == sessions.end())
        return;
    auto *peer = new Session;
    peer->name = "the peer of a session, " + name;
    peer->peer = found->second;
    found->second->peer = peer;
    sessions.erase(found);
}

/* Each answer takes the place of the one before, which nobody deletes if it is long. */
__attribute__((noinline)) static void answer(uint64_t number) {
    auto *answer = new Answer;
    answer->number = number;
    answer->text = std::string(number % 100, 'a');
    Answer *before = last;
    last = answer;
    if (before && before->text.size() < 90)
        delete before;
}

static void serve() {
    uint64_t number = random_number();
    std::string name = "the session of client " + std::to_string(number % 20000);
    find_session(name)->log.push_back(parse_request(number));
    answer(number >> 20);
    if (number % 97 == 0)
        drop_session(name);
}

int main() {
    for (int i = 0; i < 60000; i++)
        serve();
    std::puts("ready");
    std::fflush(stdout);
    for (;;) {
        for (int i = 0; i < 20; i++)
            serve();
        usleep(5000);
    }
}

/* attack:     write after free, when somebody else has the slot
 * default:    sound: nothing of the heap lies there
 * hardened:   abort: write after free
 * certainty:  default: never; hardened: when the slot is used again, unless it was reused before
 * mechanism:  quarantine, zero on free */
#include "misuse.h"

int main(void) {
    char *p = one_of_some(48), *again = NULL;
    give(p);
    for (int i = 0; i < 1000 && (again = take(48)) != p; i++) continue;
    fill(p, 48);
    CHECK(p != again || reads_as(again, 0x5a, 48)); /* the new owner's bytes are changed: nobody can tell */
    use_again(48);
    return go_on("nothing of the heap lies there");
}

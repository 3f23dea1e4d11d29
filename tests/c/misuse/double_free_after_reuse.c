/* attack:     double free after the slot went to somebody else
 * default:    sound: the new owner's block was freed or abort: double free of P
 * hardened:   abort: double free of P
 * certainty:  default: never; hardened: while the block is in quarantine
 * mechanism:  quarantine */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48), *again;
    give(p);
    for (int i = 0; i < 100000 && (again = take(48)) != p; i++) give(again);
    give(p);
    return go_on(p == again ? "the new owner's block was freed" : "it was not reused");
}

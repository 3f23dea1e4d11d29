/* attack:     double free after the slot went to somebody else
 * default:    sound: the new owner's block was freed
 * hardened:   sound: the new owner's block was freed
 * certainty:  never: the slot is live again
 * mechanism:  none; hardened: quarantine puts it off */
#include "misuse.h"

int main(void) {
    void *p = one_of_some(48), *again;
    give(p);
    for (int i = 0; i < 100000 && (again = take(48)) != p; i++) give(again);
    give(p);
    return go_on(p == again ? "the new owner's block was freed" : "it was not reused");
}

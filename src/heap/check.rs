//! Checking that a heap's lists, states and credits agree.

use super::{place, Ground, Heap};
use crate::geometry::{bit_of, word_of, WORD_SLOTS};
use crate::os::Os;
use crate::remote::PENDING;
use crate::slab::{List, SlabPtr, SlabTable, State};
use crate::sync::Ordering::Relaxed;

impl Heap {
    /// Number of broken invariants of this heap's lists, while nobody else is at work.
    pub fn validate<O: Os>(&self, ground: &Ground<O>) -> usize {
        let mut wrong = 0;
        let (mut listed, mut owned) = (0, 0);
        for (class, this) in self.classes.iter().enumerate() {
            let of_class = self.validate_lists(ground, class, &mut wrong)
                + usize::from(this.active.get() != 0);
            wrong += usize::from(of_class != this.owned.get() as usize);
            listed += of_class;
        }
        let mut bytes = 0;
        for bin in &self.bins {
            bytes += each(bin, ground.table()).map(SlabPtr::size).sum::<usize>();
            listed += each(bin, ground.table()).count();
        }
        listed += each(&self.spans, ground.table()).count();
        wrong += usize::from(bytes != self.binned_bytes.get());
        ground.pages.each_slab(|slab| {
            owned += usize::from(slab.owner.load(Relaxed) & !PENDING == self.me())
        });
        wrong + usize::from(listed != owned)
    }

    pub(super) fn validate_lists<O: Os>(
        &self,
        ground: &Ground<O>,
        class: usize,
        wrong: &mut usize,
    ) -> usize {
        let this = &self.classes[class];
        let mut listed = 0;
        for (list, state) in [
            (&this.partial, State::Partial),
            (&this.sparse, State::Sparse),
            (&this.full, State::Full),
        ] {
            for slab in each(list, ground.table()) {
                listed += 1;
                let (free, slots) = (slab.count_free(), slab.slots());
                let spent = place(free, slots).1 != slab.credit.get() && state != State::Sparse;
                let ours = slab.owner.load(Relaxed) & !PENDING == self.me();
                let tail = slab.words() * WORD_SLOTS > slots
                    && slab.free_word(word_of(slots)).load(Relaxed) & bit_of(slots) == 0;
                *wrong +=
                    usize::from(slab.state() != state || slab.class() != class || !ours || tail)
                        + usize::from(spent && state == State::Partial);
            }
        }
        listed
    }
}

fn each(list: &List, table: SlabTable) -> impl Iterator<Item = SlabPtr> + '_ {
    core::iter::successors(list.first(table), move |&slab| list.after(table, slab))
}

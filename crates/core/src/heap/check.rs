//! Checking that a heap's lists, states and counts of frees left agree.

use super::thin::frees_until_event;
use super::{place, HeapRef};
use crate::class::ClassId;
use crate::os::Os;
use crate::remote::is_queued;
use crate::slab::{SlabPtr, State};
use crate::sync::Ordering::Relaxed;
use crate::units::{Slot, WORD_SLOTS};

impl<O: Os> HeapRef<'_, O> {
    /// Number of broken invariants of this heap's lists, while nobody else is at work.
    pub fn validate(self) -> usize {
        let mut wrong = 0;
        let (mut listed, mut owned) = (0, 0);
        for class in ClassId::all() {
            listed += self.validate_class(class, &mut wrong);
        }
        let mut bytes = 0;
        for bin in &self.bins {
            bytes += bin.iter(self.table()).map(SlabPtr::size).sum::<usize>();
            let kept = |slab: &SlabPtr| slab.state() == State::Binned && slab.is_free(Slot::FIRST);
            wrong += bin.iter(self.table()).filter(|slab| !kept(slab)).count();
        }
        let spans = || self.spans.iter(self.table());
        listed += spans().count();
        let known = |slab: &SlabPtr| match slab.state() {
            State::Active => self.active_spans().any(|active| active == *slab),
            // What a handler in a slow path freed waits in the queue.
            State::Full => {
                !slab.is_free(Slot::FIRST) || slab.frees_left.get() <= 0 || is_queued(*slab)
            }
            state => state == State::Binned,
        };
        wrong += spans().filter(|slab| !known(slab)).count();
        let live = spans().filter(|slab| slab.state() == State::Full);
        wrong += usize::from(live.map(SlabPtr::size).sum::<usize>() != self.span_bytes.get());
        for slab in self.active_spans() {
            wrong += usize::from(slab.state() != State::Active || !slab.is_span());
        }
        wrong += spans().filter(|slab| self.is_forgotten(*slab)).count();
        wrong += usize::from(bytes != self.binned_bytes.get());
        self.backend
            .pages
            .each_slab(|slab| owned += usize::from(slab.owner.load(Relaxed).is_of(self.me())));
        wrong + usize::from(listed != owned)
    }

    /// Number of slabs of `class`.
    fn validate_class(self, class: ClassId, wrong: &mut usize) -> usize {
        let this = &self.classes[class.index()];
        let table = self.table();
        let mut count = 0;
        let mut check = |slab: SlabPtr, state| {
            count += 1;
            *wrong += usize::from(slab.state() != state || self.is_wrong(slab, class));
        };
        if let Some(slab) = self.active(class) {
            check(slab, State::Active);
        }
        this.partial
            .iter(table)
            .for_each(|slab| check(slab, State::Partial));
        this.sparse
            .iter(table)
            .for_each(|slab| check(slab, State::Sparse));
        this.full
            .iter(table)
            .for_each(|slab| check(slab, State::Full));
        count
    }

    /// Whether the state, the `frees_left` or the bits of `slab`, of `class`, are not what they should be.
    fn is_wrong(self, slab: SlabPtr, class: ClassId) -> bool {
        let (free, slots) = (slab.count_free(), slab.slots());
        let tail = slab.words() * WORD_SLOTS > slots && !slab.is_free(Slot::new(slots));
        let ours = slab.owner.load(Relaxed).is_of(self.me());
        let placed = match slab.state() {
            State::Active => true,
            State::Sparse => place(slab, free) == (State::Partial, slab.frees_left.get()),
            // One of slots above 1 KiB waits for its turn since it was used up.
            State::Partial if free == 0 && class.upper().is_some() => {
                frees_until_event(slab, slots, slots) == slab.frees_left.get()
            }
            state => place(slab, free) == (state, slab.frees_left.get()),
        };
        tail || !ours || !placed || slab.class() != class || self.is_forgotten(slab)
    }

    /// Whether frees wait in `slab`, of this heap, and nothing has them collected: it is in no queue, and no active one
    /// that a request leaves.
    fn is_forgotten(self, slab: SlabPtr) -> bool {
        let waits = slab.owner.load(Relaxed) != self.me() || slab.any_remote();
        waits && !is_queued(slab) && !self.is_left(slab)
    }
}

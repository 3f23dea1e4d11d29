//! Checking that a heap's lists, states and counts of frees left agree.

use super::{place, Backend, Heap};
use crate::os::Os;
use crate::remote::is_queued;
use crate::slab::{List, SlabPtr, SlabTable, Stack, State};
use crate::sync::Ordering::Relaxed;
use crate::units::{bit_of, word_of, WORD_SLOTS};

impl Heap {
    /// Number of broken invariants of this heap's lists, while nobody else is at work.
    pub fn validate<O: Os>(&self, backend: &Backend<O>) -> usize {
        let mut wrong = 0;
        let (mut listed, mut owned) = (0, 0);
        for class in 0..self.classes.len() {
            listed += self.validate_class(backend, class, &mut wrong);
        }
        let mut bytes = 0;
        for bin in &self.bins {
            bytes += each(bin, backend.table()).map(SlabPtr::size).sum::<usize>();
            let kept = |slab: &SlabPtr| slab.state() == State::Binned && slab.is_free(0);
            wrong += each(bin, backend.table())
                .filter(|slab| !kept(slab))
                .count();
        }
        let spans = || each(&self.spans, backend.table());
        listed += spans().count();
        let known = |slab: &SlabPtr| match slab.state() {
            State::Active => self.active_spans().any(|active| active == *slab),
            // What a handler in a slow path freed waits in the queue.
            State::Full => !slab.is_free(0) || slab.frees_left.get() <= 0 || is_queued(*slab),
            state => state == State::Binned,
        };
        wrong += spans().filter(|slab| !known(slab)).count();
        let live = spans().filter(|slab| slab.state() == State::Full);
        wrong += usize::from(live.map(SlabPtr::size).sum::<usize>() != self.span_bytes.get());
        for slab in self.active_spans() {
            wrong += usize::from(slab.state() != State::Active || !slab.is_span());
        }
        wrong += usize::from(bytes != self.binned_bytes.get());
        backend
            .pages
            .each_slab(|slab| owned += usize::from(slab.owner.load(Relaxed).is_of(self.me())));
        wrong + usize::from(listed != owned)
    }

    /// Number of slabs of `class`.
    fn validate_class<O: Os>(
        &self,
        backend: &Backend<O>,
        class: usize,
        wrong: &mut usize,
    ) -> usize {
        let this = &self.classes[class];
        let table = backend.table();
        let mut count = 0;
        let mut check = |slab: SlabPtr, state| {
            count += 1;
            *wrong += usize::from(slab.state() != state || self.is_wrong(slab, class));
        };
        if let Some(slab) = self.active(table, class) {
            check(slab, State::Active);
        }
        each(&this.partial, table).for_each(|slab| check(slab, State::Partial));
        stacked(&this.sparse, table).for_each(|slab| check(slab, State::Sparse));
        stacked(&this.full, table).for_each(|slab| check(slab, State::Full));
        count
    }

    /// Whether the state, the `frees_left` or the bits of `slab`, of `class`, are not what they should be.
    fn is_wrong(&self, slab: SlabPtr, class: usize) -> bool {
        let (free, slots) = (slab.count_free(), slab.slots());
        let tail = slab.words() * WORD_SLOTS > slots
            && slab.free_word(word_of(slots)).load(Relaxed) & bit_of(slots) == 0;
        let ours = slab.owner.load(Relaxed).is_of(self.me());
        let placed = match slab.state() {
            State::Active => true,
            State::Sparse => place(free, slots) == (State::Partial, slab.frees_left.get()),
            state => place(free, slots) == (state, slab.frees_left.get()),
        };
        tail || !ours || !placed || slab.class() != class
    }
}

fn each<const LINKS: usize>(
    list: &List<LINKS>,
    table: SlabTable,
) -> impl Iterator<Item = SlabPtr> + '_ {
    core::iter::successors(list.first(table), move |&slab| list.after(table, slab))
}

fn stacked(stack: &Stack, table: SlabTable) -> impl Iterator<Item = SlabPtr> + '_ {
    core::iter::successors(stack.first(table), move |&slab| stack.after(table, slab))
}

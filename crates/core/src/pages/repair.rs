//! Deriving everything from the slab headers again, and checking that it agrees.

use super::headers::{Headers, Numbers};
use super::window::Window;
use super::{Inner, Pages};
use crate::class::slot_at;
use crate::free_runs::Runs;
use crate::mutex::Lock;
use crate::owner::RELEASED;
use crate::slab::{SlabPtr, State};
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use crate::units::{PageNo, SlabId, Slot, PAGE};

impl Pages {
    /// A thread is about to fork: from now on nobody begins to move the break. The kernel copies where the break stands
    /// before it copies the mappings (`dup_mmap`). So a move in between would leave the child with a break that does
    /// not end its heap.
    pub fn hold_break(&self) {
        self.forking.fetch_add(1, SeqCst);
    }

    /// Waits until a thread that had begun to move the break has done so. It waits for nobody else.
    pub fn await_mover(&self) {
        drop(self.break_lock.lock());
    }

    /// The parent has forked.
    pub fn release_break(&self) {
        self.forking.fetch_sub(1, SeqCst);
    }

    /// The child was forked: nobody else is about to.
    pub fn free_break(&self) {
        self.forking.store(0, SeqCst);
    }

    /// Whether the break must stay where it is. Asked under the break lock.
    pub(super) fn break_is_held(&self) -> bool {
        self.forking.load(SeqCst) != 0
    }

    /// Shows every lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.inner.as_lock());
        visit(self.break_lock.as_lock());
        visit(self.ticking.as_lock());
    }

    /// Whether nobody holds the page lock, which is never held over a system call.
    pub fn page_lock_is_free(&self) -> bool {
        self.inner.as_lock().is_free()
    }

    /// In a fork child: derives everything from the headers again. The map says of each slab's pages what it did all the
    /// while: another thread may be freeing there by the fast path.
    pub fn rebuild(&self) {
        let inner = &mut *self.inner.lock();
        inner.runs.reset_counts();
        for index in 0..inner.used {
            let window = inner.windows[index];
            self.publish(index, &window, inner.used);
            inner.runs.restart(window.first, window.len);
            self.retake_foreign(inner, window);
        }
        inner.headers.spare = [0; 2];
        inner.kept.forget();
        self.each_header(inner.headers.numbers, |slab| {
            if slab.state() == State::Parked {
                let page = self.page_of(slab.base());
                inner.runs.take(page, slab.pages());
                self.set_map(page, slab.pages(), slab.id());
                slab.queue.store(0, Relaxed);
                inner.kept.put_again(slab);
            } else if slab.owner.load(Relaxed) == RELEASED || slab.state() == State::Released {
                slab.owner.store(RELEASED, Relaxed);
                slab.set_state(State::Released);
                slab.queue.store(0, Relaxed);
                inner.headers.give(slab);
            } else {
                let page = self.page_of(slab.base());
                inner.runs.take(page, slab.pages());
                self.set_map(page, slab.pages(), slab.id());
            }
        });
        for window in &inner.windows[..inner.used] {
            self.clear_free(&inner.runs, window);
        }
        for index in 0..inner.used {
            let end = inner.windows[index].end();
            inner.windows[index].tail = PageNo(
                (end.index() - inner.runs.free_before(end, inner.windows[index].first)) as u32,
            );
        }
    }

    /// Takes foreign pages again.
    fn retake_foreign(&self, inner: &mut Inner, window: Window) {
        for i in 0..window.len {
            let page = window.first.plus(i);
            if self.map_entry(page).load(Relaxed) == SlabId::FOREIGN.0 {
                inner.runs.take(page, 1);
            }
        }
    }

    /// Makes the map say nothing of all free pages.
    fn clear_free(&self, runs: &Runs, window: &Window) {
        let pages = (0..window.len).map(|i| window.first.plus(i));
        for page in pages.filter(|&page| runs.is_free(page, 1)) {
            self.map_entry(page).store(SlabId::NONE.0, Relaxed);
        }
    }

    pub(super) fn each_header(&self, numbers: Numbers, mut visit: impl FnMut(SlabPtr)) {
        let mut id = SlabId::FIRST.0;
        while id < numbers.made {
            let slab = self.table().get(SlabId(id));
            visit(slab);
            id = numbers.behind(id, Headers::kind(slab.class()) as u32 + 1);
        }
    }

    /// Calls `visit` for the header of every slab. Others may change them meanwhile.
    pub fn each_slab(&self, mut visit: impl FnMut(SlabPtr)) {
        let numbers = self.inner.lock().headers.numbers;
        self.each_header(numbers, |slab| {
            if !matches!(slab.state(), State::Released | State::Parked) {
                visit(slab);
            }
        });
    }

    /// The slab that was last made of a header and had a slot at `address`, in pages that are free now. The slab has
    /// gone back, and its header still says what it was. For a report: the walk goes over all headers.
    pub fn slab_gone_from(&self, address: usize) -> Option<(SlabPtr, Slot)> {
        let (_, now) = self.find(address)?;
        if now.id() != SlabId::NONE {
            return None;
        }
        // Whoever is in the middle of something there must not wait for itself.
        let numbers = self.inner.try_lock()?.headers.numbers;
        let mut found = None;
        self.each_header(numbers, |slab| {
            let offset = address.wrapping_sub(slab.base());
            if slab.state() == State::Released && offset < slab.pages() * PAGE {
                let (slot, exact) = slot_at(offset, slab.recip.load(Relaxed));
                if exact && slab.holds(slot) {
                    found = Some((slab, slot));
                }
            }
        });
        found
    }

    /// Number of broken invariants, while nobody else is at work. Each page is free, foreign or some slab's, and
    /// bitmaps, map, headers and counts must say the same.
    pub fn validate(&self) -> usize {
        let mut wrong = 0;
        let mut in_slabs = 0;
        self.each_slab(|slab| {
            in_slabs += slab.pages();
            let page = self.page_of(slab.base());
            wrong += (0..slab.pages())
                .filter(|&i| self.map_entry(page.plus(i)).load(Relaxed) != slab.id().0)
                .count();
        });
        let inner = &mut *self.inner.lock();
        in_slabs += inner.kept.count_pages(self.table());
        let mut mapped = 0;
        for window in &inner.windows[..inner.used] {
            for i in 0..window.len {
                let page = window.first.plus(i);
                let id = SlabId(self.map_entry(page).load(Relaxed));
                mapped += usize::from(id.is_some());
                wrong += usize::from(inner.runs.is_free(page, 1) != (id == SlabId::NONE));
            }
            let free = inner.runs.free_before(window.end(), window.first);
            wrong += usize::from(window.tail_pages() > free);
        }
        wrong += usize::from(mapped != in_slabs);
        wrong
            + inner
                .runs
                .validate(inner.windows[..inner.used].iter().map(Window::pages))
    }
}

//! The break: ours, and what a foreign `sbrk` takes of it.

use super::{Page, State};

impl State {
    pub(super) fn break_start(&self) -> usize {
        self.memory.base() + self.config.break_offset
    }

    pub(super) fn break_end(&self) -> Option<usize> {
        (self.config.break_bytes > 0).then_some(self.position)
    }

    /// Where `delta` moves the break to, if that lies in the break window.
    pub(super) fn target(&self, delta: isize) -> Option<usize> {
        let end = self.memory.base() + self.config.break_bytes;
        let target = self.position.checked_add_signed(delta)?;
        (self.break_start()..=end)
            .contains(&target)
            .then_some(target)
    }

    pub(super) fn move_break(&mut self, delta: isize) -> Option<usize> {
        if delta == 0 {
            return self.break_end();
        }
        let target = self.target(delta);
        if let Some(target) = target {
            self.expect_ours("move_break", target..self.position);
        }
        if self.fails() {
            return None;
        }
        self.set_break(target?)
    }

    /// Puts the break at `target`, which lies in the break window.
    pub(super) fn set_break(&mut self, target: usize) -> Option<usize> {
        let (old, new) = (self.pages_below(self.position), self.pages_below(target));
        let more = new.saturating_sub(old);
        if self.config.break_fails || !self.fits(more, more) {
            return None;
        }
        if new > old {
            self.make_usable(old..new, Page::Heap);
        } else {
            // SAFETY: whoever moves the break down gives up what lies above it.
            unsafe { self.make_absent(new..old) };
        }
        Some(core::mem::replace(&mut self.position, target))
    }

    pub(super) fn foreign_sbrk(&mut self, delta: isize) -> Option<usize> {
        if delta == 0 {
            return self.break_end();
        }
        let target = self.target(delta)?;
        if delta < 0 {
            let lowest = self.foreign.last().filter(|last| last.end == self.position);
            let owned = lowest.is_some_and(|last| last.start <= target);
            assert!(
                owned,
                "sim: foreign sbrk({delta}) gives back what is not foreign"
            );
        }
        let old = self.set_break(target)?;
        self.note_foreign(old, target);
        Some(old)
    }

    /// Notes that a foreign `sbrk` moved the break from `old` to `new`.
    pub(super) fn note_foreign(&mut self, old: usize, new: usize) {
        match self.foreign.last_mut() {
            Some(last) if last.end == old => last.end = new,
            _ => self.foreign.push(old..new),
        }
        self.foreign.retain(|range| !range.is_empty());
    }
}

//! Resizing: at its place over what is kept behind a block, or by moving its pages.
//!
//! Never copies. Does not know what a first-class heap is: a block that moves is noted as its `owner`'s.

use super::mappings::{count_live, moved_over, moved_to_room};
use super::range_index::Range;
use super::table::Record;
use super::{Block, Large};
use crate::counters;
use crate::meta::Supply;
use crate::os::{Moved, Vm};
use crate::owner::Owner;
use core::ptr::NonNull;

impl Large {
    /// Resizes the live `block`, moving it if need be. The contents stay up to the smaller size. A block that moves
    /// belongs to the first-class heap `owner` from then on (`Owner::NONE`: to none). `None`: nothing changed.
    pub fn remap<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        size: usize,
        owner: Owner,
    ) -> Option<Block> {
        let bytes = size.checked_next_multiple_of(supply.meta.os_page())?;
        if bytes == block.bytes {
            return Some(block);
        }
        if bytes < block.bytes {
            return self.shrink(supply, block, bytes);
        }
        let now = match self.grow_in_place(block, bytes) {
            Some(now) => now,
            None => self.move_to_room(supply, block, bytes, owner)?,
        };
        counters::subtract(&supply.meta.counters().live, block.bytes as u64);
        count_live(supply.meta, now.bytes);
        Some(now)
    }

    /// Grows a block over what is kept after it, if that is enough.
    pub(super) fn grow_in_place(&self, block: Block, bytes: usize) -> Option<Block> {
        let inner = &mut *self.inner.lock();
        let more = bytes - block.bytes;
        inner.live_record(block)?;
        let dirty = inner.kept.bytes();
        if !inner.take_behind(block.end(), more) {
            return None;
        }
        let now = inner.resize(block, bytes)?;
        // Room was never used: what went back might have been there.
        let used = dirty.saturating_sub(inner.kept.bytes());
        inner.miss(now, more.saturating_sub(used));
        Some(now)
    }

    /// Grows a block by moving it to where there is room after it for the next times.
    fn move_to_room<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
        owner: Owner,
    ) -> Option<Block> {
        let record = self.inner.lock().take_out_live(block)?;
        let over = self.move_over_kept(supply, block, bytes);
        let moved = over.or_else(|| moved_to_room(supply, block, bytes));
        let now = match moved {
            Some(moved) => Record {
                address: moved.address,
                bytes,
                owner,
                ..record
            },
            None => record,
        };
        let clock = supply.os.clock();
        let dropped = {
            let inner = &mut *self.inner.lock();
            inner.table.put_back(now);
            inner.count(now.block());
            if over.is_none() {
                inner.miss(now.block(), now.bytes - block.bytes);
            }
            let room = moved.filter(|moved| moved.bytes > bytes);
            room.and_then(|moved| inner.kept.put(Range::room(moved.behind(bytes), clock)))
        };
        self.unmap_dropped(supply, dropped);
        self.shed(supply, clock);
        moved.map(|_| now.block())
    }

    /// Moves a block in no record over the front of a kept range of `bytes` bytes or more: it then has the pages behind
    /// its own, which were used before.
    fn move_over_kept<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
    ) -> Option<Block> {
        let front = self.inner.lock().kept_to_move(bytes, bytes)?;
        match moved_over(supply, block, front.block()) {
            Moved::Done => return Some(front.block()),
            Moved::Refused | Moved::Scattered => {
                let dropped = self.inner.lock().kept.put(front);
                self.unmap_dropped(supply, dropped);
            }
            Moved::Lost => {
                let rest = front.block().behind(block.bytes);
                self.unmap_dropped(supply, Some(Range::freed(rest, front.since)));
            }
        }
        None
    }

    fn shrink<O: Vm>(&self, supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
        let clock = supply.os.clock();
        let dropped = {
            let inner = &mut *self.inner.lock();
            let now = inner.resize(block, bytes)?;
            inner.spare.learn(clock);
            inner.unseen = 0; // More is kept than was reckoned with.
            inner.put(block.behind(now.bytes), clock)
        };
        counters::subtract(&supply.meta.counters().live, (block.bytes - bytes) as u64);
        self.unmap_dropped(supply, dropped);
        self.shed(supply, clock);
        Some(Block { bytes, ..block })
    }

    /// Grows the live `block` at its place to at least `size` bytes. False if there is no room.
    pub fn expand<O: Vm>(&self, supply: Supply<O>, block: Block, size: usize) -> bool {
        let bytes = match size.checked_next_multiple_of(supply.meta.os_page()) {
            Some(bytes) if bytes > block.bytes => bytes,
            Some(_) => return true,
            None => return false,
        };
        let grown = self.grow_in_place(block, bytes);
        if grown.is_none() && self.expand_mapping(supply, block, bytes).is_none() {
            return false;
        }
        counters::subtract(&supply.meta.counters().live, block.bytes as u64);
        count_live(supply.meta, bytes);
        true
    }

    fn expand_mapping<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
    ) -> Option<Block> {
        let more = bytes - block.bytes;
        if !supply.meta.budget.charge(more) {
            return None;
        }
        let start = NonNull::new(block.address as *mut u8);
        // SAFETY: the caller owns the live block, so nobody unmaps it meanwhile.
        if !start.is_some_and(|start| unsafe { supply.os.stretch(start, block.bytes, bytes) }) {
            supply.meta.budget.refund(more);
            return None;
        }
        counters::add(&supply.meta.counters().mapped, more as u64);
        let inner = &mut *self.inner.lock();
        inner.miss(block, more);
        inner.resize(block, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large::reuse::RESTS_AMONG;
    use crate::large::{Found, GuardPages};
    use crate::mutex::Registry;
    use crate::units::PAGE;
    use std::vec;

    /// realloc has found a live block, and another thread frees it before the lock is taken: the record is not
    /// changed, nor what lies behind the block taken.
    #[test]
    fn a_block_that_came_to_rest_meanwhile_is_not_resized() {
        let large = Large::new(&mut Registry::new());
        let mut records = vec![
            Record::of(
                Block {
                    address: 0,
                    bytes: 0
                },
                0
            );
            256
        ];
        let block = |n: usize| Block {
            address: (1 << 30) + n * (40 * PAGE),
            bytes: 40 * PAGE,
        };
        {
            let inner = &mut *large.inner.lock();
            inner.rests = true;
            inner.table.move_to(records.as_mut_ptr(), 8);
            (0..RESTS_AMONG + 4).for_each(|n| assert!(inner.begin(block(n))));
            for n in [0, 1, 2] {
                let (found, dropped) = inner.free(block(n).address, 1);
                assert!(found == Found::Live(block(n)) && dropped.is_none());
                assert_eq!(inner.limit_rest(), 0);
            }
            assert_eq!(inner.kept.resting.count, 3);
            assert!(inner.resize(block(1), 20 * PAGE).is_none());
            assert!(inner.take_out_live(block(1)).is_none());
            assert_eq!(inner.validate(), 0);
        }
        assert!(large.grow_in_place(block(1), 80 * PAGE).is_none());
        large.set_owner(block(1).address, Owner::of_arena(1, 1));
        large.note(block(1).address, 1, GuardPages::Both);
        assert_eq!(large.owner_of(block(1).address), Owner::NONE);
        let inner = &mut *large.inner.lock();
        assert_eq!((inner.kept.resting.count, inner.validate()), (3, 0));
        assert_eq!(inner.wake(40 * PAGE), Some(block(2)));
        assert_eq!(inner.wake(40 * PAGE), Some(block(1)));
        assert_eq!(
            inner.noted(block(1).address),
            Some((block(1), 40 * PAGE, GuardPages::None))
        );
        assert_eq!(inner.validate(), 0);
    }
}

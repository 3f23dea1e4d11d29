//! Kept pages for what is mapped: they move into the new block, so that they are used again and no fresh one is.
//!
//! ```text
//!   stretch   [ kept ]            -->  [ kept | mapped         ]       one range is made as long as the block
//!   fill      [ kept ]  [ kept ]  -->  [ mapped | kept | kept  ]       the largest ranges move over its end
//!   apart     [ clear ]           -->  [ clear | mapped        ]       a block with a mapping of its own: over its front
//! ```
//!
//! Does not know what a block is for, nor records it.

use super::mappings::{gone, map_fresh, moved_over, remapped, widened};
use super::range_index::Range;
use super::reuse::KEPT_MAX;
use super::{Block, Inner, Large};
use crate::counters;
use crate::meta::Supply;
use crate::os::{Moved, Vm, MAPPINGS};
use core::ptr::NonNull;

/// The fewest kept bytes that are moved to where they are needed. Of fewer a heap stays so lean that the next request
/// finds no range either, and moves again.
const FILL_LEAST: usize = 2 << 20;
/// As [`FILL_LEAST`], of blocks that lie apart: the pages are clear, and each would be fresh.
pub const APART_LEAST: usize = 64 << 10;
/// The part of the mappings that a process may have which moved bytes may take, at [`FILL_LEAST`] each.
const MOVED_PART: usize = 32;

impl Large {
    /// A block for which something is mapped, and what that is.
    pub(super) fn map_anew<O: Vm>(
        &self,
        supply: Supply<O>,
        bytes: usize,
        align: usize,
    ) -> Option<(Block, Block)> {
        self.stretch(supply, bytes, align).or_else(|| {
            let block = map_fresh(supply, bytes, align)?;
            Some((block, block))
        })
    }

    /// Makes the largest kept range, if it is worth it, `bytes` long, so that its pages are used again. Says what was
    /// mapped for that.
    fn stretch<O: Vm>(
        &self,
        supply: Supply<O>,
        bytes: usize,
        align: usize,
    ) -> Option<(Block, Block)> {
        if align > supply.meta.os_page() || self.keeps_clear() {
            return None;
        }
        let short = self.inner.lock().kept.take_largest(bytes / 4..bytes)?;
        let old = short.block();
        if let Some(block) = widened(supply, old, bytes) {
            let new = match block.address == old.address {
                true => block.behind(old.bytes),
                false => Block {
                    bytes: bytes - old.bytes,
                    ..block
                },
            };
            return Some((block, new));
        }
        if let Some(block) = remapped(supply, old, bytes) {
            return Some((block, block.behind(old.bytes)));
        }
        let dropped = self.inner.lock().kept.put(short);
        self.unmap_dropped(supply, dropped);
        None
    }

    /// Moves kept pages over what was mapped just now, the part `new` of `block`, so that they are used again. Says how
    /// many bytes are left as they were. `None` where a part of the block was lost, and so all of it is given up.
    pub(super) fn fill<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        new: Block,
    ) -> Option<(Block, usize)> {
        if self.keeps_clear() {
            return self.fill_apart(supply, block);
        }
        let mut left = new.bytes;
        while left >= FILL_LEAST {
            let Some(kept) = self.inner.lock().kept_to_move(FILL_LEAST, left) else {
                break;
            };
            left -= kept.bytes;
            let to = Block {
                bytes: kept.bytes,
                ..new.behind(left)
            };
            let moved = moved_over(supply, kept.block(), to);
            match moved {
                Moved::Done => continue,
                // Its pages fit nowhere, and would be tried again.
                Moved::Scattered => {
                    left += kept.bytes;
                    match self.unmap_dropped(supply, Some(kept)) {
                        true => continue,
                        false => break,
                    }
                }
                Moved::Refused | Moved::Lost => {}
            }
            let dropped = self.inner.lock().kept.put(kept);
            self.unmap_dropped(supply, dropped);
            if moved == Moved::Refused {
                left += kept.bytes;
                break;
            }
            let before = Block {
                bytes: to.address - block.address,
                ..block
            };
            for part in [before, block.behind(before.bytes + to.bytes)] {
                let part = Some(part).filter(|part| part.bytes > 0);
                self.unmap_dropped(supply, part.map(|part| Range::freed(part, kept.since)));
            }
            return None;
        }
        Some((block, left))
    }

    /// As `fill`, of a block that has a mapping of its own and is to stay one: kept pages become its front.
    pub(super) fn fill_apart<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
    ) -> Option<(Block, usize)> {
        let kept = self.inner.lock().kept_to_move(APART_LEAST, block.bytes);
        let Some(kept) = kept.filter(|kept| kept.bytes <= block.bytes) else {
            return Some((block, block.bytes));
        };
        let (start, to) = (kept.address as *mut u8, block.address as *mut u8);
        let moved = match NonNull::new(start).zip(NonNull::new(to)) {
            // SAFETY: both ranges are in no record and not kept: nobody knows them.
            Some((start, to)) => unsafe { supply.os.move_in(start, kept.bytes, to, block.bytes) },
            None => Moved::Refused,
        };
        if moved == Moved::Done {
            gone(supply, kept.block());
            return Some((block, block.bytes - kept.bytes));
        }
        // What is locked by now, or cannot be moved, serves nobody.
        self.unmap_dropped(supply, Some(kept));
        if moved == Moved::Lost {
            gone(supply, block);
            return None;
        }
        Some((block, block.bytes))
    }

    /// How many of the `bytes` bytes of a block that was freed just now may be kept, if they are clear and lie apart. What is
    /// kept beyond the bound, which has fallen, goes back.
    pub fn may_keep<O: Vm>(&self, supply: Supply<O>, bytes: usize, now: u64) -> usize {
        let (part, over) = {
            let inner = &mut *self.inner.lock();
            if !inner.apart || !inner.kept.has_place() {
                return 0;
            }
            inner.spare.learn(now);
            let room = inner.bound().saturating_sub(inner.kept.bytes());
            let most = bytes.min(room).min(KEPT_MAX);
            let part = if most < APART_LEAST { 0 } else { most };
            inner.spare.give(bytes - part, now);
            (part, inner.surplus() > 0)
        };
        if over {
            self.shed(supply, now);
        }
        part
    }

    /// Keeps the first `bytes` bytes, which are clear, of a mapping that belongs to nobody for later blocks. The budget was
    /// charged for all of it.
    pub fn keep_clear<O: Vm>(&self, supply: Supply<O>, block: Block, bytes: usize, now: u64) {
        counters::add(&supply.meta.counters().mapped, block.bytes as u64);
        if bytes < block.bytes {
            self.unmap_dropped(supply, Some(Range::freed(block.behind(bytes), now)));
        }
        let (dropped, over, due) = {
            let inner = &mut *self.inner.lock();
            let kept = Some(Range::freed(Block { bytes, ..block }, now)).filter(|_| bytes > 0);
            let dropped = kept.and_then(|kept| inner.kept.put(kept));
            (dropped, inner.surplus() > 0, inner.is_due(now))
        };
        self.unmap_dropped(supply, dropped);
        // Others may have been told of the same room at once.
        if over {
            self.shed(supply, now);
        }
        if due {
            self.decay(supply, now);
        }
    }
}

impl Inner {
    /// Takes out the front of the largest kept range, as `RangeCache::front_of_largest`, to be moved. What is moved is a
    /// mapping apart from then on: beside very many bytes that live so far the process might come to have too many.
    pub(super) fn kept_to_move(&mut self, least: usize, most: usize) -> Option<Range> {
        let may = self.live_bytes / FILL_LEAST <= MAPPINGS / MOVED_PART;
        may.then(|| self.kept.front_of_largest(least, most))
            .flatten()
    }
}

//! Mappings made, moved and unmapped, with the budget charged and the counters told.
//!
//! Knows no record, no range and no lock: whoever calls has taken the mapping out of everybody's reach.

use super::Block;
use crate::counters;
use crate::meta::{Meta, Supply};
use crate::os::{Moved, Vm};
use core::ptr::NonNull;

/// The most address space taken for a block to grow into, in bytes.
const ROOM_MAX: usize = 256 << 20;

pub(super) fn map_fresh<O: Vm>(supply: Supply<O>, bytes: usize, align: usize) -> Option<Block> {
    if !supply.meta.budget.charge(bytes) {
        return None;
    }
    let Some(start) = supply.os.map(bytes, align) else {
        supply.meta.budget.refund(bytes);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, bytes as u64);
    let address = start.as_ptr() as usize;
    Some(Block { address, bytes })
}

/// Maps what a mapping that is in no record and not kept lacks to `bytes` bytes, before or after it. Nothing is moved.
/// The whole can still be moved later, which several mappings could not.
pub(super) fn widened<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let more = bytes - block.bytes;
    if !supply.meta.budget.charge(more) {
        return None;
    }
    let before = block.address.wrapping_sub(more);
    let address = if supply.os.map_at(before, more) {
        before
    } else if supply.os.map_at(block.end(), more) {
        block.address
    } else {
        supply.meta.budget.refund(more);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, more as u64);
    Some(Block { address, bytes })
}

/// Moves `from` over the front of `to`, neither of which is in a record or kept. What is lost is unmapped.
pub(super) fn moved_over<O: Vm>(supply: Supply<O>, from: Block, to: Block) -> Moved {
    let start = NonNull::new(from.address as *mut u8);
    let Some((start, over)) = start.zip(NonNull::new(to.address as *mut u8)) else {
        return Moved::Refused;
    };
    // SAFETY: the caller took both ranges out of everybody's reach.
    let moved = unsafe { supply.os.move_over(start, from.bytes, over) };
    match moved {
        Moved::Done => gone(supply, from),
        Moved::Refused | Moved::Scattered => {}
        Moved::Lost => gone(
            supply,
            Block {
                bytes: from.bytes,
                ..to
            },
        ),
    }
    moved
}

/// Moves a mapping that is in no record and not kept to where it has `bytes` bytes, with as much room again behind them
/// if it may.
pub(super) fn moved_to_room<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let room = bytes.saturating_add(bytes.min(ROOM_MAX));
    let may = supply.meta.budget.has(room - block.bytes) && !supply.os.locks_new_pages();
    may.then(|| remapped(supply, block, room))
        .flatten()
        .or_else(|| remapped(supply, block, bytes))
}

/// Makes a mapping that is in no record and not kept `bytes` bytes long, moving it if need be.
pub(super) fn remapped<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let start = NonNull::new(block.address as *mut u8)?;
    let more = bytes - block.bytes;
    if !supply.meta.budget.charge(more) {
        return None;
    }
    // SAFETY: the caller took the mapping out of everybody's reach.
    let Some(moved) = (unsafe { supply.os.remap(start, block.bytes, bytes) }) else {
        supply.meta.budget.refund(more);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, more as u64);
    Some(Block {
        address: moved.as_ptr() as usize,
        bytes,
    })
}

/// Whether the freed `block`, in no record and not kept, could be unmapped.
pub(super) fn unmapped<O: Vm>(supply: Supply<O>, block: Block) -> bool {
    let start = NonNull::new(block.address as *mut u8);
    // SAFETY: no record names the mapping and no other thread knows of it, so nobody uses the range.
    let done = start.is_some_and(|start| unsafe { supply.os.unmap(start, block.bytes) });
    if done {
        gone(supply, block);
    }
    done
}

/// What was mapped is no more.
pub(super) fn gone<O: Vm>(supply: Supply<O>, block: Block) {
    counters::subtract(&supply.meta.counters().mapped, block.bytes as u64);
    supply.meta.budget.refund(block.bytes);
}

/// A block of `bytes` bytes was freed.
#[inline]
pub(super) fn count_freed(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::subtract(&counters.large, 1);
    counters::subtract(&counters.live, bytes as u64);
}

/// A block of `bytes` bytes was handed out.
#[inline]
pub(super) fn count_one(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::add(&counters.large, 1);
    counters::add(&counters.handed_out, bytes as u64);
    counters::add_with_peak(&counters.live, &counters.peak, bytes as u64);
}

/// A live block that had been counted out has `bytes` bytes.
pub(super) fn count_live(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::add(&counters.handed_out, bytes as u64);
    counters::add_with_peak(&counters.live, &counters.peak, bytes as u64);
}

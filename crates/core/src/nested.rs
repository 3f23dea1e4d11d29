//! Blocks for a call of malloc inside a slow path of the same thread. A signal handler that interrupted it makes such a
//! call, or a function of the program's that the library called (its own `sbrk` or `memcpy`).
//!
//! ```text
//!   taken    1 1 1 0 0 1 0 ...     a bit a chunk, in the order of address
//!   sizes    9 5 - 0 0 3 0 ...     what was asked for plus one, where a block begins
//!   area     | 9 | 5 . . |       | 3 |     ...
//! ```
//!
//! Such a caller must wait for no lock, since its own thread may hold it. So there is none: a bit is taken and given
//! by one atomic operation. The area is mapped by the first such call, and few programs ever make one. It is small:
//! where it is used up the caller is refused, as it was before there was any.

use crate::misuse::{Call, Misuse};
use crate::os::Vm;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use crate::units::{bit_of, Slot, PAGE};
use core::ptr;

/// Bytes of a chunk.
const CHUNK: usize = PAGE;
/// Chunks, one bit of a word each.
const CHUNKS: usize = 64;
/// The most chunks of a block.
const MOST: usize = 16;

/// The area, and what of it is taken.
pub struct Nested {
    /// Where it lies. 0 means nowhere yet.
    start: AtomicUsize,
    taken: AtomicU64,
    sizes: [AtomicU32; CHUNKS],
}

impl Nested {
    /// No area yet.
    pub const fn new() -> Nested {
        Nested {
            start: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            sizes: [const { AtomicU32::new(0) }; CHUNKS],
        }
    }

    /// Whether `address` lies in the area.
    #[inline]
    pub fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Acquire);
        start != 0 && address.wrapping_sub(start) < CHUNKS * CHUNK
    }

    /// `size` zero bytes at a multiple of `align`. `None` if that is too much, or the area is used up.
    pub fn take<O: Vm>(&self, os: &O, size: usize, align: usize) -> Option<*mut u8> {
        let count = chunks_for(size);
        if count > MOST || align > CHUNK {
            return None;
        }
        let start = self.area(os)?;
        let first = self.take_chunks(count)?;
        let block = (start + first * CHUNK) as *mut u8;
        // SAFETY: chunks of the area that are this block's alone.
        unsafe { ptr::write_bytes(block, 0, size) };
        self.sizes[first].store(size as u32 + 1, Relaxed);
        Some(block)
    }

    fn area<O: Vm>(&self, os: &O) -> Option<usize> {
        let start = self.start.load(Acquire);
        if start != 0 {
            return Some(start);
        }
        let bytes = (CHUNKS * CHUNK).next_multiple_of(os.page_size());
        let area = os.map(bytes, CHUNK)?;
        let mine = area.as_ptr() as usize;
        match self.start.compare_exchange(0, mine, AcqRel, Acquire) {
            Ok(_) => Some(mine),
            Err(theirs) => {
                // SAFETY: another thread was faster, so nobody knows the address of this area.
                unsafe { os.unmap(area, bytes) };
                Some(theirs)
            }
        }
    }

    /// Takes `count` chunks in a row, the first ones that there are.
    fn take_chunks(&self, count: usize) -> Option<usize> {
        let mut taken = self.taken.load(Relaxed);
        loop {
            // A bit of `runs` says that so many free chunks begin there.
            let runs = (1..count).fold(!taken, |runs, more| runs & !taken >> more);
            if runs == 0 {
                return None;
            }
            let first = runs.trailing_zeros() as usize;
            let set = taken | row(first, count);
            match self.taken.compare_exchange(taken, set, AcqRel, Relaxed) {
                Ok(_) => return Some(first),
                Err(now) => taken = now,
            }
        }
    }

    /// Bytes asked for of the live block at `address`, which lies in the area.
    pub fn size(&self, address: usize, call: Call) -> Result<usize, Misuse> {
        let (first, noted) = self.find(address, call)?;
        match noted {
            0 => Err(dead(Slot::new(first), address, call)),
            noted => Ok(noted as usize - 1),
        }
    }

    /// Frees the block at `address`, which lies in the area.
    pub fn give(&self, address: usize) -> Result<(), Misuse> {
        let (first, _) = self.find(address, Call::Free)?;
        // Of two that free it at once one finds nothing.
        match self.sizes[first].swap(0, AcqRel) as usize {
            0 => Err(dead(Slot::new(first), address, Call::Free)),
            noted => {
                let count = chunks_for(noted - 1);
                self.taken.fetch_and(!row(first, count), AcqRel);
                Ok(())
            }
        }
    }

    /// The live block at `address`, which lies in the area, has no more than `size` bytes from now on.
    pub fn shrink(&self, address: usize, size: usize) {
        let Ok((first, noted)) = self.find(address, Call::Realloc) else {
            return;
        };
        if noted as usize > size + 1 {
            self.sizes[first].store(size as u32 + 1, Relaxed);
            let (old, new) = (chunks_for(noted as usize - 1), chunks_for(size));
            if new < old {
                let rest = row(first + new, old - new);
                self.taken.fetch_and(!rest, AcqRel);
            }
        }
    }

    /// The chunk that begins at `address`, and what is noted for it.
    fn find(&self, addr: usize, call: Call) -> Result<(usize, u32), Misuse> {
        let offset = addr - self.start.load(Acquire);
        if !offset.is_multiple_of(CHUNK) {
            return Err(Misuse::Unknown { call, addr });
        }
        let first = offset / CHUNK;
        Ok((first, self.sizes[first].load(Relaxed)))
    }
}

impl Default for Nested {
    fn default() -> Nested {
        Nested::new()
    }
}

/// How many chunks a block of `size` bytes takes.
fn chunks_for(size: usize) -> usize {
    size.max(1).div_ceil(CHUNK)
}

/// The bits of `count` chunks from `first` on.
fn row(first: usize, count: usize) -> u64 {
    (bit_of(count) - 1) << first
}

fn dead(slot: Slot, addr: usize, call: Call) -> Misuse {
    Misuse::Dead {
        call,
        addr,
        slot,
        size: CHUNK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_sim::{Sim, SimConfig};

    #[test]
    fn blocks_lie_apart_are_zero_and_come_back() {
        let (os, nested) = (Sim::new(SimConfig::default()), Nested::new());
        let sizes = [1, CHUNK, CHUNK + 1, MOST * CHUNK, 0];
        for _ in 0..3 {
            let blocks = sizes.map(|size| nested.take(&os, size, 16).expect("room"));
            for (block, size) in blocks.into_iter().zip(sizes) {
                // SAFETY: `take` returned the block just now, with at least `size` bytes.
                let bytes = unsafe { core::slice::from_raw_parts_mut(block, size) };
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(0xa5);
                assert!(nested.holds(block as usize));
                let known = nested.size(block as usize, Call::Realloc);
                assert_eq!(known, Ok(size));
            }
            for block in blocks {
                assert_eq!(nested.give(block as usize), Ok(()));
            }
        }
        assert_eq!(nested.taken.load(Relaxed), 0);
    }

    #[test]
    fn what_a_block_shrinks_by_comes_back() {
        let (os, nested) = (Sim::new(SimConfig::default()), Nested::new());
        let block = nested.take(&os, 3 * CHUNK, 1).expect("room") as usize;
        for size in [2 * CHUNK + 1, CHUNK, 5, 5, 0] {
            nested.shrink(block, size);
            assert_eq!(nested.size(block, Call::Realloc), Ok(size));
            let taken = nested.taken.load(Relaxed).count_ones() as usize;
            assert_eq!(taken, chunks_for(size));
        }
        nested.shrink(block, CHUNK);
        assert_eq!(nested.size(block, Call::Realloc), Ok(0));
        assert_eq!(nested.give(block), Ok(()));
        assert_eq!(nested.taken.load(Relaxed), 0);
    }

    #[test]
    fn what_is_too_much_is_refused_and_nothing_is_lost() {
        let (os, nested) = (Sim::new(SimConfig::default()), Nested::new());
        assert_eq!(nested.take(&os, MOST * CHUNK + 1, 1), None);
        assert_eq!(nested.take(&os, 1, 2 * CHUNK), None);
        let all: std::vec::Vec<_> = (0..CHUNKS)
            .map(|_| nested.take(&os, CHUNK, CHUNK).expect("room"))
            .collect();
        assert_eq!(nested.take(&os, 1, 1), None);
        for block in all {
            assert_eq!(nested.give(block as usize), Ok(()));
        }
        assert!(nested.take(&os, MOST * CHUNK, 1).is_some());
    }

    #[test]
    fn a_second_free_and_a_pointer_into_a_block_are_found() {
        let (os, nested) = (Sim::new(SimConfig::default()), Nested::new());
        let block = nested.take(&os, 9000, 1).expect("room") as usize;
        let inside = nested.give(block + CHUNK);
        assert!(matches!(inside, Err(Misuse::Dead { .. })), "{inside:?}");
        let odd = nested.give(block + 8);
        assert!(matches!(odd, Err(Misuse::Unknown { .. })), "{odd:?}");
        assert_eq!(nested.give(block), Ok(()));
        let twice = nested.give(block);
        assert!(matches!(twice, Err(Misuse::Dead { .. })), "{twice:?}");
    }
}

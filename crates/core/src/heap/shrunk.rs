//! What a heap learns of blocks that realloc moved to smaller slots: whether they grow back.
//!
//! A move saves memory where the block stays small. It costs two copies where the block soon grows again. So some
//! of the moved blocks are remembered by their addresses. When one of them has to move to grow, the next shrinks
//! stay where they are: twice as many each time, up to a bound, so that a program that changes its ways is found out.

use core::cell::Cell;

/// How many moved blocks are remembered.
const PLACES: usize = 32;
/// Of so many blocks that find their place taken, one takes it.
const REPLACING: u32 = 8;
/// How many shrinks stay after the first block that grew back, and at most.
const STAYING: [u32; 2] = [8, 64];

/// Moved blocks, and how many shrinks stay. All zero: none.
pub struct Shrunk {
    /// Addresses by hash, in steps of sixteen bytes. 0 means none.
    moved: [Cell<u32>; PLACES],
    /// Moves so far.
    moves: Cell<u32>,
    /// Shrinks that stay from now on.
    staying: Cell<u32>,
    /// How many that were after the last block that grew back.
    granted: Cell<u32>,
}

/// The address as it is remembered, and its place.
fn key(address: usize) -> (u32, usize) {
    let key = (address >> 4) as u32;
    (key, key.wrapping_mul(0x9e37_79b9) as usize >> 27)
}

static_assertions::const_assert_eq!(PLACES, 1 << (32 - 27));

impl Shrunk {
    /// Whether a block that shrinks is to move.
    pub fn moves(&self) -> bool {
        match self.staying.get() {
            0 => true,
            staying => {
                self.staying.set(staying - 1);
                false
            }
        }
    }

    /// A block that shrank moved to `address`.
    pub fn moved_to(&self, address: usize) {
        self.moves.set(self.moves.get().wrapping_add(1));
        let (key, place) = key(address);
        let place = &self.moved[place];
        if place.get() == 0 {
            place.set(key);
        } else if self.moves.get().is_multiple_of(REPLACING) {
            // The block that was remembered stayed small.
            self.granted.set(self.granted.get() / 2);
            place.set(key);
        }
    }

    /// The block at `address` has to move to grow.
    #[inline]
    pub fn grows(&self, address: usize) {
        let (key, place) = key(address);
        if self.moved[place].get() == key {
            self.moved[place].set(0);
            let granted = (2 * self.granted.get()).clamp(STAYING[0], STAYING[1]);
            self.granted.set(granted);
            self.staying.set(granted);
        }
    }
}

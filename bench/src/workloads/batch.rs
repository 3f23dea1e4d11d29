//! `batch`: many blocks are allocated, then all are freed. One operation is an allocation and its free.

use super::Outcome;
use crate::block::Block;
use crate::random::{Random, Sizes};
use crate::table::Table;
use std::alloc::GlobalAlloc;

/// In which order the blocks of a batch are freed.
#[derive(Clone, Copy)]
pub enum Order {
    /// As they were allocated.
    Forwards,
    /// Last allocated, first freed.
    Backwards,
    /// At random.
    Shuffled,
}

/// The places 0 to `count` - 1 in the given order.
fn places(count: usize, order: Order) -> Table<u32> {
    let mut places = Table::<u32>::new(count);
    places
        .iter_mut()
        .enumerate()
        .for_each(|(i, place)| *place = i as u32);
    match order {
        Order::Forwards => {}
        Order::Backwards => places.reverse(),
        Order::Shuffled => shuffle(&mut places),
    }
    places
}

/// Fisher and Yates's shuffle.
fn shuffle(places: &mut [u32]) {
    let mut random = Random::new(4);
    for i in (1..places.len()).rev() {
        places.swap(i, random.below(i + 1));
    }
}

/// About `ops` blocks of skewed sizes, `count` at a time.
pub fn batch<A: GlobalAlloc>(allocator: &A, count: usize, order: Order, ops: usize) -> Outcome {
    let rounds = ops.div_ceil(count);
    let (places, sizes) = (places(count, order), Sizes::skewed());
    let mut blocks = Table::<Block>::new(count);
    let mut random = Random::new(5);
    Outcome::of(rounds * count, || {
        let mut sum = 0u64;
        for _ in 0..rounds {
            blocks
                .iter_mut()
                .for_each(|block| *block = Block::new(allocator, sizes.pick(&mut random)));
            let freed = places
                .iter()
                .map(|&place| blocks[place as usize].free(allocator));
            sum = freed.fold(sum, u64::wrapping_add);
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_batch_frees_every_place_once() {
        let mut shuffled = places(1000, Order::Shuffled).to_vec();
        assert_ne!(shuffled, places(1000, Order::Forwards).to_vec());
        shuffled.sort();
        assert_eq!(shuffled, places(1000, Order::Forwards).to_vec());
    }
}

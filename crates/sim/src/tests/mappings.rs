//! Memory that is mapped, grown, discarded and given back. Larger pages, and limits.

use super::*;

#[test]
fn pages_are_mapped_at_an_address_where_all_of_it_is_free() {
    let sim = sim();
    let block = sim.map(2 * PAGE, 1).unwrap().as_ptr() as usize;
    assert!(sim.map_at(block + 2 * PAGE, PAGE));
    assert!(!sim.map_at(block + 2 * PAGE, PAGE), "it is in use");
    assert!(!sim.map_at(block - 2 * PAGE, 4 * PAGE), "half of it is");
    assert!(!sim.map_at(1 << 46, PAGE), "outside the window");
    assert_eq!(sim.usable_bytes(), 3 * PAGE);
}

#[test]
fn discarded_pages_read_as_zero() {
    let sim = sim();
    let heap = pointer(sim.move_break(2 * PAGE as isize).unwrap());
    fill(heap, 2 * PAGE);
    assert!(discard(&sim, heap, PAGE));
    assert!(all_are(0, heap, PAGE));
    assert!(all_are(0x5a, pointer(heap.as_ptr() as usize + PAGE), PAGE));
}

#[test]
fn pages_that_come_back_are_zero() {
    let sim = sim();
    let heap = pointer(sim.move_break(2 * PAGE as isize).unwrap());
    let block = sim.map(2 * PAGE, 1).unwrap();
    fill(heap, 2 * PAGE);
    fill(block, 2 * PAGE);
    sim.move_break(-(PAGE as isize)).unwrap();
    sim.move_break(PAGE as isize).unwrap();
    assert!(all_are(0x5a, heap, PAGE));
    assert!(all_are(0, pointer(heap.as_ptr() as usize + PAGE), PAGE));
    assert!(unmap(&sim, block, 2 * PAGE));
    assert_eq!(sim.map(2 * PAGE, 1), Some(block), "first fit");
    assert!(all_are(0, block, 2 * PAGE));
}

#[test]
fn half_a_page_given_back_is_still_there_as_on_linux() {
    let sim = sim();
    let heap = pointer(sim.move_break(PAGE as isize).unwrap());
    fill(heap, PAGE);
    sim.move_break(-100).unwrap();
    sim.move_break(100).unwrap();
    assert!(all_are(0x5a, heap, PAGE));
}

#[test]
fn opening_again_keeps_what_was_open() {
    let sim = sim();
    let region = sim.reserve(4 * PAGE).unwrap();
    let second = pointer(region.as_ptr() as usize + PAGE);
    assert!(open(&sim, second, PAGE));
    fill(second, PAGE);
    assert!(open(&sim, region, 4 * PAGE));
    assert!(all_are(0, region, PAGE) && all_are(0x5a, second, PAGE));
}

#[test]
fn a_mapping_grows_in_place_moves_or_shrinks_and_keeps_its_bytes() {
    let sim = sim();
    let block = sim.map(PAGE, 1).unwrap();
    fill(block, PAGE);
    assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), Some(block));
    let wall = sim.map(PAGE, 1).unwrap();
    let moved = remap(&sim, block, 2 * PAGE, 4 * PAGE).unwrap();
    assert!(moved != block && moved != wall);
    assert!(all_are(0x5a, moved, PAGE));
    assert!(all_are(
        0,
        pointer(moved.as_ptr() as usize + PAGE),
        3 * PAGE
    ));
    assert_eq!(remap(&sim, moved, 4 * PAGE, PAGE), Some(moved));
    assert_eq!(sim.usable_bytes(), 2 * PAGE);
    refuses("an absent page", || unmap(&sim, block, PAGE));
    assert_eq!(remap(&sim, moved, PAGE, 4 << 20), None);
    assert!(all_are(0x5a, moved, PAGE));
}

#[test]
fn pages_move_over_others() {
    let sim = sim();
    let (from, to) = (sim.map(PAGE, 1).unwrap(), sim.map(2 * PAGE, 1).unwrap());
    fill(from, PAGE);
    assert_eq!(move_over(&sim, from, PAGE, to), Moved::Done);
    assert!(all_are(0x5a, to, PAGE));
    assert_eq!(sim.usable_bytes(), 2 * PAGE);
    refuses("an absent page", || move_over(&sim, from, PAGE, to));
}

#[test]
fn pages_move_out_of_a_block_and_into_another() {
    let sim = sim();
    let block = sim.map(4 * PAGE, 1).unwrap();
    fill(block, 4 * PAGE);
    // SAFETY: a mapping of this test, of which nobody knows. The last page stands for a fence.
    let moved = unsafe { sim.move_out(block, 3 * PAGE, 0, 2 * PAGE, PAGE) };
    let kept = moved.unwrap();
    // SAFETY: a mapping of this test, of which nobody knows.
    let none = unsafe { sim.move_out(block, 3 * PAGE, 0, 2 * PAGE, PAGE) };
    assert!(none.is_none(), "nothing is left there");
    assert!(all_are(0x5a, kept, 2 * PAGE) && all_are(0, block, 2 * PAGE));
    assert!(all_are(
        0x5a,
        pointer(block.as_ptr() as usize + 2 * PAGE),
        PAGE
    ));
    // SAFETY: mappings of this test, of which nobody else knows.
    let moved = unsafe { sim.move_in(kept, 2 * PAGE, block, 4 * PAGE) };
    assert_eq!(moved, Moved::Done);
    assert!(all_are(0x5a, block, 2 * PAGE));
    assert!(all_are(
        0,
        pointer(block.as_ptr() as usize + 2 * PAGE),
        2 * PAGE
    ));
    assert_eq!(sim.usable_bytes(), 4 * PAGE);
    refuses("an absent page", || unmap(&sim, kept, PAGE));
}

#[test]
fn growing_in_place_leaves_a_gap() {
    let sim = sim();
    let (block, hole) = (sim.map(PAGE, 1).unwrap(), sim.map(PAGE, 1).unwrap());
    let wall = sim.map(PAGE, 1).unwrap();
    assert!(unmap(&sim, hole, PAGE));
    assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), Some(block));
    assert_eq!(remap(&sim, block, 2 * PAGE, 3 * PAGE), Some(block));
    let moved = remap(&sim, block, 3 * PAGE, 4 * PAGE).unwrap();
    assert!(moved > wall, "the last absent page is the gap");
}

#[test]
fn mappings_are_aligned_and_apart() {
    let sim = sim();
    let blocks = [1, PAGE, 64 << 10, 1 << 20].map(|align| {
        let block = sim.map(2 * PAGE, align).unwrap();
        assert_eq!(block.as_ptr() as usize % align, 0);
        refuses("an absent page", || unmap(&sim, block, 3 * PAGE));
        block
    });
    assert!(blocks.iter().all(|&block| unmap(&sim, block, 2 * PAGE)));
    assert_eq!(sim.map(PAGE, 1 << 63), None);
    assert_eq!(sim.map(usize::MAX & !(PAGE - 1), 1), None);
}

#[test]
fn the_map_window_fills_up() {
    let sim = sim();
    let blocks = core::iter::from_fn(|| sim.map(64 << 10, 1)).count();
    assert_eq!(blocks, (2 << 20) / ((64 << 10) + PAGE), "each with its gap");
    assert_eq!(sim.reserve(64 << 10), None);
}

#[test]
fn larger_os_pages_are_the_unit_of_everything() {
    for page in [16 << 10, 64 << 10] {
        let sim = sim_with(|config| config.page_size = page);
        assert_eq!(sim.page_size(), page);
        refuses("not whole pages", || sim.map(PAGE, 1));
        let block = sim.map(page, 1).unwrap();
        assert_eq!(block.as_ptr() as usize % page, 0);
        sim.move_break(1).unwrap();
        assert_eq!(sim.usable_bytes(), 2 * page);
        fill(pointer(sim.break_start()), page);
    }
}

#[test]
fn the_data_limit_counts_what_is_usable() {
    let sim = sim_with(|config| config.limits.data = 4 * PAGE);
    assert_eq!(
        sim.limits(),
        Limits {
            address_space: 4 << 20,
            data: 4 * PAGE
        }
    );
    let region = sim.reserve(8 * PAGE).unwrap();
    assert!(!open(&sim, region, 5 * PAGE));
    assert!(open(&sim, region, 2 * PAGE));
    sim.move_break(PAGE as isize).unwrap();
    let block = sim.map(PAGE, 1).unwrap();
    assert_eq!(
        (sim.map(PAGE, 1), sim.move_break(1), sim.foreign_sbrk(1)),
        (None, None, None)
    );
    assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), None);
    assert!(open(&sim, region, 2 * PAGE), "nothing new");
    assert!(unmap(&sim, region, PAGE) && remap(&sim, block, PAGE, 2 * PAGE).is_some());
    assert!(!sim.failed(), "not on command");
}

#[test]
fn the_limit_of_address_space_counts_what_is_reserved_too() {
    let sim = sim_with(|config| config.limits.address_space = 4 * PAGE);
    assert_eq!(sim.limits().address_space, 4 * PAGE);
    let region = sim.reserve(3 * PAGE).unwrap();
    assert_eq!((sim.map(2 * PAGE, 1), sim.reserve(2 * PAGE)), (None, None));
    assert!(open(&sim, region, 3 * PAGE), "no new address space");
    assert!(sim.move_break(PAGE as isize).is_some());
    assert_eq!(sim.move_break(1), None);
}

#[test]
fn claimed_space_counts_for_no_limit_until_it_is_opened() {
    let sim = sim_with(|config| config.limits.address_space = 4 * PAGE);
    let region = sim.claim(100 * PAGE).unwrap();
    assert_eq!((sim.usable_bytes(), sim.reserved_bytes()), (0, 0));
    assert_eq!(sim.claimed_bytes(), 100 * PAGE);
    let claimed = |at| pointer(region.as_ptr() as usize + at * PAGE);
    assert_eq!(open_as(&sim, claimed(50), 3 * PAGE, Hold::Claimed), Ok(()));
    assert!(all_are(0, claimed(50), 3 * PAGE));
    let refused = Err(Refusal::NoMemory);
    assert_eq!(open_as(&sim, region, 2 * PAGE, Hold::Claimed), refused);
    assert!(sim.map(PAGE, 1).is_some() && sim.map(PAGE, 1).is_none());
    assert!(unmap(&sim, claimed(51), PAGE));
    assert_eq!(sim.claimed_bytes(), 98 * PAGE);
    assert_eq!(open_as(&sim, claimed(51), PAGE, Hold::Claimed), Ok(()));
}

#[test]
fn what_others_map_on_claimed_pages_is_left_alone() {
    let sim = sim();
    let region = sim.claim(8 * PAGE).unwrap();
    let third = region.as_ptr() as usize + 2 * PAGE;
    assert!(sim.intrude(third) && !sim.intrude(third));
    let taken = Err(Refusal::Taken);
    assert_eq!(open_as(&sim, region, 3 * PAGE, Hold::Claimed), taken);
    assert_eq!(sim.usable_bytes(), 0);
    assert_eq!(open_as(&sim, region, 2 * PAGE, Hold::Claimed), Ok(()));
    assert!(!sim.map_at(third, PAGE), "somebody else's");
}

#[test]
fn mappings_come_to_lie_on_claimed_pages_only_where_there_is_no_other_place() {
    let sim = sim();
    let claimed = sim.claim(1 << 20).unwrap();
    let block = sim.map(PAGE, 1).unwrap();
    assert!(block.as_ptr() as usize >= claimed.as_ptr() as usize + (1 << 20));
    let others: Vec<_> = core::iter::from_fn(|| sim.map(512 << 10, 1)).collect();
    assert_eq!(others.len(), 2);
    assert!(others[0] > block && others[1] < block);
    assert_eq!(
        sim.claim(512 << 10),
        Err(Refusal::Taken),
        "what is claimed is not claimed again"
    );
}

#[test]
fn a_system_may_know_no_claims() {
    let sim = sim_with(|config| config.claims = false);
    assert_eq!(sim.claim(PAGE), Err(Refusal::Taken));
    assert!(sim.reserve(PAGE).is_some());
}

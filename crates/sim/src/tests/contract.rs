//! Wrong calls panic and change nothing. Each page's state is counted. Closed pages are closed.

use super::*;

#[test]
fn the_state_of_each_page_is_counted() {
    let sim = sim();
    let region = sim.reserve(8 * PAGE).unwrap();
    assert_eq!((sim.usable_bytes(), sim.reserved_bytes()), (0, 8 * PAGE));
    assert!(open(&sim, region, 3 * PAGE));
    assert_eq!(
        (sim.usable_bytes(), sim.reserved_bytes()),
        (3 * PAGE, 5 * PAGE)
    );
    let block = sim.map(2 * PAGE, 1).unwrap();
    sim.move_break(PAGE as isize + 1).unwrap();
    assert_eq!(
        (sim.usable_bytes(), sim.reserved_bytes()),
        (7 * PAGE, 5 * PAGE)
    );
    assert!(unmap(&sim, region, 8 * PAGE) && unmap(&sim, block, 2 * PAGE));
    assert_eq!((sim.usable_bytes(), sim.reserved_bytes()), (2 * PAGE, 0));
}

#[test]
fn only_what_was_mapped_or_reserved_can_be_unmapped() {
    let sim = sim();
    let block = sim.map(2 * PAGE, 1).unwrap();
    refuses("unmap of an absent page", || unmap(&sim, block, 3 * PAGE));
    assert!(unmap(&sim, block, PAGE));
    refuses("unmap of an absent page", || unmap(&sim, block, 2 * PAGE));
    let heap = pointer(sim.move_break(PAGE as isize).unwrap());
    refuses("unmap of a break page", || unmap(&sim, heap, PAGE));
}

#[test]
fn only_what_was_reserved_can_be_opened() {
    let sim = sim();
    let (region, block) = (sim.reserve(2 * PAGE).unwrap(), sim.map(PAGE, 1).unwrap());
    refuses("open of an absent page", || open(&sim, region, 3 * PAGE));
    refuses("open of a mapped page", || open(&sim, block, PAGE));
    let heap = pointer(sim.move_break(PAGE as isize).unwrap());
    refuses("open of a break page", || open(&sim, heap, PAGE));
    assert_eq!(
        sim.usable_bytes(),
        2 * PAGE,
        "a refused call changes nothing"
    );
}

#[test]
fn claimed_pages_are_opened_once() {
    let sim = sim();
    let region = sim.claim(2 * PAGE).unwrap();
    let open = |start, bytes| open_as(&sim, start, bytes, Hold::Claimed);
    refuses("open of an absent page", || open(region, 3 * PAGE));
    assert_eq!(open(region, PAGE), Ok(()));
    refuses("open of an opened page", || open(region, 2 * PAGE));
    // The system may put it where pages were claimed, and then does not give them.
    let reserved = sim.reserve(PAGE).unwrap();
    assert_eq!(open(reserved, PAGE), Err(Refusal::Taken));
    assert_eq!(sim.reserved_bytes(), PAGE, "a refused call changes nothing");
}

#[test]
fn only_usable_pages_of_ours_can_be_discarded() {
    let sim = sim_with(|config| config.break_offset = 100);
    let region = sim.reserve(2 * PAGE).unwrap();
    refuses("discard of a reserved page", || discard(&sim, region, PAGE));
    assert!(open(&sim, region, PAGE) && discard(&sim, region, PAGE));
    refuses("discard of a reserved page", || {
        discard(&sim, region, 2 * PAGE)
    });
    assert!(unmap(&sim, region, 2 * PAGE));
    refuses("discard of an absent page", || discard(&sim, region, PAGE));
    let program = pointer(sim.break_start() - 100);
    refuses("discard of the program's page", || {
        discard(&sim, program, PAGE)
    });
}

#[test]
fn only_mappings_can_be_resized() {
    let sim = sim();
    let (block, region) = (sim.map(2 * PAGE, 1).unwrap(), sim.reserve(PAGE).unwrap());
    refuses("remap of an absent page", || {
        remap(&sim, block, 3 * PAGE, 4 * PAGE)
    });
    refuses("remap of a reserved page", || {
        remap(&sim, region, PAGE, 2 * PAGE)
    });
    assert!(open(&sim, region, PAGE));
    refuses("remap of an opened page", || {
        remap(&sim, region, PAGE, 2 * PAGE)
    });
    refuses("remap of an empty range", || {
        remap(&sim, block, 2 * PAGE, 0)
    });
    refuses("not whole pages", || remap(&sim, block, 2 * PAGE, PAGE + 1));
}

#[test]
fn only_what_is_there_can_be_named() {
    let sim = sim();
    let region = sim.reserve(PAGE).unwrap();
    sim.name(region, PAGE, c"region");
    refuses("name of an absent page", || {
        sim.name(region, 2 * PAGE, c"region")
    });
}

#[test]
fn ranges_are_whole_pages_in_the_window_and_not_empty() {
    let sim = sim();
    let block = sim.map(2 * PAGE, 1).unwrap();
    refuses("map of an empty range", || sim.map(0, 1));
    refuses("reserve of an empty range", || sim.reserve(0));
    refuses("not whole pages", || sim.map(PAGE + 1, 1));
    refuses("not whole pages", || sim.reserve(PAGE - 1));
    refuses("not whole pages", || unmap(&sim, block, PAGE / 2));
    refuses("not a page's start", || {
        discard(&sim, pointer(block.as_ptr() as usize + 16), PAGE)
    });
    refuses("outside the window", || unmap(&sim, pointer(PAGE), PAGE));
    refuses("outside the window", || unmap(&sim, block, 4 << 20));
    refuses("no power of two", || sim.map(PAGE, 3 * PAGE));
    assert_eq!(sim.calls(), 1, "a refused call is not counted");
}

#[test]
fn contradictory_configurations_are_refused() {
    refuses("page size", || {
        sim_with(|config| config.page_size = 3 * PAGE)
    });
    refuses("page size", || {
        sim_with(|config| config.page_size = PAGE / 2)
    });
    refuses("window of", || sim_with(|config| config.bytes += 1));
    refuses("break window of", || {
        sim_with(|config| config.break_bytes += 1)
    });
    refuses("break window of", || {
        sim_with(|config| config.break_bytes = config.bytes)
    });
    refuses("break at", || {
        sim_with(|config| config.break_offset = config.break_bytes + 1)
    });
}

#[test]
fn a_sim_can_be_shared_between_threads() {
    fn shared<T: Sync + Send>(_: &T) {}
    shared(&sim());
}

/// Whether the kernel can read the byte at `start` for us, asked without a fault of our own.
#[cfg(not(miri))]
fn readable(start: NonNull<u8>) -> bool {
    let mut ends = [0; 2];
    // SAFETY: a pipe of our own. write(2) answers EFAULT for what cannot be read.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let written = libc::write(ends[1], start.as_ptr().cast(), 1);
        libc::close(ends[0]);
        libc::close(ends[1]);
        written == 1
    }
}

#[test]
#[cfg(not(miri))]
fn pages_that_are_not_usable_cannot_be_touched() {
    let sim = sim();
    let region = sim.reserve(2 * PAGE).unwrap();
    assert!(open(&sim, region, PAGE) && readable(region));
    assert!(
        !readable(pointer(region.as_ptr() as usize + PAGE)),
        "reserved"
    );
    let block = sim.map(PAGE, 1).unwrap();
    let heap = pointer(sim.move_break(PAGE as isize).unwrap());
    assert!(readable(block) && readable(heap));
    let grown = remap(&sim, block, PAGE, 1 << 20).unwrap();
    assert!(remap(&sim, grown, 1 << 20, PAGE) == Some(grown) && readable(grown));
    assert!(
        !readable(pointer(grown.as_ptr() as usize + PAGE)),
        "cut off"
    );
    assert!(unmap(&sim, region, 2 * PAGE) && unmap(&sim, grown, PAGE));
    sim.move_break(-(PAGE as isize)).unwrap();
    assert!(![region, grown, heap].into_iter().any(readable));
}

//! Calls that fail on command, the clock, random words, and dying.

use super::*;

/// Each fallible call once. Returns how many went well.
fn script(sim: &Sim) -> usize {
    let claimed = sim.claim(PAGE);
    let region = sim.reserve(2 * PAGE);
    let opened = region.is_some_and(|region| open(sim, region, PAGE));
    let block = sim.map(PAGE, 1);
    let block = block.and_then(|block| {
        remap(sim, block, PAGE, 2 * PAGE)
            .map(|at| (at, 2 * PAGE))
            .or(Some((block, PAGE)))
    });
    let discarded = block.is_some_and(|(block, bytes)| discard(sim, block, bytes));
    let grown = sim.move_break(PAGE as isize).is_some();
    let trimmed = grown && sim.move_break(-(PAGE as isize)).is_some();
    let unmapped = block.is_some_and(|(block, bytes)| unmap(sim, block, bytes));
    let sized = block.is_some_and(|(_, bytes)| bytes == 2 * PAGE);
    let results = [
        claimed.is_ok(),
        region.is_some(),
        opened,
        block.is_some(),
        sized,
        discarded,
        grown,
        trimmed,
        unmapped,
    ];
    results.iter().filter(|&&went_well| went_well).count()
}

#[test]
fn each_fallible_call_can_be_made_to_fail_once() {
    let sim = sim();
    let mut rounds = 0;
    loop {
        sim.fail_at(rounds);
        let went_well = script(&sim);
        assert_eq!(sim.failed(), went_well < 9);
        if !sim.failed() {
            break;
        }
        rounds += 1;
    }
    assert_eq!(rounds, 9);
}

#[test]
fn all_calls_from_one_on_can_be_made_to_fail() {
    let sim = sim();
    sim.fail_from(1);
    assert!(sim.map(PAGE, 1).is_some() && !sim.failed());
    assert_eq!(
        (sim.map(PAGE, 1), sim.reserve(PAGE), sim.move_break(1)),
        (None, None, None)
    );
    assert!(sim.failed());
    sim.never_fail();
    assert!(sim.map(PAGE, 1).is_some() && !sim.failed());
    assert_eq!(sim.calls(), 5);
}

#[test]
fn a_call_failed_on_command_changes_nothing() {
    let sim = sim();
    let block = sim.map(2 * PAGE, 1).unwrap();
    sim.move_break(PAGE as isize).unwrap();
    fill(block, 2 * PAGE);
    sim.fail_from(0);
    assert!(!unmap(&sim, block, PAGE) && !discard(&sim, block, PAGE));
    assert_eq!(
        (remap(&sim, block, 2 * PAGE, PAGE), sim.move_break(-1)),
        (None, None)
    );
    assert_eq!(sim.usable_bytes(), 3 * PAGE);
    assert!(all_are(0x5a, block, 2 * PAGE));
}

#[test]
fn a_wrong_call_panics_even_if_it_was_to_fail() {
    let sim = sim();
    let block = sim.map(PAGE, 1).unwrap();
    sim.fail_from(0);
    refuses("an absent page", || unmap(&sim, block, 2 * PAGE));
    assert!(!sim.failed());
}

#[test]
fn asking_for_the_break_is_no_fallible_call() {
    let sim = sim();
    sim.fail_from(0);
    assert_eq!(sim.move_break(0), sim.break_end());
    assert_eq!((sim.calls(), sim.failed()), (0, false));
}

#[test]
fn clock_random_and_threads_are_as_told() {
    let (sim, same) = (sim(), sim());
    let other = sim_with(|config| config.seed = 0);
    sim.advance_clock(250);
    assert_eq!((sim.clock(), same.clock()), (250, 0));
    let words = || [sim.random(), sim.random()];
    let first = words();
    assert_eq!(first, [same.random(), same.random()]);
    assert!(first[0] != first[1] && first[0] != other.random() && other.random() != 0);
    sim.watch_thread(NonNull::dangling());
    assert_eq!((sim.watched(), same.watched()), (1, 0));
}

#[test]
fn dying_is_a_panic_that_carries_the_misuse() {
    let sim = sim();
    let misuse = Misuse::Unknown {
        call: Call::Free,
        addr: 0x1234,
    };
    let caught = catch_unwind(AssertUnwindSafe(|| sim.die(&misuse))).unwrap_err();
    assert_eq!(caught.downcast_ref::<Misuse>(), Some(&misuse));
}

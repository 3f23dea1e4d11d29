//! The break: moves by bytes, foreign memory in it, limits.

use super::*;

#[test]
fn the_break_moves_by_bytes_and_keeps_to_its_window() {
    let sim = sim_with(|config| config.break_offset = 100);
    let start = sim.break_start();
    assert_eq!(start % PAGE, 100);
    assert_eq!(sim.move_break(10), Some(start));
    assert_eq!(sim.usable_bytes(), 0, "the program's page is not counted");
    assert_eq!(sim.move_break(PAGE as isize), Some(start + 10));
    assert_eq!(
        (sim.break_position(), sim.usable_bytes()),
        (start + 10 + PAGE, PAGE)
    );
    assert_eq!(
        sim.move_break(-(PAGE as isize) - 11),
        None,
        "below its start"
    );
    assert_eq!(sim.move_break(4 << 20), None, "over the mappings");
    assert_eq!(sim.move_break(isize::MIN), None);
    assert_eq!(
        sim.move_break(-(PAGE as isize) - 10),
        Some(start + 10 + PAGE)
    );
    assert_eq!((sim.break_end(), sim.usable_bytes()), (Some(start), 0));
}

#[test]
fn the_break_window_can_be_filled_and_emptied() {
    let sim = sim();
    let start = sim.move_break(2 << 20).unwrap();
    fill(pointer(start), 2 << 20);
    assert_eq!(sim.move_break(1), None);
    assert_eq!(sim.move_break(-(2 << 20)), Some(start + (2 << 20)));
}

#[test]
fn a_break_that_fails_or_is_missing_leaves_mappings_alone() {
    let failing = sim_with(|config| config.break_fails = true);
    assert_eq!(failing.break_end(), Some(failing.break_start()));
    let missing = sim_with(|config| config.break_bytes = 0);
    assert_eq!(missing.break_end(), None);
    for sim in [failing, missing] {
        assert_eq!(
            (sim.move_break(1), sim.foreign_sbrk(1), sim.failed()),
            (None, None, false)
        );
        assert!(sim.map(PAGE, 1).is_some());
    }
}

#[test]
fn foreign_memory_is_not_ours_to_give_back() {
    let sim = sim();
    let start = sim.move_break(PAGE as isize).unwrap();
    let foreign = sim.foreign_sbrk(100).unwrap();
    assert_eq!(foreign, start + PAGE);
    sim.move_break(2 * PAGE as isize - 100).unwrap();
    refuses("move_break of foreign memory", || {
        sim.move_break(-2 * PAGE as isize)
    });
    refuses("discard of foreign memory", || {
        discard(&sim, pointer(foreign), PAGE)
    });
    assert!(discard(&sim, pointer(start), PAGE) && discard(&sim, pointer(start + 2 * PAGE), PAGE));
    assert!(
        sim.move_break(100 - 2 * PAGE as isize).is_some(),
        "just down to it"
    );
    refuses("move_break of foreign memory", || sim.move_break(-1));
}

#[test]
fn foreign_memory_that_went_back_is_forgotten() {
    let sim = sim();
    sim.move_break(PAGE as isize).unwrap();
    sim.foreign_sbrk(50).unwrap();
    sim.foreign_sbrk(50).unwrap();
    refuses("gives back what is not foreign", || sim.foreign_sbrk(-101));
    assert!(sim.foreign_sbrk(-60).is_some() && sim.foreign_sbrk(-40).is_some());
    refuses("gives back what is not foreign", || sim.foreign_sbrk(-1));
    assert_eq!(sim.foreign_sbrk(0), sim.break_end());
    sim.move_break(PAGE as isize).unwrap();
    assert!(sim.move_break(-2 * PAGE as isize).is_some());
    assert_eq!(sim.calls(), 3, "foreign moves are not counted");
}

#[test]
fn foreign_memory_below_ours_cannot_go_back() {
    let sim = sim();
    sim.foreign_sbrk(PAGE as isize).unwrap();
    sim.move_break(PAGE as isize).unwrap();
    refuses("gives back what is not foreign", || {
        sim.foreign_sbrk(-(PAGE as isize))
    });
}

//! Large blocks: their records and the kernel's limits, growth and shrinking, and what of them is resident.

mod common;

use common::{passes, passes_alone};

/// Records that are out come back into a table that others have filled meanwhile.
#[test]
fn large_full() {
    passes("large/large_full.c", &[]);
}

/// What was read into a large buffer and shrunk to fit has what it needs, whatever it was read into.
#[test]
fn shrink_many() {
    for (from, to, count, most_kib) in [
        ("8192", "24", "20000", "4096"),
        ("1000", "24", "20000", "4096"),
        ("100000", "24", "20000", "4096"),
        ("65536", "100", "3200", "4096"),
        ("65536", "12000", "3200", "45000"),
        ("200000", "4096", "10000", "60000"),
        ("3000000", "100000", "100", "20000"),
        ("3000000", "200000", "100", "30000"),
    ] {
        passes("large/shrink_many.c", &[from, to, count, most_kib]);
    }
}

#[test]
fn growing_vectors() {
    passes("large/growing_vectors.c", &[]);
}

#[test]
fn calloc_one_byte() {
    passes("large/calloc_one_byte.c", &[]);
}

#[test]
fn locked_room() {
    passes("large/locked_room.c", &[]);
}

#[test]
fn moved_blocks_add_few_mappings() {
    passes("large/moved.c", &[]);
}

#[test]
fn moved_blocks_of_a_locked_process_are_counted_right() {
    passes("large/moved.c", &["locked"]);
}

#[test]
fn records_under_limit() {
    passes("large/records_under_limit.c", &[]);
}

#[test]
fn map_count() {
    passes("large/map_count.c", &[]);
}

#[test]
fn map_count_by_shrinking() {
    passes("large/map_count_by_shrinking.c", &[]);
}

/// Memory that the program is about to take again stays, once it has shown that it does.
#[test]
fn swells_of_large_blocks_pay_for_few_rounds() {
    for rounds in [
        ["blocks", "1000000", "40", "0"].as_slice(),
        &["blocks", "300000", "130", "0"],
        &["blocks", "150000", "200", "0"],
        &["blocks", "10000000", "1", "0"],
        &["blocks", "30000000", "1", "0"],
        // One large burst must not hide the small ones that follow.
        &["blocks", "1000000", "10", "300"],
        &["resize", "40000000", "21000000"],
    ] {
        passes_alone("large/swells.c", rounds);
    }
}

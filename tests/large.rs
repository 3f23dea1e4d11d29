//! Large blocks: their records and the kernel's limits, growth and shrinking, and what of them is resident.

mod common;

use common::{compile, run};

/// Records that are out come back into a table that others have filled meanwhile.
#[test]
fn large_full() {
    let wrap = ["-DPREFIXED", "-Wl,--wrap=mremap"];
    run(&compile("large/large_full.c", &wrap), &[], &[]).passed();
}

//! `swell`: what do a heap's growth and its freeing cost? What stays resident, `compare` tells.

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_processes(&mut criterion, "swell");
    criterion.final_summary();
}

//! `pair`: what do a malloc and its free cost, one size at a time?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "pair");
    criterion.final_summary();
}

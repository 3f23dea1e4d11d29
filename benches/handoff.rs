//! `handoff`: what does a block cost that one thread allocates and another frees?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_processes(&mut criterion, "handoff");
    criterion.final_summary();
}

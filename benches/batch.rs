//! `batch`: what does it cost to allocate many blocks and then free all, in order, backwards or shuffled?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "batch");
    criterion.final_summary();
}

//! `large`: what do blocks of 150 KB to 64 MB cost, their pages used?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "large");
    criterion.final_summary();
}

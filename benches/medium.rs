//! `medium`: what does replacing random blocks of 2 to 120 KB cost, their pages used?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "medium");
    criterion.final_summary();
}

//! `churn`: what does replacing random small blocks cost, from a heap that fits the cache to a million blocks?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "churn");
    criterion.final_summary();
}

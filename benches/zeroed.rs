//! `zeroed`: what does calloc cost, small and large?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "zeroed");
    criterion.final_summary();
}

//! `trees`: what do linked nodes cost a program that walks them too?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "trees");
    criterion.final_summary();
}

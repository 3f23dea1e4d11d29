//! `scale`: do threads that share nothing but the allocator slow each other down?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_processes(&mut criterion, "scale");
    criterion.final_summary();
}

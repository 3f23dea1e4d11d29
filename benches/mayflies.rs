//! `mayflies`: what does a thread cost that allocates a hundred blocks and ends, or leaves its blocks to the next?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_processes(&mut criterion, "mayflies");
    criterion.final_summary();
}

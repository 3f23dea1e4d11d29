//! `mayflies`: what does a thread cost that allocates a hundred blocks and ends, or leaves its blocks to the next?

mod ask;

fn mayflies(criterion: &mut criterion::Criterion) {
    ask::in_processes(criterion, "mayflies");
}

criterion::criterion_group!(benches, mayflies);
criterion::criterion_main!(benches);

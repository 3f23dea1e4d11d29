//! `batch`: what does it cost to allocate many blocks and then free all, in order, backwards or shuffled?

mod ask;

fn batch(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "batch");
}

criterion::criterion_group!(benches, batch);
criterion::criterion_main!(benches);

//! `pair`: what do a malloc and its free cost, one size at a time?

mod ask;

fn pair(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "pair");
}

criterion::criterion_group!(benches, pair);
criterion::criterion_main!(benches);

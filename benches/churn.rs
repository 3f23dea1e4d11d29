//! `churn`: what does replacing random small blocks cost, from a heap that fits the cache to a million blocks?

mod ask;

fn churn(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "churn");
}

criterion::criterion_group!(benches, churn);
criterion::criterion_main!(benches);

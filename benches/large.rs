//! `large`: what do blocks of 150 KB to 64 MB cost, their pages used?

mod ask;

fn large(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "large");
}

criterion::criterion_group!(benches, large);
criterion::criterion_main!(benches);

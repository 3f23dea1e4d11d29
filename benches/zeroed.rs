//! `zeroed`: what does calloc cost, small and large?

mod ask;

fn zeroed(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "zeroed");
}

criterion::criterion_group!(benches, zeroed);
criterion::criterion_main!(benches);

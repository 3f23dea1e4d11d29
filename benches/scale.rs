//! `scale`: do threads that share nothing but the allocator slow each other down?

mod ask;

fn scale(criterion: &mut criterion::Criterion) {
    ask::in_processes(criterion, "scale");
}

criterion::criterion_group!(benches, scale);
criterion::criterion_main!(benches);

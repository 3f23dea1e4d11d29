//! `strings`: what does growing by realloc cost, to 20 KB and to 32 MB?

mod ask;

fn strings(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "strings");
}

criterion::criterion_group!(benches, strings);
criterion::criterion_main!(benches);

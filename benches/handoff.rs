//! `handoff`: what does a block cost that one thread allocates and another frees?

mod ask;

fn handoff(criterion: &mut criterion::Criterion) {
    ask::in_processes(criterion, "handoff");
}

criterion::criterion_group!(benches, handoff);
criterion::criterion_main!(benches);

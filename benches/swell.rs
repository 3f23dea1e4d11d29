//! `swell`: what do a heap's growth and its freeing cost? What stays resident, `compare` tells.

mod ask;

fn swell(criterion: &mut criterion::Criterion) {
    ask::in_processes(criterion, "swell");
}

criterion::criterion_group!(benches, swell);
criterion::criterion_main!(benches);

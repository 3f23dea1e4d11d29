//! `medium`: what does replacing random blocks of 2 to 120 KB cost, their pages used?

mod ask;

fn medium(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "medium");
}

criterion::criterion_group!(benches, medium);
criterion::criterion_main!(benches);

//! `trees`: what do linked nodes cost a program that walks them too?

mod ask;

fn trees(criterion: &mut criterion::Criterion) {
    ask::in_one_process(criterion, "trees");
}

criterion::criterion_group!(benches, trees);
criterion::criterion_main!(benches);

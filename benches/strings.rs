//! `strings`: what does growing by realloc cost, to 20 KB and to 32 MB?

mod ask;

fn main() {
    let mut criterion = criterion::Criterion::default().configure_from_args();
    ask::in_one_process(&mut criterion, "strings");
    criterion.final_summary();
}

//! Prints what lives in the heap of a process: `cargo run -p slabside-view --example live -- PID`.

use slabside_view::{figures::Figures, model::Heap, source::Target};

fn main() -> Result<(), slabside_view::Error> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let target = Target::open(&what, false)?;
    let heap = Heap::read(&*target)?;
    let figures = Figures::of(&*target, &heap);
    println!(
        "{}: {} blocks, {} bytes live, {} bytes resident",
        target.name(),
        figures.blocks,
        figures.allocated,
        figures.resident
    );
    for class in &figures.classes {
        println!(
            "{:8} bytes: {} live of {}",
            class.size, class.live, class.slots
        );
    }
    Ok(())
}

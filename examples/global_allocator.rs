//! slabside as a Rust program's allocator: `cargo run --release --example global_allocator`.

use slabside::{stats, Slabside};

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

fn main() {
    let words: Vec<String> = (0..100_000).map(|n| format!("word {n}")).collect();
    let full = stats();
    drop(words);
    let empty = stats();
    println!(
        "live {} bytes in {} slabs, then {} in {}",
        full.live, full.slabs, empty.live, empty.slabs
    );
    println!(
        "break {} bytes, then {}",
        full.break_bytes, empty.break_bytes
    );
}

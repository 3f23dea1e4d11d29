//! A program whose misuse memcheck tells of: `valgrind target/release/examples/memcheck CASE`, built with
//! `cargo build --release --features valgrind --example memcheck`.

use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: slabside::valgrind::Memchecked = slabside::valgrind::Memchecked;

fn main() {
    let mut block = vec![1u8; 24];
    let place = black_box(block.as_mut_ptr());
    match std::env::args().nth(1).as_deref() {
        // SAFETY: none: these are the errors that memcheck is to find.
        Some("read-after-free") => unsafe {
            drop(block);
            black_box(place.read_volatile());
        },
        // SAFETY: none: memcheck must find this write behind the block's end.
        Some("write-behind") => unsafe { place.add(24).write_volatile(1) },
        Some("undefined") => {
            let fresh: Vec<u8> = Vec::with_capacity(100);
            // SAFETY: none: memcheck must find this read of a byte that was never written.
            if unsafe { black_box(fresh.as_ptr()).read_volatile() } == 7 {
                println!("seven");
            }
        }
        Some("leak") => lose_some(),
        _ => {
            let mut text = String::new();
            (0..1000).for_each(|n| text.push_str(&n.to_string()));
            let many: Vec<Box<usize>> = (0..1000).map(Box::new).collect();
            assert_eq!((text.len(), many.len(), block[23]), (2890, 1000, 1));
        }
    }
}

/// Several, since the last one's address may stay in a register.
#[inline(never)]
fn lose_some() {
    (0..10).for_each(|n| std::mem::forget(black_box(vec![n; 1000])));
}

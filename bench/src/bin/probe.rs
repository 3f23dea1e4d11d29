//! Calls `malloc` and `free` one by one under callgrind, which writes a dump of its counts for each call.
//!
//! A call of an empty function is counted in the same way, so that who reads the dumps can take away
//! everything that is not inside: see the module `instructions`.

use slabside_bench::instructions::{CALLS, EMPTY, SIZES};
use std::arch::{asm, global_asm};
use std::ffi::{CStr, CString};

type Function = unsafe extern "C" fn(usize) -> usize;

global_asm!(".globl slabside_bench_empty", "slabside_bench_empty: ret");

extern "C" {
    fn slabside_bench_empty(argument: usize) -> usize;
}

/// Callgrind's requests: 'C', 'T' and a number. (valgrind/callgrind.h)
const ZERO_STATS: usize = 0x4354_0001;
const DUMP_STATS_AT: usize = 0x4354_0003;

/// Tells valgrind something. Without valgrind these instructions do nothing. (valgrind/valgrind.h)
#[inline(always)]
fn request(number: usize, argument: usize) {
    let arguments = [number, argument, 0, 0, 0, 0];
    // SAFETY: the rotations add up to 128 bits and the exchange is of a register with itself. Valgrind reads the six
    // words, and writes rdx.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(), inout("rdx") 0usize => _, options(nostack)
        );
    }
}

/// One call, counted on its own.
#[inline(never)]
fn counted(label: &CStr, function: Function, argument: usize) -> usize {
    request(ZERO_STATS, 0);
    // SAFETY: the functions are malloc, free and one that does nothing. `probe` gives free what came from malloc.
    let result = unsafe { function(argument) };
    request(DUMP_STATS_AT, label.as_ptr() as usize);
    result
}

/// Counts calls of malloc and free for one size, on slabs that have been in use before.
fn probe(size: usize, malloc: Function, free: Function) {
    let label = |name| CString::new(format!("{name}-{size}")).expect("no nul inside");
    let (taken, given) = (label("malloc"), label("free"));
    let mut blocks = [0; CALLS];
    for _ in 0..8 {
        for block in &mut blocks {
            // SAFETY: malloc may be called with any size.
            *block = unsafe { malloc(size) };
        }
        for &block in &blocks {
            // SAFETY: the block came from malloc and is freed once.
            unsafe { free(block) };
        }
    }
    blocks
        .iter_mut()
        .for_each(|block| *block = counted(&taken, malloc, size));
    blocks.iter().for_each(|&block| {
        counted(&given, free, block);
    });
}

fn main() {
    // SAFETY: on this platform pointers, sizes and nothing at all are passed and returned alike, as one word.
    let [malloc, free] = unsafe {
        [libc::malloc as *const (), libc::free as *const ()]
            .map(|f| std::mem::transmute::<*const (), Function>(f))
    };
    let empty = CString::new(EMPTY).expect("no nul inside");
    (0..CALLS).for_each(|_| {
        counted(&empty, slabside_bench_empty, 0);
    });
    SIZES.iter().for_each(|&size| probe(size, malloc, free));
}

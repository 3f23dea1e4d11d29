//! `instructions`: how many instructions do malloc and free of a small block take? Callgrind's counts. The budgets are
//! held by the program of the same name, see bench/instructions.sh.

use slabside_bench::instructions::{count, FUNCTIONS, SIZES};
use slabside_bench::libraries::all;

fn main() {
    println!(
        "{:20}{}",
        "bytes",
        SIZES.map(|size| format!("{size:>8}")).concat()
    );
    for library in all() {
        let Some(counts) = count(&library) else {
            println!("{:12}cannot be counted", library.name);
            continue;
        };
        for function in FUNCTIONS {
            let medians = SIZES.map(|size| counts.median(function, size).unwrap_or_default());
            println!(
                "{:12}{function:8}{}",
                library.name,
                medians.map(|median| format!("{median:>8}")).concat()
            );
        }
    }
}

//! Counts the instructions of slabside's fast paths and ends with 1 if one is over its budget.
//!
//! ```text
//! instructions [--all] [NAME=LIBRARY]    --all counts the peers too, for the table; a library to count
//!                                        instead of the one beside this program
//! ```

use slabside_bench::instructions::{budgets, count, has_valgrind, Counts, FUNCTIONS, SIZES};
use slabside_bench::libraries::{all, given, Library};
use std::collections::BTreeMap;
use std::process::ExitCode;

const BUDGETS: &str = include_str!("../../budgets.toml");

fn print(library: &Library, counts: &Counts) {
    for function in FUNCTIONS {
        let medians = SIZES.map(|size| {
            counts
                .median(function, size)
                .map_or("-".to_owned(), |n| n.to_string())
        });
        println!(
            "{:12}{function:8}{}",
            library.name,
            medians.map(|median| format!("{median:>8}")).concat()
        );
    }
}

/// Whether every function is within its budget. Says so where one is not.
fn within(counts: &Counts, budgets: &BTreeMap<String, u64>) -> bool {
    let over = |(function, &budget): (&String, &u64)| {
        let worst = counts.worst(function);
        let over = worst.is_none_or(|worst| worst > budget);
        if over {
            println!("over budget: {function} takes {worst:?} instructions of {budget}");
        }
        over
    };
    budgets.iter().filter(|&entry| over(entry)).count() == 0
}

fn run(libraries: &[Library]) -> Result<bool, String> {
    let budgets = budgets(BUDGETS)?;
    println!(
        "{:20}{}",
        "instructions",
        SIZES.map(|size| format!("{size:>8}")).concat()
    );
    let mut fine = true;
    for library in libraries {
        match count(library) {
            Some(counts) => {
                print(library, &counts);
                fine &= library.name != "slabside" || within(&counts, &budgets);
            }
            None if library.name == "slabside" => {
                return Err("slabside cannot be counted".to_owned())
            }
            None => println!("{:12}cannot run under valgrind", library.name),
        }
    }
    Ok(fine)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let everything = arguments.iter().any(|argument| argument == "--all");
    let mut libraries = all();
    libraries.retain(|library| everything || library.name == "slabside");
    if let Some(library) = arguments.iter().find_map(|argument| given(argument)) {
        libraries.retain(|other| other.name != library.name);
        libraries.insert(0, library);
    }
    if libraries.is_empty() || !has_valgrind() {
        println!("nothing was counted: valgrind or libslabside_preload.so is missing");
        return ExitCode::from(2);
    }
    match run(&libraries) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

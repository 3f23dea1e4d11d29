//! Makes the whole comparison: every row on every allocator in alternating processes, and writes
//! docs/benchmarks.md with its plots, and docs/counts.md. `compare.sh` builds what it needs and starts it.
//!
//! ```text
//! compare [--quick] [--rounds N] [--only NAME,...] [--allocators NAME,...] [--library NAME=PATH] [--out FOLDER]
//!
//! --quick         fewer operations and rounds: under three minutes instead of fifteen
//! --rounds        how many times everything is run
//! --only          questions or rows, or: latency, overhead, instructions, counts. The tables are only printed.
//!                 `counts` with rows counts and times those rows
//! --allocators    these alone; the tables are only printed
//! --library       one more allocator, or another build of one
//! --out           where benchmarks.md, counts.md and plots/ go, instead of docs/
//! ```

mod machine;
mod measure;
mod options;
mod plots;
mod results;
mod tables;

use options::Options;
use results::Results;
use std::path::Path;

/// Writes the pages and the plots into a folder.
fn write(
    results: &Results,
    options: &Options,
    folder: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    if !results.rows.is_empty() {
        let plots = folder.join("plots");
        std::fs::create_dir_all(&plots)?;
        plots::draw(results, &plots)?;
    }
    for (name, text) in [
        ("benchmarks.md", tables::benchmarks(results, options)),
        ("counts.md", tables::counts(results)),
    ] {
        if text.is_empty() {
            eprintln!("{name} stays as it is: nothing was measured for it");
            continue;
        }
        std::fs::write(folder.join(name), text)?;
        eprintln!("wrote {}", folder.join(name).display());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_arguments(std::env::args().skip(1))?;
    let results = measure::everything(&options);
    match &options.out {
        Some(folder) => write(&results, &options, folder),
        None => {
            println!(
                "{}{}",
                tables::benchmarks(&results, &options),
                tables::counts(&results)
            );
            Ok(())
        }
    }
}

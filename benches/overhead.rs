//! `overhead`: how many bytes lie beside the live ones, few blocks and many, and after random freeing? No
//! clock is read: this prints bytes, resident ones and the break's, over the live ones.

use slabside_bench::child::Runner;
use slabside_bench::libraries::{all, Library};
use slabside_bench::overhead::{Stage, COUNTS, MIXES, STAGES};

/// One line: bytes at a stage above those of a bare process.
fn print(library: &Library, name: &str, stage: &Stage, bare: usize) {
    let resident = stage.resident.saturating_sub(bare);
    let over_live = if stage.live > 0 {
        format!("{:.3}", resident as f64 / stage.live as f64)
    } else {
        "-".to_owned()
    };
    let Stage {
        live,
        program_break,
        metadata,
        ..
    } = stage;
    println!(
        "{:12}{name:>12}{live:>12}{program_break:>12}{resident:>12}{metadata:>12}{over_live:>12}",
        library.name
    );
}

fn case(runner: &Runner, mix: &str, count: usize) {
    println!(
        "\n{count} blocks of {mix}\n{:12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "freed", "live", "break", "resident", "metadata", "over live"
    );
    let bare = Library {
        name: String::new(),
        path: None,
        version: String::new(),
    };
    let bare = runner
        .overhead(&bare, mix, 1)
        .map_or(0, |stages| stages[0].resident);
    for library in all() {
        let stages = runner.overhead(&library, mix, count).unwrap_or_default();
        stages
            .iter()
            .zip(STAGES)
            .skip(1)
            .for_each(|(stage, name)| print(&library, name, stage, bare));
    }
}

fn main() {
    let runner = Runner::beside_this_program();
    for (mix, &count) in MIXES
        .iter()
        .flat_map(|mix| COUNTS.iter().map(move |count| (mix, count)))
    {
        case(&runner, mix.name, count);
    }
}

//! What the command line asks for.

use slabside_bench::libraries::{all, given, Library};
use slabside_bench::rows::{Row, HEAPS, ROWS};
use std::path::PathBuf;

/// The extra measurements, beside the rows.
const EXTRAS: [&str; 4] = ["latency", "overhead", "instructions", "counts"];

/// How thoroughly, and what, is measured.
pub struct Options {
    /// Whether this is the short run.
    pub quick: bool,
    /// Times that every row is run.
    pub rounds: usize,
    /// By which the rows' operations are multiplied.
    pub factor: usize,
    /// The rows to run.
    pub rows: Vec<&'static Row>,
    /// The rows of large heaps and of blocks of middle size to run. None in a short run unless they are asked for.
    pub heaps: Vec<&'static Row>,
    /// The rows whose operations are counted. None in a short run unless `counts` is asked for.
    pub counted: Vec<&'static Row>,
    /// The extra measurements to make, of [`EXTRAS`].
    pub extras: Vec<&'static str>,
    /// The allocators to run them on.
    pub allocators: Vec<Library>,
    /// Where the page and the plots go. None to print the page.
    pub out: Option<PathBuf>,
}

/// The command line as words.
#[derive(Default)]
struct Words {
    quick: bool,
    rounds: Option<usize>,
    only: Vec<String>,
    allocators: Vec<String>,
    libraries: Vec<Library>,
    out: Option<PathBuf>,
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

impl Words {
    fn from(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = Words::default();
        while let Some(argument) = arguments.next() {
            if argument == "--quick" {
                words.quick = true;
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))?;
            words.set(&argument, &value)?;
        }
        Ok(words)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "--rounds" => {
                self.rounds = Some(
                    value
                        .parse()
                        .map_err(|_| format!("not a number: {value}"))?,
                )
            }
            "--only" => self.only = list(value),
            "--allocators" => self.allocators = list(value),
            "--library" => self
                .libraries
                .push(given(value).ok_or_else(|| format!("no such library: {value}"))?),
            "--out" => self.out = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {option}")),
        }
        Ok(())
    }

    /// Whether a row or an extra of these names was asked for.
    fn wants(&self, names: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| names.contains(&only.as_str()))
    }

    fn allocators(&self) -> Vec<Library> {
        let replaced = |library: &Library| {
            self.libraries
                .iter()
                .any(|other| other.name == library.name)
        };
        let wanted = |library: &Library| {
            self.allocators.is_empty() || self.allocators.contains(&library.name)
        };
        let found = all().into_iter().filter(|library| !replaced(library));
        self.libraries
            .iter()
            .cloned()
            .chain(found)
            .filter(wanted)
            .collect()
    }

    /// A part of the whole is printed. The whole goes to docs/ unless another place is named.
    fn out(&self) -> Option<PathBuf> {
        let whole = self.only.is_empty() && self.allocators.is_empty();
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        self.out.clone().or(whole.then_some(docs))
    }
}

impl Options {
    /// Reads the arguments after the program's name.
    pub fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let words = Words::from(arguments)?;
        let (rounds, factor) = if words.quick { (3, 1) } else { (9, 3) };
        let rows: Vec<_> = ROWS
            .iter()
            .filter(|row| words.wants(&[row.name, row.question]))
            .collect();
        let short = words.quick && words.only.is_empty();
        let extras: Vec<_> = EXTRAS
            .into_iter()
            .filter(|&extra| words.wants(&[extra]))
            .collect();
        let heaps: Vec<_> = HEAPS
            .iter()
            .filter(|row| !short && words.wants(&[row.name, row.question]))
            .collect();
        // Beside the word `counts` other names choose rows: which of them are timed as well.
        let counts = extras.contains(&"counts") && !short;
        let named = words.only.iter().any(|only| only != "counts");
        let chosen = |row: &&Row| !named || words.wants(&[row.name, row.question]);
        let counted = ROWS
            .iter()
            .chain(HEAPS)
            .filter(|row| counts && chosen(row) && row.counted_ops().is_some())
            .collect();
        if rows.is_empty() && heaps.is_empty() && extras.is_empty() {
            return Err(format!("nothing is called {}", words.only.join(", ")));
        }
        Ok(Options {
            quick: words.quick,
            rounds: words.rounds.unwrap_or(rounds).max(1),
            factor,
            rows,
            heaps,
            counted,
            extras,
            allocators: words.allocators(),
            out: words.out(),
        })
    }
}

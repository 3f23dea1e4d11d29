//! The commands that look into a heap from outside: what they have in common. The reading is `slabside-view`'s.

pub mod check;
pub mod debugger;
pub mod diff;
pub mod explain;
pub mod flame;
pub mod leaks;
pub mod map;
pub mod metrics;
pub mod pprof;
pub mod profile;
pub mod ps;
pub mod screen;
pub mod snapshot;
pub mod svg;
pub mod symbolize;
pub mod top;
pub mod types;

use anyhow::Result;
use serde::Serialize;
use slabside_view::figures::Figures;
use slabside_view::model::{Buffers, Heap, Hold};
use slabside_view::region;
use slabside_view::source::{short, Source, Target};
use slabside_view::unwind::Frame;
use slabside_view::Error;
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// The exit statuses of these commands, for their help: those of the command's own first.
macro_rules! statuses {
    ($own:literal) => {
        concat!(
            "Exit status: ",
            $own,
            "; 125 if slabside itself fails, 126 if the system does not allow it to read the process, 127 if there is \
             no such process or file."
        )
    };
}
pub(crate) use statuses;

/// What every such command takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Common {
    /// Print JSON: first `schema`, the name and version of the format. Amounts are in bytes
    #[arg(long)]
    pub json: bool,

    /// Stop the process for the milliseconds that reading takes, so that the figures are exact
    #[arg(long)]
    pub stop: bool,

    /// Read only heap number N, counted from 0, of a process that has several copies of slabside
    #[arg(long, value_name = "N")]
    pub heap: Option<usize>,
}

/// A target and its heaps.
pub struct Read {
    /// The target.
    pub target: Target,
    /// Its heaps, by address of their regions.
    pub heaps: Vec<Heap>,
}

impl Read {
    /// Reads the heaps of `what`, a process number or a file. One that was stopped goes on once its metadata are copied.
    pub fn new(what: &str, common: &Common) -> Result<Read> {
        Read::with(what, common, &mut Vec::new(), Hold::No)
    }

    /// The same, and what was stopped stands still until the target is released: contents are to be read too.
    pub fn holding(what: &str, common: &Common) -> Result<Read> {
        Read::with(what, common, &mut Vec::new(), Hold::Yes)
    }

    /// The same with the buffers of an earlier reading, which are left empty.
    pub fn with(
        what: &str,
        common: &Common,
        buffers: &mut Vec<Buffers>,
        hold: Hold,
    ) -> Result<Read> {
        let mut target = Target::open(what, false)?;
        if target.cut() > 0 {
            let (name, cut) = (target.name(), human(target.cut()));
            let told =
                format!("{name}: the core file is cut short: {cut} of the memory are missing");
            let _ = writeln!(io::stderr(), "slabside: {}", harmless(&told));
        }
        let mut regions = region::find(&*target)?;
        if let Some(wanted) = common.heap {
            let count = regions.len();
            if wanted >= count {
                let name = target.name();
                return Err(Error::NoSuchHeap {
                    name,
                    count,
                    wanted,
                }
                .into());
            }
            regions = vec![regions.swap_remove(wanted)];
        }
        if common.stop || !target.is_moving() {
            let heaps = Heap::of_stopped(&mut target, &regions, buffers, hold)?;
            return Ok(Read { target, heaps });
        }
        let mut heaps = Vec::new();
        for region in regions {
            let mut kept = buffers.pop().unwrap_or_default();
            heaps.push(Heap::of(&*target, region, &mut kept)?);
        }
        Ok(Read { target, heaps })
    }

    /// The sums of all heaps.
    pub fn figures(&self) -> Figures {
        let source: &dyn Source = &*self.target;
        let mut all = self.heaps.iter().map(|heap| Figures::of(source, heap));
        let mut sum = all.next().unwrap_or_default();
        all.for_each(|figures| sum.add(&figures));
        sum
    }

    /// The heap that has something to say of `address`, or the first.
    pub fn heap_of(&self, address: u64) -> Option<&Heap> {
        let has = |heap: &&Heap| {
            heap.region.span().holds(address)
                || heap.window_at(address).is_some()
                || heap.large_at(address).is_some()
                || heap.kept_at(address).is_some()
        };
        self.heaps.iter().find(has).or_else(|| self.heaps.first())
    }

    /// For how many milliseconds the process was stopped, if it was.
    pub fn held_ms(&self) -> Option<f64> {
        let held = self.target.stood_for()?;
        Some((held.as_secs_f64() * 1e6).round() / 1e3)
    }

    /// Whether the target stood still and for how long, for people.
    pub fn how(&self, stopped: bool) -> String {
        match (self.held_ms(), stopped) {
            (Some(held), _) => format!("stopped for {held:.1} ms"),
            (None, true) => "as it was written".into(),
            (None, false) => "not stopped".into(),
        }
    }

    /// The name of the program, and the process's number where that is known.
    pub fn title(&self) -> String {
        let about = self.target.about();
        let program = if about.program.is_empty() {
            self.target.name()
        } else {
            about.program
        };
        match about.pid {
            0 => program,
            pid => format!("{program} ({pid})"),
        }
    }
}

/// A time. ms, s, m, min or h may follow the number.
pub(crate) fn time(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "a number of seconds, or one with ms, s, min or h".to_string();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let all = number.checked_mul(unit).ok_or_else(wrong)?;
    Ok(Duration::from_millis(all))
}

/// A function of a stack and where it is, for people.
pub(crate) fn place(frame: &Frame) -> String {
    let place = match frame.line {
        0 => short(&frame.module).to_owned(),
        line => format!("{}:{line}", short(&frame.file)),
    };
    format!("{} {place}", frame.function).trim_end().to_owned()
}

/// Crates of Rust's standard library whose names no namespace of C++ has.
const STANDARD: [&str; 3] = ["alloc::", "core::", "hashbrown::"];

/// Whether a function is of the standard library of C++ or Rust. A name in C++ may begin with the type of what it returns,
/// so the file says it where that is known.
fn is_standard(frame: &Frame) -> bool {
    if frame.file.is_empty() {
        let name = frame.function.trim_start_matches('<');
        return short(&frame.module).starts_with("libstdc++")
            || STANDARD.iter().any(|one| name.starts_with(one));
    }
    frame.file.starts_with("/rustc/")
        || frame.file.starts_with("/rust/deps/")
        || frame.file.contains("/include/c++/")
}

/// How many of the innermost functions of a stack are of a standard library, unless all are.
pub(crate) fn standard(stack: &[Frame]) -> usize {
    let own = stack.iter().position(|frame| !is_standard(frame));
    own.unwrap_or(0)
}

/// The innermost functions of a stack in one line. Without those of a standard library: who calls it says more.
pub(crate) fn brief(stack: &[Frame]) -> String {
    const MOST: usize = 4;
    let stack = &stack[standard(stack)..];
    let places: Vec<String> = stack.iter().take(MOST).map(place).collect();
    let more = if stack.len() > MOST { " ..." } else { "" };
    places.join(" < ") + more
}

/// Writes `text` on standard output, without what a terminal would obey.
pub fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    let done = output.write_all(harmless(text).as_bytes());
    printed(done.and_then(|()| output.flush()))
}

/// What became of writing on standard output. A reader that went away is no error.
pub fn printed(done: io::Result<()>) -> Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("cannot write: {error}"))
        }
        _ => Ok(()),
    }
}

/// `text` with a question mark for each control character, as ps(1) writes it: names of programs and files may have any.
/// JSON escapes those of ASCII by itself.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(obeyed) {
        true => text.replace(obeyed, "?").into(),
        false => text.into(),
    }
}

/// `value` as a line of JSON.
pub fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// `bytes` in the largest binary unit of which there is at least one, to a tenth.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = bytes.checked_ilog2().unwrap_or(0) as usize / 10;
    match unit {
        0 => format!("{bytes} B"),
        _ => format!(
            "{:.1} {}",
            bytes as f64 / (1u64 << (10 * unit)) as f64,
            units[unit]
        ),
    }
}

/// The same for a difference.
pub fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    format!("{sign}{}", human(bytes.unsigned_abs()))
}

pub use slabside_view::region::grouped;

/// `count` of what `noun` names one of: its plural ends in s, or in es after an s.
pub fn several(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, false) => "s",
        (_, true) => "es",
    };
    format!("{} {noun}{ending}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_none_of_several() {
        let counts = [0, 1, 1234].map(|count| several(count, "pass"));
        assert_eq!(counts, ["0 passes", "1 pass", "1,234 passes"]);
        assert_eq!(several(2, "kept range"), "2 kept ranges");
    }

    #[test]
    fn a_line_begins_with_the_programs_own_function() {
        let frame = |function: &str, file: &str, module: &str| Frame {
            function: function.into(),
            file: file.into(),
            line: u32::from(!file.is_empty()),
            module: module.into(),
        };
        let rust = [
            frame(
                "<alloc::raw_vec::RawVecInner>::grow",
                "/rustc/1/alloc.rs",
                "/p",
            ),
            frame("<u64 as core::fmt::Display>::fmt", "/rustc/1/num.rs", "/p"),
            frame("core::fmt::write", "", "/p"),
            frame("server::fill", "/src/server.rs", "/p"),
        ];
        assert_eq!(brief(&rust), "server::fill server.rs:1");
        let cplusplus = [
            frame("std::string::append", "", "/lib/libstdc++.so.6.0.30"),
            frame(
                "std::vector<int>::push_back",
                "/usr/include/c++/12/v.h",
                "/p",
            ),
            frame("std::string my::make<int>()", "/src/my.cpp", "/p"),
        ];
        assert_eq!(brief(&cplusplus), "std::string my::make<int>() my.cpp:1");
        assert_eq!(
            brief(&rust[..1]),
            "<alloc::raw_vec::RawVecInner>::grow alloc.rs:1"
        );
    }

    #[test]
    fn a_name_gives_the_terminal_no_orders() {
        assert_eq!(harmless("a\tb\n"), "a\tb\n");
        assert_eq!(harmless("e\x1b[31mvil\r\u{9b}"), "e?[31mvil??");
    }

    #[test]
    fn differences_have_a_sign() {
        assert_eq!(signed(0), "+0 B");
        assert_eq!(signed(-1536), "-1.5 KiB");
        assert_eq!(signed(i64::MIN), "-8.0 EiB");
    }
}

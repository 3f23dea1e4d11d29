//! The figures of one run: read from the page of counters, and printed as a table or as JSON.
//!
//! Nothing here knows how the program was run.

use crate::view::{grouped, several};
use crate::watch::End;
use comfy_table::{presets, Cell, CellAlignment, Table};
use serde::Serialize;
use slabside_base::class::{SIZES, SPAN};
use slabside_base::counters::Counters;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Instead of figures, where there are none.
const NOT_ATTACHED: &str =
    "slabside did not attach to it, so there are no figures. Programs that are linked statically
or run with more rights than their caller cannot be preloaded.\n";
/// Before figures that lag behind.
const NOT_COMPLETE: &str =
    "It ended without a last count (killed, or by _exit): what is handed out and the peak are as the
slow paths saw them last, and what is live is unknown.\n";

/// Before the table of a program and those that it started.
const CHILDREN: &str =
    "where a figure is missing, a process ended without a last count (killed, or by _exit), or goes on:\n";

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// For programs: one JSON object on a line.
    Json,
}

/// What is known of a program that has ended.
#[derive(Serialize)]
pub struct Report {
    /// Name and version of this form.
    schema: &'static str,
    program: String,
    pid: u32,
    /// The process that started it, where each process has a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u32>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    /// Bytes: the higher of what was sampled while it ran and of what the library saw last.
    peak_resident: Option<u64>,
    /// Whether the figures were made exact at the program's end.
    complete: bool,
    /// `None` when the library never attached.
    heap: Option<Heap>,
    #[serde(skip)]
    status: Option<ExitStatus>,
}

/// The heap's figures, in bytes and counts, as [`Counters`] explains them.
#[derive(Serialize)]
struct Heap {
    /// `None` where nothing was counted: the program ended without a last count.
    handed_out: Option<u64>,
    /// `None` where it was not counted at the end: slow paths alone do not know it.
    live: Option<u64>,
    peak: Option<u64>,
    break_bytes: u64,
    break_peak: u64,
    break_moves: u64,
    mapped: u64,
    metadata: u64,
    purged: u64,
    spans: u64,
    large: u64,
    heaps: u64,
    slabs: Vec<Slabs>,
    /// What was counted at the end. `None` means that it was not.
    at_end: Option<AtEnd>,
}

/// What is counted at the program's end alone, in bytes where nothing else is said.
#[derive(Serialize)]
struct AtEnd {
    /// Number of live spans.
    live_spans: u64,
    /// Live spans.
    live_in_spans: u64,
    /// Live large blocks.
    live_in_large: u64,
    /// Free slots of slabs in use.
    idle_slots: u64,
    /// Free spans kept for reuse.
    idle_spans: u64,
    /// Free pages that may be resident.
    idle_pages: u64,
    /// Freed large blocks kept for reuse.
    idle_large: u64,
    /// Pages of slabs in use that were discarded: they take no memory.
    holes: u64,
    /// Blocks that the program has freed and that wait in a quarantine.
    quarantine: u64,
    /// What was resident, the program's own among it. Of the heap it is what is live, the metadata, and what is idle or in
    /// a quarantine.
    resident: u64,
    /// Which part of the bytes in slabs and spans is idle, from 0 to 1.
    fragmentation: f64,
}

/// The slabs of one size class.
#[derive(Serialize)]
struct Slabs {
    /// Slot size in bytes.
    size: u32,
    /// Number of slabs.
    count: u64,
    /// Number of live blocks. `None` means not counted.
    live: Option<u64>,
    /// Their bytes.
    live_bytes: Option<u64>,
}

/// A counter's value. Counters are changed without order, so one may be below zero for a moment. A program that was
/// killed in that moment leaves it so. It then counts as zero.
fn value(counter: &AtomicU64) -> u64 {
    (counter.load(Relaxed) as i64).max(0) as u64
}

/// Bytes in live slots and spans at the last count. `counters.live` goes on: destructors of libraries that run later free
/// blocks, and slow paths take them from it.
fn in_slabs(counters: &Counters) -> u64 {
    counters.live_of.iter().map(value).sum()
}

impl Heap {
    fn read(counters: &Counters, complete: bool) -> Option<Heap> {
        let told = |counter| Some(value(counter)).filter(|&bytes| complete || bytes > 0);
        (counters.attached.load(Relaxed) != 0).then(|| Heap {
            handed_out: told(&counters.handed_out),
            live: complete.then(|| in_slabs(counters) + value(&counters.live_large)),
            peak: told(&counters.peak),
            break_bytes: value(&counters.break_bytes),
            break_peak: value(&counters.break_peak),
            break_moves: value(&counters.break_moves),
            mapped: value(&counters.mapped),
            metadata: value(&counters.metadata),
            purged: value(&counters.purged),
            spans: value(&counters.spans),
            large: value(&counters.large),
            heaps: value(&counters.heaps),
            slabs: slabs(counters, complete),
            at_end: complete.then(|| AtEnd::read(counters)),
        })
    }
}

impl AtEnd {
    fn read(counters: &Counters) -> AtEnd {
        let quarantine = value(&counters.quarantine);
        let used = in_slabs(counters) + quarantine;
        let idle = value(&counters.idle_slots) + value(&counters.idle_spans);
        let part = idle as f64 / (used + idle).max(1) as f64;
        AtEnd {
            live_spans: value(&counters.live_spans),
            live_in_spans: value(&counters.live_of[SPAN.index()]),
            live_in_large: value(&counters.live_large),
            idle_slots: value(&counters.idle_slots),
            idle_spans: value(&counters.idle_spans),
            idle_pages: value(&counters.idle_pages),
            idle_large: value(&counters.idle_large),
            holes: value(&counters.holes),
            quarantine,
            resident: value(&counters.resident_at_end),
            fragmentation: (part * 10_000.0).round() / 10_000.0,
        }
    }
}

/// The classes that have any slabs, or had live blocks at the last count.
fn slabs(counters: &Counters, complete: bool) -> Vec<Slabs> {
    let counts = SIZES.iter().zip(&counters.slabs).zip(&counters.live_of);
    let classes = counts.map(|((&size, count), live)| Slabs {
        size,
        count: value(count),
        live: complete.then(|| value(live) / u64::from(size)),
        live_bytes: complete.then(|| value(live)),
    });
    classes
        .filter(|class| class.count > 0 || class.live_bytes > Some(0))
        .collect()
}

/// The program and those that it started.
pub struct Tree {
    /// In the order in which they began to allocate.
    reports: Vec<Report>,
    /// Processes that are not among them.
    left_out: usize,
}

impl Tree {
    /// What `pages`, one for each time that a process became a program, tell of `program`, which was process `pid` and
    /// came to its `end`, and of all others.
    pub fn new(program: &OsStr, pid: u32, end: &End, pages: &[&Counters], left_out: usize) -> Tree {
        // Of a process that became one program after the other, the last one is reported.
        let key = |page: &Counters| (page.pid.load(Relaxed), page.started.load(Relaxed));
        let last = |&(index, page): &(usize, &&Counters)| {
            pages[index + 1..]
                .iter()
                .all(|later| key(later) != key(page))
        };
        let attached = pages
            .iter()
            .filter(|page| page.attached.load(Relaxed) != 0)
            .count();
        let kept = pages.iter().enumerate().filter(last);
        let reports = kept
            .map(|(_, page)| match page.pid.load(Relaxed) {
                own if own == pid => Report {
                    parent: Some(page.parent.load(Relaxed)),
                    ..Report::new(program, pid, end, page)
                },
                _ => Report::of_child(page),
            })
            .filter(|report| report.pid != 0);
        Tree {
            reports: reports.collect(),
            left_out: left_out + (pages.len() - attached),
        }
    }

    /// The text, ending with a newline.
    pub fn print(&self, form: Form) -> String {
        match form {
            Form::Json => self.reports.iter().map(Report::line).collect(),
            Form::Table => self.table(),
        }
    }

    fn table(&self) -> String {
        let mut table = plain();
        let head = [
            "process",
            "parent",
            "program",
            "handed out",
            "live",
            "peak",
            "resident",
        ];
        table.set_header(head.map(|name| right(name.into())));
        for report in &self.reports {
            let heap = report.heap.as_ref();
            let bytes = |bytes: Option<u64>| right(bytes.map_or("unknown".into(), human));
            table.add_row([
                right(report.pid.to_string()),
                right(report.parent.unwrap_or(0).to_string()),
                right(report.program.clone()),
                bytes(heap.and_then(|heap| heap.handed_out)),
                bytes(heap.and_then(|heap| heap.live)),
                bytes(heap.and_then(|heap| heap.peak)),
                bytes(report.peak_resident),
            ]);
        }
        let complete = self.reports.iter().all(|report| report.complete);
        let mut text = String::from("slabside: ");
        text += &several(self.reports.len() as u64, "process");
        text += if complete { "\n" } else { "; " };
        text += if complete { "" } else { CHILDREN };
        print(&table, &mut text);
        if self.left_out > 0 {
            let _ = writeln!(text, "and {} more, not counted", self.left_out);
        }
        text
    }
}

impl Report {
    /// What `counters` and the `end` tell of `program`, which was process `pid`.
    pub fn new(program: &OsStr, pid: u32, end: &End, counters: &Counters) -> Report {
        let resident = end.resident.max(value(&counters.resident));
        let complete = counters.complete.load(Relaxed) != 0;
        Report {
            schema: "slabside.run/1",
            program: program.to_string_lossy().into_owned(),
            pid,
            parent: None,
            exit_code: end.status.code(),
            signal: end.status.signal(),
            peak_resident: (resident > 0).then_some(resident),
            complete,
            heap: Heap::read(counters, complete),
            status: Some(end.status),
        }
    }

    /// What `counters` tell of a process that the program started.
    fn of_child(counters: &Counters) -> Report {
        let complete = counters.complete.load(Relaxed) != 0;
        let words = counters.program.iter().map(|word| word.load(Relaxed));
        let name: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let end = name.iter().position(|&byte| byte == 0);
        let resident = value(&counters.resident);
        Report {
            schema: "slabside.run/1",
            program: String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned(),
            pid: counters.pid.load(Relaxed),
            parent: Some(counters.parent.load(Relaxed)),
            exit_code: None,
            signal: None,
            peak_resident: (complete && resident > 0).then_some(resident),
            complete,
            heap: Heap::read(counters, complete),
            status: None,
        }
    }

    /// The report as a line of JSON.
    fn line(&self) -> String {
        serde_json::to_string(self).expect("plain numbers and strings have JSON forms") + "\n"
    }

    /// The report's text, ending with a newline.
    pub fn print(&self, form: Form) -> String {
        match form {
            Form::Table => self.table(),
            Form::Json => self.line(),
        }
    }

    fn table(&self) -> String {
        let mut text = format!(
            "slabside: {} (process {}), {}\n",
            self.program,
            self.pid,
            self.status.unwrap_or_default()
        );
        match &self.heap {
            Some(heap) => self.print_heap(heap, &mut text),
            None => text += NOT_ATTACHED,
        }
        text
    }

    fn print_heap(&self, heap: &Heap, text: &mut String) {
        if !self.complete {
            *text += NOT_COMPLETE;
        }
        print(&figures(heap, self.peak_resident), text);
        if !heap.slabs.is_empty() {
            *text += "slabs and live blocks by slot size:\n";
            print(&classes(&heap.slabs), text);
        }
    }
}

fn figures(heap: &Heap, resident: Option<u64>) -> Table {
    let mut table = plain();
    let slabs = heap.slabs.iter().map(|class| class.count).sum();
    bytes(&mut table, "handed out", heap.handed_out);
    bytes(&mut table, "live at the end", heap.live);
    bytes(&mut table, "live at its peak", heap.peak);
    bytes(&mut table, "break at the end", Some(heap.break_bytes));
    bytes(&mut table, "break at its peak", Some(heap.break_peak));
    count(&mut table, "break moved, times", heap.break_moves);
    bytes(&mut table, "mapped", Some(heap.mapped));
    bytes(&mut table, "metadata", Some(heap.metadata));
    bytes(&mut table, "purged", Some(heap.purged));
    bytes(&mut table, "peak resident, sampled", resident);
    count(&mut table, "slabs", slabs);
    count(&mut table, "spans", heap.spans);
    count(&mut table, "large blocks", heap.large);
    count(&mut table, "thread heaps", heap.heaps);
    if let Some(end) = &heap.at_end {
        bytes(&mut table, "live in spans", Some(end.live_in_spans));
        bytes(&mut table, "live in large blocks", Some(end.live_in_large));
        bytes(&mut table, "idle slots", Some(end.idle_slots));
        bytes(&mut table, "idle spans", Some(end.idle_spans));
        bytes(&mut table, "idle pages", Some(end.idle_pages));
        bytes(&mut table, "idle large blocks", Some(end.idle_large));
        bytes(&mut table, "holes, not resident", Some(end.holes));
        if end.quarantine > 0 {
            bytes(&mut table, "in a quarantine", Some(end.quarantine));
        }
        bytes(&mut table, "resident at the end", Some(end.resident));
        let percent = format!("{:.1} %", end.fragmentation * 100.0);
        table.add_row([Cell::new("fragmentation"), right(percent)]);
    }
    table
}

/// A class a line: slot size, slabs, live blocks and their bytes.
fn classes(slabs: &[Slabs]) -> Table {
    let mut table = plain();
    table.set_header(["size", "slabs", "live", "bytes"].map(|name| right(name.into())));
    for class in slabs {
        let known = |number: Option<u64>| right(number.map_or("unknown".into(), grouped));
        table.add_row([
            right(format!("{} B", grouped(u64::from(class.size)))),
            right(grouped(class.count)),
            known(class.live),
            known(class.live_bytes),
        ]);
    }
    table
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn bytes(table: &mut Table, name: &str, bytes: Option<u64>) {
    let human = bytes.map_or("unknown".into(), human);
    let exact = bytes.map_or(String::new(), |bytes| format!("{} B", grouped(bytes)));
    table.add_row([Cell::new(name), right(human), right(exact)]);
}

fn count(table: &mut Table, name: &str, count: u64) {
    table.add_row([Cell::new(name), right(grouped(count))]);
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn print(table: &Table, text: &mut String) {
    for line in table.lines() {
        let _ = writeln!(text, " {}", line.trim_end());
    }
}

/// `bytes` in the largest binary unit of which there is at least one, to a tenth.
fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = bytes.checked_ilog2().unwrap_or(0) as usize / 10;
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!(
        "{:.1} {}",
        bytes as f64 / (1u64 << (10 * unit)) as f64,
        units[unit]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn counters() -> Counters {
        let zero = || AtomicU64::new(0);
        let slabs = std::array::from_fn(|class| {
            AtomicU64::new(if class % 9 == 1 { class as u64 } else { 0 })
        });
        Counters {
            magic: zero(),
            version: AtomicU32::new(1),
            pid: AtomicU32::new(42),
            attached: AtomicU32::new(1),
            complete: AtomicU32::new(1),
            handed_out: AtomicU64::new(123_456_789),
            live: AtomicU64::new(65_536),
            peak: AtomicU64::new(1_500_000),
            break_bytes: AtomicU64::new(131_072),
            break_peak: AtomicU64::new(2 << 20),
            break_moves: AtomicU64::new(7),
            mapped: AtomicU64::new(0),
            metadata: AtomicU64::new(20_480),
            resident: AtomicU64::new(3 << 20),
            purged: AtomicU64::new(u64::MAX),
            spans: AtomicU64::new(4),
            large: AtomicU64::new(0),
            heaps: AtomicU64::new(1),
            slabs,
            live_of: std::array::from_fn(|class| AtomicU64::new(u64::from(class == 1) * 4096)),
            live_spans: zero(),
            live_large: zero(),
            idle_slots: AtomicU64::new(12_288),
            idle_spans: zero(),
            idle_pages: zero(),
            idle_large: zero(),
            holes: AtomicU64::new(8192),
            quarantine: zero(),
            resident_at_end: AtomicU64::new(3_000_000),
            parent: AtomicU32::new(7),
            started: zero(),
            program: [AtomicU64::new(u64::from_le_bytes(*b"child\0\0\0")), zero()],
        }
    }

    fn report(counters: &Counters, status: i32) -> Report {
        let end = End {
            status: ExitStatus::from_raw(status),
            resident: 4 << 20,
        };
        Report::new(OsStr::new("prog"), 42, &end, counters)
    }

    const GOLDEN: &str = "\
slabside: prog (process 42), exit status: 3
  handed out              117.7 MiB  123,456,789 B
  live at the end           4.0 KiB        4,096 B
  live at its peak          1.4 MiB    1,500,000 B
  break at the end        128.0 KiB      131,072 B
  break at its peak         2.0 MiB    2,097,152 B
  break moved, times              7
  mapped                        0 B            0 B
  metadata                 20.0 KiB       20,480 B
  purged                        0 B            0 B
  peak resident, sampled    4.0 MiB    4,194,304 B
  slabs                         333
  spans                           4
  large blocks                    0
  thread heaps                    1
  live in spans                 0 B            0 B
  live in large blocks          0 B            0 B
  idle slots               12.0 KiB       12,288 B
  idle spans                    0 B            0 B
  idle pages                    0 B            0 B
  idle large blocks             0 B            0 B
  holes, not resident       8.0 KiB        8,192 B
  resident at the end       2.9 MiB    3,000,000 B
  fragmentation              75.0 %
slabs and live blocks by slot size:
      size  slabs  live  bytes
      16 B      1   256  4,096
     160 B     10     0      0
     352 B     19     0      0
     768 B     28     0      0
   1,664 B     37     0      0
   3,584 B     46     0      0
   7,680 B     55     0      0
  15,360 B     64     0      0
  30,720 B     73     0      0
";

    /// Destructors that ran after the last count have freed blocks of two slabs, and released one of them.
    #[test]
    fn what_is_live_at_the_end_is_the_sum_of_what_is_listed() {
        let counters = counters();
        counters.live.store(1000, Relaxed);
        counters.live_of[4].store(48 * 3, Relaxed);
        counters.live_of[SPAN.index()].store(40_960, Relaxed);
        counters.live_large.store(1 << 20, Relaxed);
        let heap = report(&counters, 0).heap.unwrap();
        let listed: u64 = heap.slabs.iter().filter_map(|class| class.live_bytes).sum();
        let at_end = heap.at_end.unwrap();
        let all = listed + at_end.live_in_spans + at_end.live_in_large;
        assert_eq!(heap.live, Some(all));
        assert_eq!(all, 4096 + 48 * 3 + 40_960 + (1 << 20));
    }

    #[test]
    fn the_table_reads_as_it_should() {
        assert_eq!(report(&counters(), 3 << 8).print(Form::Table), GOLDEN);
    }

    #[test]
    fn an_incomplete_count_is_said_to_be_one() {
        let counters = counters();
        counters.complete.store(0, Relaxed);
        let text = report(&counters, libc::SIGKILL).print(Form::Table);
        let head =
            "slabside: prog (process 42), signal: 9 (SIGKILL)\nIt ended without a last count";
        assert!(text.starts_with(head), "{text}");
        let live = text.lines().find(|line| line.contains("live at the end"));
        assert!(live.is_some_and(|line| line.ends_with("unknown")), "{text}");
        let json = report(&counters, libc::SIGKILL).print(Form::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["heap"]["live"].is_null() && json["heap"]["at_end"].is_null());
        assert!(json["heap"]["slabs"][0]["live"].is_null());
    }

    #[test]
    fn each_process_is_told_once_and_as_the_last_program_that_it_became() {
        let (main, before, child) = (counters(), counters(), counters());
        before.pid.store(43, Relaxed);
        before.handed_out.store(1, Relaxed);
        child.pid.store(43, Relaxed);
        child.complete.store(0, Relaxed);
        let end = End {
            status: ExitStatus::from_raw(0),
            resident: 0,
        };
        let tree = Tree::new(OsStr::new("prog"), 42, &end, &[&main, &before, &child], 0);
        let lines = tree.print(Form::Json);
        let records: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told = |field: &str| -> Vec<_> { records.iter().map(|one| &one[field]).collect() };
        assert_eq!(told("pid"), [42, 43]);
        assert_eq!(told("program"), ["prog", "child"]);
        assert_eq!(told("parent"), [7, 7]);
        assert_eq!(told("complete"), [true, false]);
        let text = tree.print(Form::Table);
        assert!(text.starts_with("slabside: 2 processes; where a figure is missing"));
        assert!(text.contains("unknown"), "{text}");
    }

    #[test]
    fn a_program_that_never_attached_has_no_zeros() {
        let counters = counters();
        counters.attached.store(0, Relaxed);
        let report = report(&counters, 0);
        let text = report.print(Form::Table);
        assert_eq!(
            text,
            format!("slabside: prog (process 42), exit status: 0\n{NOT_ATTACHED}")
        );
        let json: serde_json::Value = serde_json::from_str(&report.print(Form::Json)).unwrap();
        assert!(json["heap"].is_null());
    }

    #[test]
    fn the_json_has_every_figure_as_a_number() {
        let json = report(&counters(), libc::SIGSEGV).print(Form::Json);
        assert!(json.starts_with("{\"schema\":\"slabside.run/1\","));
        // One record on a line, also where reports are appended to a file.
        assert_eq!(json.find('\n'), Some(json.len() - 1));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (json["signal"].as_i64(), json["exit_code"].as_i64()),
            (Some(11), None)
        );
        assert_eq!(json["peak_resident"], 4 << 20);
        assert_eq!(json["heap"]["break_peak"], 2 << 20);
        assert_eq!(json["heap"]["purged"], 0);
        assert_eq!(json["heap"]["slabs"][0]["size"], 16);
        assert_eq!(json["heap"]["slabs"][0]["live"], 256);
        assert_eq!(json["heap"]["at_end"]["fragmentation"], 0.75);
        assert_eq!(json["heap"]["slabs"].as_array().unwrap().len(), 9);
    }

    #[test]
    fn bytes_are_shown_in_the_largest_unit() {
        let shown = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 20, u64::MAX].map(human);
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1024.0 KiB",
                "1.0 MiB",
                "16.0 EiB"
            ]
        );
    }

    #[test]
    fn digits_are_grouped_by_three() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}

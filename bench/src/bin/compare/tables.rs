//! The page docs/benchmarks.md: what was found, then a table for each kind of figure.

use crate::machine;
use crate::options::Options;
use crate::results::{geometric_mean, median, peak, time, Figure, Overhead, Results, RowRuns};
use slabside_bench::cachegrind::COUNTS;
use slabside_bench::child::Run;
use slabside_bench::instructions::{FUNCTIONS, SIZES};
use slabside_bench::overhead::{Stage, STAGES};
use slabside_bench::workloads::Resident;
use std::fmt::Write;

/// Peers whose resident bytes slabside's are held against.
pub const SMALLEST_OF: [&str; 4] = ["mimalloc2", "mimalloc3", "jemalloc", "tcmalloc"];

/// A table of Markdown.
struct Table(String);

impl Table {
    fn new(header: &[String]) -> Self {
        let mut table = Table(String::new());
        table.row(header);
        table.row(
            &std::iter::once("---")
                .chain(std::iter::repeat("--:"))
                .take(header.len())
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        table
    }

    /// A table whose first columns are `first`, then one for each allocator, then `last`.
    fn by_allocator(results: &Results, first: &[&str], last: &[&str]) -> Self {
        let names = results
            .allocators
            .iter()
            .map(|library| library.name.as_str());
        let header = first
            .iter()
            .copied()
            .chain(names)
            .chain(last.iter().copied());
        Table::new(&header.map(str::to_owned).collect::<Vec<_>>())
    }

    fn row(&mut self, cells: &[String]) {
        self.0 += &format!("| {} |\n", cells.join(" | "));
    }
}

/// A number with three significant digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), short)
}

/// The cells of one row by allocator, the least in bold.
fn cells(values: &[Option<f64>]) -> Vec<String> {
    let least = values.iter().flatten().copied().min_by(f64::total_cmp);
    let bold = |value: &Option<f64>| {
        if value.is_some() && *value == least {
            format!("**{}**", cell(*value))
        } else {
            cell(*value)
        }
    };
    values.iter().map(bold).collect()
}

const MEGA: f64 = 1e6;

/// The page of times and memory. Empty where none of them was measured.
pub fn benchmarks(results: &Results, options: &Options) -> String {
    let kind = if options.quick {
        "a quick run"
    } else {
        "a full run"
    };
    let title = format!(
        "# Benchmarks\n\nWritten by `bench/compare.sh`, {kind} of {} rounds, on {}. Each row runs in a process of its own \
         for each allocator, and the allocators take turns.",
        options.rounds,
        machine::date()
    );
    let parts = [
        findings(results),
        rows(results, "Time", TIME, |value| value, time),
        rows(
            results,
            "Peak resident bytes",
            PEAK,
            |value| value / MEGA,
            peak,
        ),
        swell(results),
        latency(results),
        heaps(results),
        attended(results),
        overhead(results),
        given_back(results),
        slabside_overhead(results),
        instructions(results),
    ];
    under(&title, results, &parts)
}

/// The page of counts. Empty where nothing was counted.
pub fn counts(results: &Results) -> String {
    let title = format!(
        "# Counts\n\nWritten by `bench/compare.sh` on {}.",
        machine::date()
    );
    under(&title, results, &[costs(results)])
}

/// The parts that say something, under a title and what they were made with.
fn under(title: &str, results: &Results, parts: &[String]) -> String {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
    parts
        .iter()
        .fold(String::new(), |text, part| match text.is_empty() {
            true => format!("{title}{}\n{part}", made_with(results)),
            false => format!("{text}\n{part}"),
        })
}

const TIME: &str = "Nanoseconds an operation, as the median of all rounds. Rows of one thread count processor time, with the \
                    kernel's part. Rows with threads (handoff, mayflies, scale) count wall time. Each file in \
                    `bench/src/workloads` says what one operation is. The fastest is in bold.\n\n\
                    ![time over mimalloc 2](plots/time.svg)\n\n![operations by threads](plots/scale.svg)\n";
const PEAK: &str = "The most megabytes (10^6 bytes) that were resident, as the median of all rounds. They include code and \
                    start-up, but not the workload's own tables. The least is in bold.\n\n\
                    ![peak over mimalloc 2](plots/memory.svg)\n";

/// On which machine, by which compiler, and which allocators.
fn made_with(results: &Results) -> String {
    let versions = results
        .allocators
        .iter()
        .map(|library| format!("{} {}", library.name, library.version));
    format!(
        "\n\n- Machine: {}. Load at the end: {}\n- Compiler: {}\n- Allocators: {}\n",
        machine::description(),
        machine::load(),
        machine::compiler(),
        versions.collect::<Vec<_>>().join(", ")
    )
}

fn findings(results: &Results) -> String {
    let Some(slabside) = results
        .place("slabside")
        .filter(|_| !results.rows.is_empty())
    else {
        return String::new();
    };
    let mut lines = vec!["## Against the peers\n".to_owned()];
    for peer in ["mimalloc2", "mimalloc3"] {
        lines.extend(mean(results, "Time", time, (slabside, peer, 0.80)));
    }
    lines.extend(behind(results, "Time", time, (slabside, &results.peers())));
    lines.extend(mean(
        results,
        "Peak resident",
        peak,
        (slabside, "mimalloc2", 0.60),
    ));
    lines.extend(behind(
        results,
        "Peak resident",
        peak,
        (slabside, &results.places(&SMALLEST_OF)),
    ));
    lines.extend(kept(results, slabside));
    lines.join("\n") + "\n"
}

/// The mean of a figure over a peer's, and its goal.
fn mean(
    results: &Results,
    what: &str,
    figure: Figure,
    (slabside, peer, goal): (usize, &str, f64),
) -> Option<String> {
    let mean = geometric_mean(&results.ratios(figure, (slabside, results.place(peer)?)))?;
    let verdict = if mean <= goal { "reached" } else { "missed" };
    Some(format!("- {what}, divided by {peer}'s, geometric mean of all rows: **{mean:.2}** (goal {goal:.2}: {verdict})"))
}

/// The rows that are more than a tenth above the best of some peers.
fn behind(
    results: &Results,
    what: &str,
    figure: Figure,
    (slabside, peers): (usize, &[usize]),
) -> Option<String> {
    let rows = results.behind(figure, slabside, peers, 1.10);
    let least = |&(row, ratio, best): &(&str, f64, usize)| {
        format!("{row} {ratio:.2} ({})", results.allocators[best].name)
    };
    let names: Vec<_> = peers
        .iter()
        .map(|&place| results.allocators[place].name.as_str())
        .collect();
    let list = if rows.is_empty() {
        "none".to_owned()
    } else {
        rows.iter().map(least).collect::<Vec<_>>().join(", ")
    };
    Some(format!(
        "- {what}, rows above 1.10 times the best of {}: {list}",
        names.join(", ")
    ))
    .filter(|_| !peers.is_empty())
}

fn kept(results: &Results, slabside: usize) -> Option<String> {
    let row = results.rows.iter().find(|row| row.row.is_swell())?;
    let later = median(
        row.runs[slabside]
            .iter()
            .map(|run| resident(run).later as f64)
            .collect(),
    )?;
    let whole = format!(
        "- Resident one second after `swell` freed everything: {} MB in the whole process",
        short(later / MEGA)
    );
    let Some(bare) = results
        .overheads
        .iter()
        .find_map(|case| bare(results, case))
    else {
        return Some(format!(
            "{whole} (goal: at most 1 more than in a process that allocates nothing)"
        ));
    };
    Some(format!(
        "{whole}. A process that allocates nothing has {}, so **{} MB** stay (goal: under 1)",
        short(bare as f64 / MEGA),
        short((later - bare as f64) / MEGA)
    ))
}

/// A table of one figure for all rows.
fn rows(
    results: &Results,
    title: &str,
    text: &str,
    scale: fn(f64) -> f64,
    figure: Figure,
) -> String {
    if results.rows.is_empty() {
        return String::new();
    }
    let mut table = Table::by_allocator(
        results,
        &["row", "what"],
        &["over mimalloc2", "over the best peer"],
    );
    for row in &results.rows {
        let medians = row.medians(figure);
        let scaled: Vec<_> = medians.iter().map(|value| value.map(scale)).collect();
        let mut line = vec![row.row.name.to_owned(), row.row.about.to_owned()];
        line.extend(cells(&scaled));
        line.extend(against(results, row, figure));
        table.row(&line);
    }
    format!("## {title}\n\n{text}\n{}", table.0)
}

/// slabside's figure over mimalloc 2's, and over the best peer's with its name.
fn against(results: &Results, row: &RowRuns, figure: Figure) -> [String; 2] {
    let medians = row.medians(figure);
    let own = results.place("slabside").and_then(|place| medians[place]);
    let other = results.place("mimalloc2").and_then(|place| medians[place]);
    let best = row.least(figure, &results.peers());
    let over_best = own.zip(best).map(|(own, (place, least))| {
        format!("{:.2} {}", own / least, results.allocators[place].name)
    });
    [
        own.zip(other)
            .map_or("-".to_owned(), |(own, other)| format!("{:.2}", own / other)),
        over_best.unwrap_or("-".to_owned()),
    ]
}

/// What a run of a row that swells saw. Zero for others.
pub fn resident(run: &Run) -> Resident {
    run.outcome.resident.unwrap_or_default()
}

/// Moments at which a heap that swelled is looked at.
pub const MOMENTS: [(&str, Figure); 3] = [
    ("at the peak", |run| resident(run).peak as f64),
    ("just after", |run| resident(run).after as f64),
    ("a second and 1,000 calls later", |run| {
        resident(run).later as f64
    }),
];

fn swell(results: &Results) -> String {
    let Some(row) = results.rows.iter().find(|row| row.row.is_swell()) else {
        return String::new();
    };
    let mut table = Table::by_allocator(results, &["resident, MB"], &[]);
    for (name, figure) in MOMENTS {
        let values: Vec<_> = row
            .medians(figure)
            .iter()
            .map(|value| value.map(|bytes| bytes / MEGA))
            .collect();
        table.row(&[vec![name.to_owned()], cells(&values)].concat());
    }
    format!("## A heap that swells and is freed\n\nAnonymous resident bytes of the whole process.\n\n![resident](plots/swell.svg)\n\n{}", table.0)
}

/// A figure of the runs in which each call was timed, in nanoseconds.
pub const LATENCIES: [(&str, Figure); 3] = [
    ("median", |run| {
        run.latency.unwrap_or_default().median as f64
    }),
    ("p99.9", |run| run.latency.unwrap_or_default().p999 as f64),
    ("max", |run| run.latency.unwrap_or_default().max as f64),
];

fn latency(results: &Results) -> String {
    if results.latencies.is_empty() {
        return String::new();
    }
    let mut table = Table::by_allocator(results, &["row", "ns"], &[]);
    for (row, (name, figure)) in results
        .latencies
        .iter()
        .flat_map(|row| LATENCIES.map(|latency| (row, latency)))
    {
        table.row(
            &[
                vec![row.row.name.to_owned(), name.to_owned()],
                cells(&row.medians(figure)),
            ]
            .concat(),
        );
    }
    let text = "Nanoseconds of single calls of malloc and free. Each call is timed, in separate runs. In rows with threads the slowest \
                call contains the kernel's switches between them.\n\n![p99.9](plots/latency_p999.svg)\n\n![slowest call](plots/latency_max.svg)\n";
    format!("## The slowest calls\n\n{text}\n{}", table.0)
}

/// The tables of rows outside the means: by question a heading, and what an operation is.
const HEAP_TABLES: [(&str, &str, &str); 4] = [
    (
        "heap",
        "Large heaps",
        "Nanoseconds a random replacement, in heaps of growing size. Every allocator pays for cache and TLB misses.\n\n\
         ![time by heap size](plots/heap.svg)",
    ),
    (
        "mixed",
        "Small and medium blocks mixed",
        "Nanoseconds a random replacement of blocks of 8 bytes to 32 KiB.",
    ),
    (
        "mid",
        "Medium blocks",
        "Nanoseconds a random replacement with 30 MB live, and a free in random order (`-free`).",
    ),
    (
        "ring",
        "Blocks of 128 to 256 KiB, first in, first out",
        "Nanoseconds a free and an allocation.",
    ),
];

/// How one allocator stands to the best of its peers in a row.
fn against_best(results: &Results, row: &RowRuns, figure: Figure) -> String {
    let ours = results
        .place("slabside")
        .and_then(|place| row.medians(figure)[place]);
    let best = row.least(figure, &results.peers());
    match (ours, best) {
        (Some(ours), Some((_, best))) => format!("{:.2}", ours / best),
        _ => "-".to_owned(),
    }
}

/// Rows by allocator: medians, then the least of all rounds.
fn heap_rows(results: &Results, rows: &[&RowRuns]) -> String {
    let mut table = Table::by_allocator(results, &["row", "what", ""], &["over the best peer"]);
    for row in rows {
        let least = |runs: &Vec<Run>| runs.iter().map(time).min_by(f64::total_cmp);
        let least: Vec<_> = row.runs.iter().map(least).collect();
        let cells_of =
            |name: &str, about: &str, kind: &str, values: &[Option<f64>], last: String| {
                let first = vec![name.to_owned(), about.to_owned(), kind.to_owned()];
                [first, cells(values), vec![last]].concat()
            };
        let ratio = against_best(results, row, time);
        table.row(&cells_of(
            row.row.name,
            row.row.about,
            "median",
            &row.medians(time),
            ratio,
        ));
        table.row(&cells_of("", "", "least", &least, String::new()));
    }
    table.0
}

/// Rows that give back much, beside slabside with a thread that does so.
fn attended(results: &Results) -> String {
    let Some(slabside) = results.place("slabside") else {
        return String::new();
    };
    let header = [
        "row",
        "what",
        "slabside",
        "background",
        "best peer",
        "",
        "background over it",
    ];
    let mut table = Table::new(&header.map(str::to_owned));
    let all = results.rows.iter().chain(&results.heaps);
    let rows: Vec<_> = all.filter(|row| !row.attended.is_empty()).collect();
    if rows.is_empty() {
        return String::new();
    }
    for row in rows {
        let own = median(row.attended.iter().map(time).collect());
        let best = row.least(time, &results.peers());
        table.row(&[
            row.row.name.to_owned(),
            row.row.about.to_owned(),
            cell(row.medians(time)[slabside]),
            cell(own),
            cell(best.map(|(_, least)| least)),
            best.map_or(String::new(), |(place, _)| {
                results.allocators[place].name.clone()
            }),
            own.zip(best).map_or("-".to_owned(), |(own, (_, least))| {
                format!("{:.2}", own / least)
            }),
        ]);
    }
    let text = "Rows that free much. By default a free gives back itself what is too much for an idle process. With \
                `background:on` a thread does so a moment later. Its work is in the time of a row as far as it falls \
                into that. Nanoseconds an operation, as the median of all rounds.";
    format!(
        "## With a thread in the background\n\n{text}\n\n{}",
        table.0
    )
}

/// Resident bytes over live ones after the last replacement, of the rows that look at them.
fn held(results: &Results) -> String {
    let over_live: Figure = |run| {
        let held = run.outcome.held.unwrap_or_default();
        held.resident as f64 / held.live.max(1) as f64
    };
    let looks = |row: &&RowRuns| {
        row.runs
            .iter()
            .flatten()
            .any(|run| run.outcome.held.is_some())
    };
    let mut table = Table::by_allocator(results, &["row"], &["over the best peer"]);
    for row in results.heaps.iter().filter(looks) {
        let ratio = against_best(results, row, over_live);
        table.row(
            &[
                vec![row.row.name.to_owned()],
                cells(&row.medians(over_live)),
                vec![ratio],
            ]
            .concat(),
        );
    }
    let text =
        "Anonymous resident bytes divided by the bytes asked for and live, after the last replacement.";
    format!(
        "### Resident over live after replacing\n\n{text}\n\n{}",
        table.0
    )
}

fn heaps(results: &Results) -> String {
    let mut text = String::new();
    for (question, title, about) in HEAP_TABLES {
        let rows: Vec<_> = results
            .heaps
            .iter()
            .filter(|row| row.row.question == question)
            .collect();
        if !rows.is_empty() {
            let _ = write!(
                text,
                "## {title}\n\n{about}\n\n{}\n",
                heap_rows(results, &rows)
            );
        }
    }
    if results
        .heaps
        .iter()
        .any(|row| ["mid", "mixed"].contains(&row.row.question))
    {
        text += &held(results);
    }
    text
}

/// Anonymous resident bytes of a bare process: what glibc's had at the start.
fn bare(results: &Results, case: &Overhead) -> Option<usize> {
    Some(case.stages[results.place("glibc")?].as_ref()?[0].resident)
}

/// Resident bytes that an allocator added to a bare process.
pub fn added(results: &Results, case: &Overhead, place: usize, stage: usize) -> Option<f64> {
    let bare = bare(results, case)?;
    Some(
        case.stages[place].as_ref()?[stage]
            .resident
            .saturating_sub(bare) as f64,
    )
}

/// Resident bytes beside each live one, plus that one.
pub fn over_live(results: &Results, case: &Overhead, place: usize) -> Option<f64> {
    let live = case.stages[place].as_ref()?[1].live as f64;
    Some(added(results, case, place, 1)? / live)
}

fn overhead(results: &Results) -> String {
    if results.overheads.is_empty() {
        return String::new();
    }
    let mut table = Table::by_allocator(results, &["blocks", "size"], &[]);
    for case in &results.overheads {
        let ratios: Vec<_> = (0..results.allocators.len())
            .map(|place| over_live(results, case, place))
            .collect();
        table.row(
            &[
                vec![case.count.to_string(), case.mix.to_owned()],
                cells(&ratios),
            ]
            .concat(),
        );
    }
    let text = "Anonymous resident bytes divided by the bytes asked for and live. Those of a process that allocates nothing are \
                subtracted.\n\n\
                ![resident over live](plots/overhead.svg)\n";
    format!("## Bytes beside the live ones\n\n{text}\n{}", table.0)
}

fn given_back(results: &Results) -> String {
    let Some(most) = results.overheads.iter().map(|case| case.count).max() else {
        return String::new();
    };
    let mut table = Table::by_allocator(results, &["size", "freed"], &[]);
    for case in results.overheads.iter().filter(|case| case.count == most) {
        for (stage, name) in STAGES.iter().enumerate().skip(1) {
            let megabytes = |place| added(results, case, place, stage).map(|bytes| bytes / MEGA);
            let values: Vec<_> = (0..results.allocators.len()).map(megabytes).collect();
            table.row(&[vec![case.mix.to_owned(), name.to_string()], cells(&values)].concat());
        }
    }
    format!("### After random freeing\n\nMegabytes resident after {most} blocks (fewer of the large sizes). Those of a process that allocates nothing are subtracted.\n\n{}", table.0)
}

fn slabside_overhead(results: &Results) -> String {
    let Some(place) = results
        .place("slabside")
        .filter(|_| !results.overheads.is_empty())
    else {
        return String::new();
    };
    let mut table = Table::new(
        &[
            "blocks",
            "size",
            "freed",
            "live",
            "break",
            "resident",
            "metadata",
            "break/live",
            "metadata/live",
        ]
        .map(str::to_owned),
    );
    for case in &results.overheads {
        for (stage, figures) in case.stages[place].iter().flatten().enumerate().skip(1) {
            let bytes = added(results, case, place, stage).unwrap_or_default();
            table.row(&slabside_stage(case, STAGES[stage], figures, bytes));
        }
    }
    format!(
        "### slabside: break, resident and metadata\n\nBytes.\n\n{}",
        table.0
    )
}

fn slabside_stage(case: &Overhead, name: &str, stage: &Stage, resident: f64) -> [String; 9] {
    let over_live = |bytes: usize| cell((stage.live > 0).then(|| bytes as f64 / stage.live as f64));
    [
        case.count.to_string(),
        case.mix.to_owned(),
        name.to_owned(),
        stage.live.to_string(),
        stage.program_break.to_string(),
        resident.to_string(),
        stage.metadata.to_string(),
        over_live(stage.program_break),
        over_live(stage.metadata),
    ]
}

/// slabside's value over the least of its peers', with that one's name.
fn values_against_best(results: &Results, values: &[Option<f64>]) -> String {
    let own = results.place("slabside").and_then(|place| values[place]);
    let peers = results.peers().into_iter();
    let known = peers.filter_map(|place| Some((place, values[place]?)));
    let best = known.min_by(|a, b| a.1.total_cmp(&b.1));
    match (own, best) {
        (Some(own), Some((place, least))) if least >= 0.01 => {
            format!("{:.2} {}", own / least, results.allocators[place].name)
        }
        _ => "-".to_owned(),
    }
}

fn costs(results: &Results) -> String {
    if results.counts.is_empty() {
        return String::new();
    }
    let table = |(count, (name, _)): (usize, &(&str, &[&str]))| {
        let mut table = Table::by_allocator(results, &["row"], &["over the best peer"]);
        for row in &results.counts {
            let values: Vec<_> = row
                .costs
                .iter()
                .map(|cost| Some(cost.as_ref()?[count]))
                .collect();
            let against = values_against_best(results, &values);
            table.row(&[vec![row.row.name.to_owned()], cells(&values), vec![against]].concat());
        }
        format!("### {name}\n\n{}", table.0)
    };
    let tables: Vec<_> = COUNTS.iter().enumerate().map(table).collect();
    let text = "Cachegrind counts what an operation costs, with what the workload itself does. It simulates a first cache of 48 \
                KiB for data and a last one of 2 MiB. The making of the heap is not counted. A dash means that the allocator \
                does not run under valgrind.\n";
    format!(
        "## What an operation costs\n\n{text}\n{}",
        tables.join("\n")
    )
}

fn instructions(results: &Results) -> String {
    if results.instructions.iter().all(Option::is_none) {
        return String::new();
    }
    let mut table = Table::by_allocator(results, &["function", "bytes"], &[]);
    for (function, size) in FUNCTIONS
        .iter()
        .flat_map(|function| SIZES.map(|size| (*function, size)))
    {
        let counts = results
            .instructions
            .iter()
            .map(|counts| counts.as_ref()?.median(function, size).map(|n| n as f64));
        let plain = counts
            .map(|count| count.map_or("-".to_owned(), |n| n.to_string()))
            .collect();
        table.row(&[vec![function.to_owned(), size.to_string()], plain].concat());
    }
    format!("## Instructions\n\nCallgrind counts them for the median call, with its `ret` and without the call instruction. A dash means that the allocator does not run under valgrind.\n\n{}", table.0)
}

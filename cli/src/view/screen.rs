//! What `slabside top` shows: lines of text, printed once or drawn over and over.
//!
//! Knows figures, and nothing of processes.

use super::{grouped, human, several, signed};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::Frame;
use slabside_view::figures::{Class, Figures};
use slabside_view::kinds::Kind;
use std::fmt::Write;

/// Signs of a full bar.
const BAR: u64 = 40;
/// Rows of classes and owners that `--once` prints.
pub const ROWS: usize = 14;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The program, and the process's number.
    pub title: String,
    /// Number of its threads. 0 means not known.
    pub threads: usize,
    /// Number of its heaps.
    pub heaps: usize,
    /// Milliseconds that reading took.
    pub took: u64,
    /// Whether it stood still.
    pub stopped: bool,
    /// For how many milliseconds it was stopped, if so.
    pub held: Option<f64>,
    /// The figures.
    pub figures: Figures,
    /// Those that changes are compared with, and seconds since then.
    pub before: Option<(Figures, f64)>,
    /// What live blocks look like, where that was asked for.
    pub types: Option<Vec<Kind>>,
}

/// What the rows below the sums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Rows {
    /// Size classes
    #[default]
    #[value(name = "class")]
    Classes,
    /// Heaps and their threads
    #[value(name = "owner")]
    Owners,
    /// What blocks look like
    #[value(name = "type")]
    Types,
}

impl Rows {
    /// The next ones.
    pub fn next(self) -> Rows {
        match self {
            Rows::Classes => Rows::Owners,
            Rows::Owners => Rows::Types,
            Rows::Types => Rows::Classes,
        }
    }
}

/// By what size classes are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes of their pages.
    #[default]
    Held,
    /// Bytes of live slots.
    Live,
    /// Bytes of idle and waiting slots.
    Unused,
    /// Size.
    Size,
}

impl Sort {
    /// The next way.
    pub fn next(self) -> Sort {
        match self {
            Sort::Held => Sort::Live,
            Sort::Live => Sort::Unused,
            Sort::Unused => Sort::Size,
            Sort::Size => Sort::Held,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Sort::Held => "held",
            Sort::Live => "live",
            Sort::Unused => "unused",
            Sort::Size => "size",
        }
    }

    fn key(self, class: &Class) -> u64 {
        match self {
            Sort::Held => class.held,
            Sort::Live => class.live * class.size,
            Sort::Unused => (class.idle + class.waiting) * class.size,
            Sort::Size => u64::MAX - class.size,
        }
    }
}

/// The head line.
fn head(view: &View) -> String {
    let mut text = view.title.clone();
    if view.threads > 0 {
        let _ = write!(text, "  {}", several(view.threads as u64, "thread"));
    }
    if view.heaps > 1 {
        let _ = write!(text, "  {} heaps", view.heaps);
    }
    let how = match (view.held, view.stopped) {
        (Some(held), _) => format!("stopped for {held:.1} ms"),
        (None, true) => "stopped".into(),
        (None, false) => "not stopped".to_string(),
    };
    let _ = write!(
        text,
        "  heap {} resident of {}  read in {} ms, {how}",
        human(view.figures.of_heap()),
        human(view.figures.resident),
        view.took
    );
    text
}

/// The lines of the sum: what is resident, by what it is.
pub fn sums(view: &View) -> Vec<String> {
    let figures = &view.figures;
    let mut lines = Vec::new();
    let mut line = |name: &str, bytes: u64, note: String| {
        let all = figures.resident.max(1);
        let part = (u128::from(bytes) * u128::from(BAR) / u128::from(all)) as u64;
        let signs = part.max(u64::from(bytes * 200 > all)).min(BAR) as usize;
        let percent = bytes as f64 * 100.0 / all as f64;
        let text = format!(
            "  {name:<12} {:>11} {:<40} {percent:>5.1} %  {note}",
            human(bytes),
            "#".repeat(signs)
        );
        lines.push(text.trim_end().to_string());
    };
    let mut live = several(figures.blocks, "block");
    if figures.allocated > figures.live {
        let absent = human(figures.allocated - figures.live);
        let _ = write!(live, ", {absent} more not resident");
    }
    if let Some((before, seconds)) = &view.before {
        let by = figures.allocated as i64 - before.allocated as i64;
        let rate = |by: f64| (by / seconds.max(1e-3)) as i64;
        let out = figures.handed_out as i64 - before.handed_out as i64;
        let _ = write!(
            live,
            ", {}/s, {}/s handed out",
            signed(rate(by as f64)),
            human(rate(out as f64).max(0) as u64)
        );
    }
    line("live", figures.live, live);
    if figures.quarantined_blocks > 0 {
        let note = several(figures.quarantined_blocks, "freed block");
        line("quarantine", figures.quarantine, note);
    }
    let waits = figures.owners.iter().max_by_key(|owned| owned.waiting);
    let note = waits
        .filter(|owned| owned.waiting > 0)
        .map_or(String::new(), |owned| {
            format!("freed by other threads, not collected by {}", whose(owned))
        });
    line("waiting", figures.waiting, note);
    line(
        "idle slots",
        figures.idle_slots,
        format!("in {}", several(figures.idle_in, "slab")),
    );
    line("holes", figures.holes, String::new());
    line("free pages", figures.free_pages, String::new());
    line("kept", figures.kept, String::new());
    line("metadata", figures.metadata, String::new());
    line("not the heap", figures.rest, String::new());
    line("= resident", figures.resident, String::new());
    lines
}

fn whose(owned: &slabside_view::figures::Owned) -> String {
    let mut parts: Vec<&str> = Vec::new();
    if !owned.name.is_empty() {
        parts.push(&owned.name);
    }
    if !owned.doing.is_empty() {
        parts.push(&owned.doing);
    }
    match parts.is_empty() {
        true => owned.heap.clone(),
        false => format!("{} ({})", owned.heap, parts.join(", ")),
    }
}

/// The table of classes, its head first.
pub fn classes(figures: &Figures, sort: Sort, most: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{:>8} {:>9} {:>12} {:>12} {:>6} {:>11} {:>11} {:>11} {:>11}",
        "size", "slabs", "slots", "live", "used", "held", "idle", "waiting", "pins"
    )];
    let mut all: Vec<&Class> = figures.classes.iter().collect();
    all.sort_by_key(|class| std::cmp::Reverse(sort.key(class)));
    for class in all.iter().take(most) {
        let size = match class.span {
            true => format!("{}s", class.size),
            false => class.size.to_string(),
        };
        lines.push(format!(
            "{size:>8} {:>9} {:>12} {:>12} {:>5.1}% {:>11} {:>11} {:>11} {:>11}",
            grouped(class.slabs),
            grouped(class.slots),
            grouped(class.live),
            class.live as f64 * 100.0 / class.slots.max(1) as f64,
            human(class.held),
            human(class.idle * class.size),
            human(class.waiting * class.size),
            human(class.pinned)
        ));
    }
    if all.len() > most {
        lines.push(format!("{:>8} and {} more", "", all.len() - most));
    }
    if figures.large_blocks > 0 {
        lines.push(format!(
            "{:>8} {:>9} large block{}, {}",
            "",
            grouped(figures.large_blocks),
            if figures.large_blocks == 1 { "" } else { "s" },
            human(figures.large)
        ));
    }
    lines
}

/// The table of owners, its head first.
pub fn owners(figures: &Figures, most: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<40} {:>9} {:>11} {:>11}",
        "owner", "slabs", "live", "waiting"
    )];
    for owned in figures.owners.iter().take(most) {
        let mut name = owned.heap.clone();
        if owned.tid != 0 {
            let _ = write!(name, "  tid {}", owned.tid);
        }
        if !owned.name.is_empty() {
            let _ = write!(name, " {}", owned.name);
        }
        let asleep = if owned.waiting > 0 && owned.doing.starts_with("asleep") {
            format!("   <-- {}", owned.doing)
        } else {
            String::new()
        };
        lines.push(format!(
            "{name:<40} {:>9} {:>11} {:>11}{asleep}",
            grouped(owned.slabs),
            human(owned.live),
            human(owned.waiting)
        ));
    }
    if figures.owners.len() > most {
        lines.push(format!("and {} more", figures.owners.len() - most));
    }
    lines
}

/// The table of what blocks look like, its head first.
pub fn types(view: &View, most: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{:>12} {:>11} {:>11}  {}",
        "count", "size", "bytes", "type"
    )];
    let all = view.types.as_deref().unwrap_or_default();
    for kind in all.iter().take(most) {
        let size = match kind.size {
            0 => "large".into(),
            size => human(size),
        };
        let looks = match kind.looks.as_str() {
            "" => "(not resident)",
            looks => looks,
        };
        lines.push(format!(
            "{:>12} {size:>11} {:>11}  {looks}",
            grouped(kind.count),
            human(kind.bytes)
        ));
    }
    if all.len() > most {
        lines.push(format!("{:>12} and {} more", "", all.len() - most));
    }
    lines
}

/// What can be done, if anything stands out.
pub fn advice(figures: &Figures) -> Option<String> {
    let heap = figures.of_heap().max(1);
    let owner = figures.owners.iter().max_by_key(|owned| owned.waiting);
    if figures.waiting * 8 > heap {
        let who = owner.map_or(String::new(), whose);
        return Some(format!(
            "advice: {} wait for {who}, which does not allocate: it collects them at its next malloc",
            human(figures.waiting)
        ));
    }
    if figures.pinned * 4 > heap {
        return Some(format!(
            "advice: {} are kept alive by slabs that are at most an eighth full; see `slabside map --pins`",
            human(figures.pinned)
        ));
    }
    None
}

/// All of it, as `--once` prints it, or all rows of one table.
pub fn text(view: &View, by: Option<Rows>) -> String {
    let mut lines = vec![head(view)];
    lines.extend(sums(view));
    match by {
        None => {
            lines.extend(classes(&view.figures, Sort::Held, ROWS));
            lines.extend(owners(&view.figures, ROWS));
        }
        Some(Rows::Classes) => lines.extend(classes(&view.figures, Sort::Held, usize::MAX)),
        Some(Rows::Owners) => lines.extend(owners(&view.figures, usize::MAX)),
        Some(Rows::Types) => lines.extend(types(view, usize::MAX)),
    }
    lines.extend(advice(&view.figures));
    lines.join("\n") + "\n"
}

/// How the full screen is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// What the rows are.
    pub rows: Rows,
    /// How they are sorted.
    pub sort: Sort,
    /// Whether the figures stay as they are.
    pub frozen: bool,
    /// Whether changes are compared with a mark, and not with the refresh before.
    pub marked: bool,
}

/// Draws the full screen.
pub fn draw(frame: &mut Frame<'_>, view: &View, setting: Setting) {
    let advice = advice(&view.figures);
    let sums: Vec<Line<'_>> = sums(view).into_iter().map(Line::from).collect();
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(sums.len() as u16),
        Constraint::Min(1),
        Constraint::Length(u16::from(advice.is_some())),
        Constraint::Length(1),
    ])
    .split(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let most = usize::from(parts[2].height).saturating_sub(2);
    let rows = match setting.rows {
        Rows::Classes => classes(&view.figures, setting.sort, most),
        Rows::Owners => owners(&view.figures, most),
        Rows::Types => types(view, most),
    };
    let mut rows: Vec<Line<'_>> = rows.into_iter().map(Line::from).collect();
    if let Some(first) = rows.first_mut() {
        *first = std::mem::take(first).style(Style::new().add_modifier(Modifier::REVERSED));
    }
    frame.render_widget(Paragraph::new(head(view)).style(bold), parts[0]);
    frame.render_widget(Paragraph::new(sums), parts[1]);
    frame.render_widget(Paragraph::new(rows), parts[2]);
    frame.render_widget(Paragraph::new(advice.unwrap_or_default()), parts[3]);
    let keys = format!(
        "s sort: {}   c classes/owners/types   p freeze{}   d mark{}   q quit",
        setting.sort.name(),
        if setting.frozen { ": frozen" } else { "" },
        if setting.marked {
            ": changes since the mark"
        } else {
            ""
        }
    );
    frame.render_widget(Paragraph::new(keys).style(bold), parts[4]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;
    use slabside_view::figures::Owned;

    fn view() -> View {
        let mib = 1 << 20;
        View {
            title: "fill (7444)".into(),
            threads: 2,
            heaps: 1,
            took: 67,
            stopped: false,
            held: None,
            figures: Figures {
                resident: 200 * mib,
                live: 100 * mib,
                waiting: 50 * mib,
                idle_slots: 20 * mib,
                free_pages: 4096,
                metadata: 14 * mib,
                rest: 16 * mib - 4096,
                allocated: 101 * mib,
                blocks: 1_234_567,
                idle_in: 98_955,
                classes: vec![
                    Class {
                        size: 64,
                        slabs: 16_852,
                        slots: 4_292_160,
                        live: 2_233_989,
                        idle: 2_058_171,
                        held: 262 * mib,
                        pinned: 136 * mib,
                        ..Class::default()
                    },
                    Class {
                        size: 12_288,
                        span: true,
                        slabs: 2,
                        slots: 2,
                        live: 2,
                        held: 24_576,
                        ..Class::default()
                    },
                ],
                owners: vec![Owned {
                    heap: "heap 0".into(),
                    index: Some(0),
                    tid: 7444,
                    name: "main".into(),
                    doing: "asleep in hrtimer_nanosleep".into(),
                    slabs: 46_581,
                    live: 92 * mib,
                    waiting: 50 * mib,
                    quarantined: 0,
                }],
                ..Figures::default()
            },
            before: None,
            types: Some(vec![Kind {
                looks: "Circle object".into(),
                size: 48,
                count: 24,
                bytes: 1152,
            }]),
        }
    }

    const GOLDEN: &str = "\
fill (7444)  2 threads  heap 184.0 MiB resident of 200.0 MiB  read in 67 ms, not stopped
  live           100.0 MiB ####################                      50.0 %  1,234,567 blocks, 1.0 MiB more not resident
  waiting         50.0 MiB ##########                                25.0 %  freed by other threads, not collected by heap 0 (main, asleep in hrtimer_nanosleep)
  idle slots      20.0 MiB ####                                      10.0 %  in 98,955 slabs
  holes                0 B                                            0.0 %
  free pages       4.0 KiB                                            0.0 %
  kept                 0 B                                            0.0 %
  metadata        14.0 MiB ##                                         7.0 %
  not the heap    16.0 MiB ###                                        8.0 %
  = resident     200.0 MiB ######################################## 100.0 %
    size     slabs        slots         live   used        held        idle     waiting        pins
      64    16,852    4,292,160    2,233,989  52.0%   262.0 MiB   125.6 MiB         0 B   136.0 MiB
  12288s         2            2            2 100.0%    24.0 KiB         0 B         0 B         0 B
owner                                        slabs        live     waiting
heap 0  tid 7444 main                       46,581    92.0 MiB    50.0 MiB   <-- asleep in hrtimer_nanosleep
advice: 50.0 MiB wait for heap 0 (main, asleep in hrtimer_nanosleep), which does not allocate: it collects them at its next malloc
";

    #[test]
    fn the_screen_printed_once_reads_as_it_should() {
        let found = text(&view(), None);
        for (found, wanted) in found.lines().zip(GOLDEN.lines()) {
            assert_eq!(found, wanted);
        }
        assert_eq!(found, GOLDEN);
    }

    fn drawn(setting: Setting) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(100, 16)).unwrap();
        terminal
            .draw(|frame| draw(frame, &view(), setting))
            .unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content.chunks(100);
        lines
            .map(|line| {
                let text: String = line.iter().map(|cell| cell.symbol()).collect();
                text.trim_end().to_string()
            })
            .collect()
    }

    #[test]
    fn the_full_screen_shows_sums_rows_advice_and_keys() {
        let lines = drawn(Setting::default());
        assert!(lines[0].starts_with("fill (7444)  2 threads"));
        assert!(lines[1].starts_with("  live           100.0 MiB ####"));
        assert!(lines[9].starts_with("  = resident     200.0 MiB"));
        assert!(lines[10].starts_with("    size     slabs"));
        assert!(lines[11].starts_with("      64    16,852"));
        assert!(lines[14].starts_with("advice: 50.0 MiB wait for heap 0"));
        assert_eq!(
            lines[15],
            "s sort: held   c classes/owners/types   p freeze   d mark   q quit"
        );
    }

    #[test]
    fn keys_choose_rows_and_order() {
        let setting = Setting {
            rows: Rows::Owners,
            sort: Sort::Size,
            frozen: true,
            marked: true,
        };
        let lines = drawn(setting);
        assert!(lines[11].starts_with("heap 0  tid 7444 main"));
        assert!(lines[15].starts_with(
            "s sort: size   c classes/owners/types   p freeze: frozen   d mark: changes"
        ));
        let mut sort = Sort::Held;
        let all: Vec<Sort> = std::iter::repeat_with(|| {
            sort = sort.next();
            sort
        })
        .take(4)
        .collect();
        assert_eq!(all, [Sort::Live, Sort::Unused, Sort::Size, Sort::Held]);
    }

    #[test]
    fn one_table_alone_is_printed_in_full() {
        let last = |by| text(&view(), Some(by)).lines().nth(11).unwrap().to_string();
        assert!(last(Rows::Classes).starts_with("      64    16,852"));
        assert!(last(Rows::Owners).starts_with("heap 0  tid 7444 main"));
        let types = last(Rows::Types);
        assert_eq!(types, "          24        48 B     1.1 KiB  Circle object");
    }

    /// Without one the screen is as it always was.
    #[test]
    fn a_quarantine_has_a_line_of_its_own() {
        let mut view = view();
        assert!(!text(&view, None).contains("quarantine"));
        view.figures.quarantine = 10 << 20;
        view.figures.quarantined_blocks = 3456;
        let lines = sums(&view);
        let wanted = "  quarantine      10.0 MiB ##                                         5.0 %  3,456 freed blocks";
        assert_eq!((lines[1].as_str(), lines.len()), (wanted, 10));
        let mut terminal = Terminal::new(TestBackend::new(100, 16)).unwrap();
        let drawn = terminal.draw(|frame| draw(frame, &view, Setting::default()));
        let shown = format!("{:?}", drawn.unwrap().buffer);
        assert!(shown.contains("= resident") && shown.contains("    size     slabs"));
    }

    #[test]
    fn rates_are_told_against_the_refresh_before() {
        let mut view = view();
        let before = Figures {
            allocated: 100 << 20,
            handed_out: 0,
            ..Figures::default()
        };
        view.figures.handed_out = 4 << 20;
        view.before = Some((before, 2.0));
        assert!(sums(&view)[0].contains("+512.0 KiB/s, 2.0 MiB/s handed out"));
    }
}

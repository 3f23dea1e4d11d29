//! `slabside top`: where a process's memory is, refreshed, or once.

use super::metrics::{self, Sample};
use super::screen::{self, Rows, Setting, View};
use super::{json, print, ps, statuses, Common, Read};
use crate::signals;
use anyhow::{bail, Context, Result};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use serde::Serialize;
use slabside_view::figures::Figures;
use slabside_view::kinds::{kinds, Kind};
use slabside_view::model::{Buffers, Heap, Hold};
use slabside_view::source::Target;
use slabside_view::types::Types;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Show where a process's memory is, refreshed each second
///
/// The lines of the sum add up to the resident memory of the process: live blocks, freed blocks that wait for their
/// owner thread, free slots, free pages, the allocator's bookkeeping, and what is not the heap. Below stand the size
/// classes or the owners, and advice where a few causes keep much memory. Without TARGET all processes on slabside are
/// listed. If standard output is not a terminal, and with --json, each refresh is printed.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Keys:
  s  sort by another column        c  classes, owners or types
  p  pause, and go on              d  mark this moment, and show changes since then
  q  quit

Examples:
  slabside top 7444
  slabside top 7444 --once --json
  slabside top 7444 --openmetrics 9400

", statuses!("0")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file. All processes if it is left out
    target: Option<String>,

    /// Print once and end
    #[arg(long)]
    once: bool,

    /// Show the rows of one table alone, in full. The first words of all live blocks show their types
    #[arg(long, value_enum, requires = "target")]
    by: Option<Rows>,

    /// Seconds between two refreshes
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    delay: Duration,

    /// Write the figures to FILE at each refresh, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,

    /// Serve the figures as OpenMetrics. With a port alone, to programs on this machine only
    #[arg(long, value_name = "[ADDRESS:]PORT", conflicts_with_all = ["once", "json", "prometheus"])]
    openmetrics: Option<String>,

    #[command(flatten)]
    common: Common,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds")?;
    match (0.05..=86400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("from 0.05 to 86400".into()),
    }
}

#[derive(Serialize)]
struct Refresh<'a> {
    schema: &'static str,
    time: u64,
    pid: u32,
    program: String,
    stopped: bool,
    took_ms: u64,
    /// How long it stood still, where it was stopped.
    held_ms: Option<f64>,
    heaps: usize,
    #[serde(flatten)]
    figures: &'a Figures,
    /// What blocks look like, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    types: Option<&'a [Kind]>,
}

/// What is read again and again: buffers are used again, and the refresh before is kept.
struct Watch<'a> {
    target: &'a str,
    common: &'a Common,
    buffers: Vec<Buffers>,
    before: Option<(Figures, Instant)>,
    marked: bool,
    /// Whether the contents of blocks are looked at.
    types: bool,
    known: Types,
}

/// A refresh.
struct Seen {
    view: View,
    sample: Sample,
}

impl Watch<'_> {
    fn look(&mut self) -> Result<Seen> {
        let start = Instant::now();
        let hold = if self.types { Hold::Yes } else { Hold::No };
        let mut read = Read::with(self.target, self.common, &mut self.buffers, hold)?;
        self.known.forget();
        let types = self.types.then(|| {
            let mut all = Vec::new();
            for heap in &read.heaps {
                all.extend(kinds(&*read.target, heap, &mut self.known));
            }
            all.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
            all
        });
        read.target.release();
        let sample = Sample::of(&read);
        let figures = sample.figures.clone();
        let view = View {
            title: read.title(),
            threads: read.target.threads().len(),
            heaps: read.heaps.len(),
            took: start.elapsed().as_millis() as u64,
            stopped: read.heaps.iter().all(|heap| heap.stopped),
            held: held(&read),
            before: self
                .before
                .as_ref()
                .map(|(figures, then)| (figures.clone(), then.elapsed().as_secs_f64())),
            figures: figures.clone(),
            types,
        };
        // The first is the last to be taken.
        self.buffers = read
            .heaps
            .into_iter()
            .rev()
            .map(Heap::into_buffers)
            .collect();
        if !self.marked {
            self.before = Some((figures, start));
        }
        Ok(Seen { view, sample })
    }
}

/// Shows it until it is told to end.
pub fn run(args: &Args) -> Result<()> {
    let Some(target) = &args.target else {
        return all(args);
    };
    let mut watch = Watch {
        target,
        common: &args.common,
        buffers: Vec::new(),
        before: None,
        marked: false,
        types: args.by == Some(Rows::Types),
        known: Types::new(),
    };
    if watch.types {
        Target::open(target, false)?.needs_heads()?;
    }
    if let Some(given) = &args.openmetrics {
        let address = metrics::address(given)?;
        watch.look()?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        return metrics::serve(&listener, || Ok(vec![watch.look()?.sample]));
    }
    let full = !args.once && !args.common.json && args.prometheus.is_none();
    if full && std::io::stdout().is_terminal() {
        return full_screen(&mut watch, args.delay, args.by);
    }
    loop {
        let seen = watch.look()?;
        if let Some(file) = &args.prometheus {
            metrics::write(file, std::slice::from_ref(&seen.sample))?;
        }
        if args.common.json {
            print(&line(&seen)?)?;
        } else if args.prometheus.is_none() {
            print(&screen::text(&seen.view, args.by))?;
        }
        if args.once {
            return Ok(());
        }
        std::thread::sleep(args.delay);
    }
}

/// For how many milliseconds the process was stopped, to a hundredth.
fn held(read: &Read) -> Option<f64> {
    let held = read.target.stood_for()?;
    Some((held.as_secs_f64() * 1e5).round() / 100.0)
}

fn line(seen: &Seen) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    json(&Refresh {
        schema: "slabside.top/1",
        time: now.map_or(0, |since| since.as_secs()),
        pid: seen.sample.pid,
        program: seen.sample.program.clone(),
        stopped: seen.view.stopped,
        took_ms: seen.view.took,
        held_ms: seen.view.held,
        heaps: seen.view.heaps,
        figures: &seen.view.figures,
        types: seen.view.types.as_deref(),
    })
}

/// All processes on slabside, a line each.
fn all(args: &Args) -> Result<()> {
    if args.common.heap.is_some() {
        bail!("--heap chooses a heap of one process: name it");
    }
    let samples = || -> Vec<Sample> {
        let reads = ps::reads(&args.common);
        reads.map(|read| Sample::of(&read)).collect()
    };
    if let Some(given) = &args.openmetrics {
        let address = metrics::address(given)?;
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        return metrics::serve(&listener, || Ok(samples()));
    }
    loop {
        if let Some(file) = &args.prometheus {
            metrics::write(file, &samples())?;
        } else if args.common.json {
            #[derive(Serialize)]
            struct List {
                schema: &'static str,
                processes: Vec<ps::Row>,
            }
            print(&json(&List {
                schema: "slabside.ps/1",
                processes: ps::rows(&args.common),
            })?)?;
        } else {
            print(&ps::table(&ps::rows(&args.common)))?;
        }
        if args.once {
            return Ok(());
        }
        std::thread::sleep(args.delay);
    }
}

/// Draws the screen until q, or until the process ends.
fn full_screen(watch: &mut Watch<'_>, delay: Duration, by: Option<Rows>) -> Result<()> {
    let mut seen = watch.look()?;
    signals::before_death(|| {
        ratatui::restore();
        // A terminal that is dropped would do that.
        let _ = execute!(std::io::stdout(), Show);
    });
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let setting = Setting {
        rows: by.unwrap_or_default(),
        ..Setting::default()
    };
    let outcome = draw_on(&mut terminal, watch, delay, &mut seen, setting);
    ratatui::restore();
    outcome
}

fn draw_on(
    terminal: &mut ratatui::DefaultTerminal,
    watch: &mut Watch<'_>,
    delay: Duration,
    seen: &mut Seen,
    mut setting: Setting,
) -> Result<()> {
    let mut last = Instant::now();
    loop {
        terminal.draw(|frame| screen::draw(frame, &seen.view, setting))?;
        let left = delay.saturating_sub(last.elapsed());
        if event::poll(left)? {
            if let Event::Key(key) = event::read()? {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if key.kind != KeyEventKind::Release && press(key.code, control, &mut setting) {
                    return Ok(());
                }
            }
            if setting.marked != watch.marked {
                watch.marked = setting.marked;
                watch.before = Some((seen.view.figures.clone(), Instant::now()));
            }
            let fresh = setting.rows == Rows::Types && !watch.types;
            watch.types = setting.rows == Rows::Types;
            if fresh {
                *seen = watch.look()?;
            }
            continue;
        }
        last = Instant::now();
        if !setting.frozen {
            *seen = watch.look()?;
        }
    }
}

/// Does what a key says. Returns whether that is to end.
fn press(key: KeyCode, control: bool, setting: &mut Setting) -> bool {
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if control => return true,
        KeyCode::Char('s') => setting.sort = setting.sort.next(),
        KeyCode::Char('c') => setting.rows = setting.rows.next(),
        KeyCode::Char('p') => setting.frozen = !setting.frozen,
        KeyCode::Char('d') => setting.marked = !setting.marked,
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::screen::Sort;

    #[test]
    fn each_key_does_what_the_screen_says() {
        let mut setting = Setting::default();
        let mut key = |letter: char| press(KeyCode::Char(letter), false, &mut setting);
        assert!(![key('s'), key('c'), key('p'), key('d'), key('x')].contains(&true));
        assert!(key('q'));
        assert_eq!((setting.rows, setting.sort), (Rows::Owners, Sort::Live));
        assert!(setting.frozen && setting.marked);
        for rows in [Rows::Types, Rows::Classes] {
            press(KeyCode::Char('c'), false, &mut setting);
            assert_eq!(setting.rows, rows);
        }
        assert!(press(KeyCode::Esc, false, &mut setting));
        assert!(press(KeyCode::Char('c'), true, &mut setting));
    }
}

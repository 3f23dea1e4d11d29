//! `slabside run --profile`: the heap profile of a whole run. Samples that end soon are written over, so the program is
//! looked at again and again, and a last time when it ends.

use crate::view::profile::{Format, Profile};
use anyhow::{bail, Context, Result};
use slabside_view::figures::Figures;
use slabside_view::model::{Buffers, Heap};
use slabside_view::profile::{samples, sums, Kind, Sample, Watched};
use slabside_view::region::{find, Region};
use slabside_view::source::Target;
use slabside_view::unwind::Unwinder;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOKS: Duration = Duration::from_millis(15);

/// What was seen of a program's profile so far.
pub struct Profiled {
    file: Output,
    begin: Instant,
    next: Instant,
    /// The program, and its region as of the last look.
    seen: Option<(Target, Region)>,
    watched: Watched,
    unwinder: Unwinder,
    /// Its heap at its end, and the samples of it.
    end: Option<(Heap, Vec<Sample>)>,
    /// The bytes that it was given in all.
    handed_out: Option<u64>,
    /// Why not all of the run was seen.
    gap: Option<String>,
}

/// The file that a profile goes to: a pipe is opened once.
pub struct Output {
    file: File,
    format: Format,
    name: String,
}

impl Output {
    /// Opens `path`, which is made, and stays as it is until there is something to write. A pipe is waited for.
    pub fn open(path: &Path) -> Result<Output> {
        let name = path.display().to_string();
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        Ok(Output {
            file: file.with_context(|| format!("cannot write to '{name}'"))?,
            format: Format::of(path),
            name,
        })
    }

    fn write(mut self, profile: &Profile) -> Result<()> {
        let bytes = profile.bytes(self.format)?;
        let is_file = self.file.metadata().is_ok_and(|one| one.is_file());
        let emptied = if is_file {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        let written = emptied.and_then(|()| self.file.write_all(&bytes));
        written.with_context(|| format!("cannot write to '{}'", self.name))
    }
}

impl Profiled {
    /// Of a program that was just started. It goes to `file`.
    pub fn new(file: Output) -> Profiled {
        Profiled {
            file,
            begin: Instant::now(),
            next: Instant::now(),
            seen: None,
            watched: Watched::new(),
            unwinder: Unwinder::default(),
            end: None,
            handed_out: None,
            gap: None,
        }
    }

    /// Notes why not all of the run is seen, unless that is known already.
    pub fn miss(&mut self, why: &str) {
        self.gap.get_or_insert_with(|| why.into());
    }

    /// Looks at the program, if it is time to.
    pub fn meanwhile(&mut self, pid: u32) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + LOOKS;
            self.look(pid);
        }
    }

    fn look(&mut self, pid: u32) {
        let again = self
            .seen
            .as_ref()
            .and_then(|(target, region)| region.again(&**target));
        match (again, &mut self.seen) {
            (Some(now), Some((_, region))) => *region = now,
            // It begins without a heap, has another one once it has become another program, and none when it has ended.
            _ => self.seen = first_of(pid).or_else(|| self.seen.take()),
        }
        let Some((target, region)) = &mut self.seen else {
            return;
        };
        if self.watched.is_behind(region) && target.renew().is_ok() {
            self.unwinder.renew(&**target);
            self.watched.look(&**target, region, &mut self.unwinder);
        }
    }

    /// The program stands still at its end.
    pub fn at_end(&mut self, pid: u32) {
        self.look(pid);
        let Some((target, region)) = &self.seen else {
            return;
        };
        let heap = Heap::of(&**target, region.clone(), &mut Buffers::default());
        self.end = heap.ok().map(|heap| {
            self.handed_out = Some(Figures::of(&**target, &heap).handed_out);
            let all = samples(&**target, &heap);
            (heap, all)
        });
    }

    /// Writes the file. Returns what is in it.
    pub fn write(mut self, title: &str) -> Result<Profile> {
        let Some((_, region)) = self.seen else {
            bail!(unseen(self.gap.as_deref()));
        };
        let unwinder = &mut self.unwinder;
        let all = self.watched.sums(self.handed_out, unwinder);
        let end = self.end.as_ref();
        let live = end.map(|(heap, samples)| sums(heap, samples, Kind::Live, unwinder));
        let time = self.begin.elapsed();
        let mut profile = Profile::of_run(title.into(), &region, time, all, self.watched.missed());
        profile.live = live;
        profile.gap = self.gap;
        self.file.write(&profile)?;
        Ok(profile)
    }
}

/// Why there is no profile of a program in which no heap was seen, if all of its run was seen but for `gap`.
fn unseen(gap: Option<&str>) -> String {
    match gap {
        None => "it ran without slabside's heap".into(),
        Some(gap) => format!("{gap}, and no heap of slabside was seen in it before it ended"),
    }
}

/// The program and its first region, if it has one by now.
fn first_of(pid: u32) -> Option<(Target, Region)> {
    let target = Target::process(pid).ok()?;
    let region = find(&*target).ok()?.into_iter().next()?;
    Some((target, region))
}

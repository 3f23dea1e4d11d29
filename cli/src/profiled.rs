//! `slabside run --profile`: the heap profile of a whole run. Samples that end soon are written over, so the program is
//! looked at again and again, and a last time when it ends.

use crate::view::profile::{Format, Profile};
use anyhow::{Context, Result};
use slabside_view::figures::Figures;
use slabside_view::model::{Buffers, Heap};
use slabside_view::profile::{samples, sums, Kind, Sums, Watched};
use slabside_view::region::{find, Region};
use slabside_view::source::Target;
use slabside_view::unwind::Unwinder;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOKS: Duration = Duration::from_millis(15);

/// What was seen of a program's profile so far.
pub struct Profiled {
    file: PathBuf,
    begin: Instant,
    next: Instant,
    /// The program, and its region as of the last look.
    seen: Option<(Target, Region)>,
    watched: Watched,
    unwinder: Unwinder,
    /// What was live at its end, and the bytes that it was given in all.
    end: Option<(Sums, u64)>,
}

/// Whether a profile can be written to `file`, which is made.
pub fn can_be_written(file: &Path) -> Result<()> {
    let made = File::options().create(true).append(true).open(file);
    made.with_context(|| format!("cannot write to '{}'", file.display()))?;
    Ok(())
}

impl Profiled {
    /// Of a program that was just started. It goes to `file`.
    pub fn new(file: PathBuf) -> Profiled {
        Profiled {
            file,
            begin: Instant::now(),
            next: Instant::now(),
            seen: None,
            watched: Watched::new(),
            unwinder: Unwinder::default(),
            end: None,
        }
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
            let all = samples(&**target, &heap);
            let live = sums(&**target, &heap, &all, Kind::Live, &mut self.unwinder);
            (live, Figures::of(&**target, &heap).handed_out)
        });
    }

    /// Writes the file. Returns a line about it.
    pub fn write(self, title: &str) -> Result<String> {
        let (_, region) = self.seen.context("it ran without slabside's heap")?;
        let (live, bytes) = self.end.unzip();
        let time = self.begin.elapsed();
        let profile = Profile::of_run(title.into(), &region, time, &self.watched, bytes);
        let profile = profile.with_live(live);
        profile.save(&self.file, Format::of(&self.file))?;
        Ok(profile.headline())
    }
}

/// The program and its first region, if it has one by now.
fn first_of(pid: u32) -> Option<(Target, Region)> {
    let target = Target::process(pid).ok()?;
    let region = find(&*target).ok()?.into_iter().next()?;
    Some((target, region))
}

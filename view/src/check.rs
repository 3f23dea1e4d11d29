//! Whether the metadata contradict themselves: `slabside_validate` from outside, also on the core file of a crash.

use crate::model::{pause_before, Buffers, Heap, Hold, Holder};
use crate::region::{grouped, Region};
use crate::source::{Source, Span, Target};
use crate::Result;
use serde::Serialize;
use std::time::Duration;

/// The most contradictions that are listed.
const MOST: usize = 1000;
/// How often [`lasting`] reads again, and for how long the process runs before the first of these times (`pause_before`).
const AGAIN: u32 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// What was looked at, and what contradicts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Number of slabs and spans.
    pub slabs: u64,
    /// Number of their slots.
    pub slots: u64,
    /// Number of large blocks.
    pub large: u64,
    /// Number of kept ranges.
    pub kept: u64,
    /// Number of heaps.
    pub heaps: u64,
    /// What contradicts itself, a line each. The first thousand.
    pub wrong: Vec<String>,
}

/// Compares what `heap` says in several places. Page map, headers and bitmaps were compared when it was read.
///
/// A process may be stopped, or seen, in the middle of a change. What it says again a few milliseconds later is a
/// contradiction: see [`lasting`].
pub fn check(source: &dyn Source, heap: &Heap) -> Checked {
    let mut checked = Checked {
        slabs: heap.slabs.len() as u64,
        slots: heap.slabs.iter().map(|slab| u64::from(slab.slots)).sum(),
        large: heap.large.len() as u64,
        kept: heap.kept.len() as u64,
        heaps: heap.owners.len() as u64,
        wrong: Vec::new(),
    };
    slabs(source, heap, &mut checked);
    blocks(source, heap, &mut checked);
    owners(heap, &mut checked);
    checked
}

/// Compares what `heaps`, which were read from `target`, say in several places, and leaves out what a process says only
/// in the middle of a change.
///
/// Where something contradicts itself, and the process goes on, its heaps are read up to six times more, over a third of a
/// second. What each reading says in the same words is what is damaged. Heaps that were read from a process that stood
/// still are read so again: it is stopped for the moment of each reading. A core file, a snapshot, or a process that is held
/// cannot be read a moment later. There this is [`check`] of each heap.
///
/// The results are in the order of `heaps`. An error means that the process has ended, or cannot be read any more.
pub fn lasting(target: &mut Target, heaps: &[Heap]) -> Result<Vec<Checked>> {
    let mut found: Vec<Checked> = heaps.iter().map(|heap| check(&**target, heap)).collect();
    let regions: Vec<Region> = heaps.iter().map(|heap| heap.region.clone()).collect();
    let stopped = heaps.iter().all(|heap| heap.stopped);
    for read in 1..=AGAIN {
        if !target.is_moving() || found.iter().all(|checked| checked.wrong.is_empty()) {
            break;
        }
        pause_before(read, PAUSE);
        let again = read_again(target, &regions, stopped)?;
        for (checked, heap) in found.iter_mut().zip(&again) {
            checked.keep(&check(&**target, heap));
        }
    }
    Ok(found)
}

/// The heaps of `regions` as they are now.
fn read_again(target: &mut Target, regions: &[Region], stopped: bool) -> Result<Vec<Heap>> {
    if stopped {
        return Heap::of_stopped(target, regions, &mut Vec::new(), Hold::No);
    }
    target.renew()?;
    let heap = |region: &Region| Heap::of(&**target, region.clone(), &mut Buffers::default());
    regions.iter().map(heap).collect()
}

impl Checked {
    /// Leaves out what `again`, a later reading of the same heap, does not say in the same words: a running process was
    /// in the middle of a change. What is damaged stays so.
    pub fn keep(&mut self, again: &Checked) {
        self.wrong.retain(|line| again.wrong.contains(line));
    }

    fn tell(&mut self, line: String) {
        if self.wrong.len() < MOST {
            self.wrong.push(line);
        }
    }
}

fn slabs(source: &dyn Source, heap: &Heap, checked: &mut Checked) {
    // What stands still cannot be read again a moment later.
    let perhaps = |doing| match source.is_moving() {
        true => String::new(),
        false => format!(" (or a thread was {doing} just then)"),
    };
    let mut ids: Vec<u32> = heap.slabs.iter().map(|slab| slab.id).collect();
    ids.sort_unstable();
    for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
        checked.tell(format!(
            "slab {} lies at two places",
            grouped(pair[0].into())
        ));
    }
    for slab in &heap.slabs {
        let id = grouped(slab.id.into());
        // A free by another thread and its collection are two steps: only where all stand still is this certain.
        let twice = if heap.stopped && !slab.is_kept() {
            heap.freed_twice(slab)
        } else {
            0
        };
        if twice > 0 {
            checked.tell(format!(
                "slab {id} at {:#x}: {twice} slots were freed twice",
                slab.base
            ));
        }
        if slab.owner == 0 {
            checked.tell(format!(
                "slab {id} at {:#x}: it has no owner word",
                slab.base
            ));
        }
        if let (Holder::Released, false) = (heap.holder(slab.owner), slab.is_kept()) {
            if heap.stopped {
                checked.tell(format!(
                    "slab {id} at {:#x}: the page map leads to it, and its owner word says released{}",
                    slab.base,
                    perhaps("releasing it")
                ));
            }
        }
        if let (Holder::Ended(index), true) = (heap.holder(slab.owner), heap.stopped) {
            checked.tell(format!(
                "slab {id} at {:#x}: its owner, heap {index}, is not in use{}",
                slab.base,
                perhaps("ending")
            ));
        }
    }
}

fn blocks(source: &dyn Source, heap: &Heap, checked: &mut Checked) {
    let mut all: Vec<(Span, &str)> = Vec::new();
    all.extend(heap.large.iter().map(|block| (block.span, "large block")));
    all.extend(heap.kept.iter().map(|kept| (kept.span, "kept range")));
    all.push((heap.region.span(), "metadata region"));
    all.extend(heap.slabs.iter().map(|slab| (slab.span(), "slab")));
    all.sort_by_key(|one| one.0);
    for pair in all.windows(2) {
        let ((one, what), (other, also)) = (pair[0], pair[1]);
        if other.start < one.end {
            checked.tell(format!(
                "{what} at {:#x} and {also} at {:#x} overlap",
                one.start, other.start
            ));
        }
    }
    if !heap.stopped {
        return;
    }
    let live = heap.large.iter().filter(|block| !block.stray);
    for block in live {
        if source.mapping_at(block.span.start).is_none() {
            checked.tell(format!(
                "large block at {:#x} of {} bytes: it is not mapped",
                block.span.start,
                grouped(block.span.bytes())
            ));
        }
    }
}

fn owners(heap: &Heap, checked: &mut Checked) {
    let mut words: Vec<u64> = heap.owners.iter().map(|owner| owner.word).collect();
    words.sort_unstable();
    for pair in words.windows(2).filter(|pair| pair[0] == pair[1]) {
        checked.tell(format!("two heaps have the owner word {:#x}", pair[0]));
    }
    for owner in &heap.owners {
        let index = slabside_base::layout::owner::index(owner.word) as u64;
        if index != owner.index {
            checked.tell(format!(
                "heap {} has the owner word of heap {index}",
                owner.index
            ));
        }
    }
}

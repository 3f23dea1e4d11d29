//! Writes a target into a file: what every command needs, and the heap's contents where they are asked for.

use crate::model::Heap;
use crate::roots::Roots;
use crate::source::file::{self, Head, Writer, SCHEMA};
use crate::source::{Source, Span};
use crate::symbols::Symbols;
use crate::threads::words;
use crate::types::HEAD;
use crate::{Error, Result};
use slabside_base::layout::{sample, Elsewhere, Fact};
use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes copied at once.
const STEP: u64 = 4 << 20;

/// Which contents a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// None: metadata alone.
    None,
    /// The first words of each live block, which show its type.
    Heads,
    /// All of the heap and of the program's variables and stacks that is resident.
    All,
}

impl Contents {
    /// Its name in a file's head.
    pub fn name(self) -> &'static str {
        match self {
            Contents::None => file::NONE,
            Contents::Heads => file::HEADS,
            Contents::All => file::ALL,
        }
    }
}

/// Writes `heaps`, all of the target `source`, to `path`, which is readable by its owner alone.
pub fn write(source: &dyn Source, heaps: &[Heap], path: &Path, contents: Contents) -> Result<()> {
    let system = |what| {
        move |cause| Error::System {
            name: path.display().to_string(),
            what,
            cause,
        }
    };
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(system("cannot write it"))?;
    // A file that was there has the mode that it had. Devices and pipes keep theirs.
    if file.metadata().is_ok_and(|one| one.is_file()) {
        let closed = file.set_permissions(Permissions::from_mode(0o600));
        closed.map_err(system("cannot close it to others"))?;
        file.set_len(0).map_err(system("cannot write it"))?;
    }
    let roots = match contents {
        Contents::All => Some(Roots::of(source, heaps, &mut Symbols::new())),
        _ => None,
    };
    let head = head(source, heaps, contents, roots.as_ref());
    let mut writer = Writer::new(file, &head).map_err(system("cannot write it"))?;
    let mut done = Ok(());
    let mut add = |start: u64, bytes: &[u8]| {
        if done.is_ok() {
            done = writer.piece(start, bytes);
        }
    };
    for heap in heaps {
        metadata(source, heap, contents, roots.as_ref(), &mut add);
        if contents != Contents::None {
            blocks(source, heap, contents, &mut add);
        }
    }
    if let Some(roots) = &roots {
        roots.each(source, &mut add);
    }
    done.and_then(|()| writer.finish())
        .map_err(system("cannot write it"))
}

fn head(source: &dyn Source, heaps: &[Heap], contents: Contents, roots: Option<&Roots>) -> Head {
    let mut present = Vec::new();
    for heap in heaps {
        let windows = heap.windows.iter().map(|window| window.span());
        let large = heap.large.iter().map(|block| block.span);
        let kept = heap.kept.iter().map(|kept| kept.span);
        let threads = threads_of(heap);
        let all = windows.chain(large).chain(kept).chain([heap.region.span()]);
        let all = all.chain(threads);
        for span in all {
            source.present(span, &mut |span| present.push(span));
        }
    }
    if let Some(roots) = roots {
        roots.each(source, &mut |start, bytes| {
            let end = start + bytes.len() as u64;
            present.push(Span { start, end });
        });
    }
    present.sort();
    present.dedup_by(|next, before| {
        let overlaps = next.start < before.end;
        if overlaps {
            before.end = before.end.max(next.end);
        }
        overlaps
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Head {
        schema: SCHEMA.into(),
        time: now.map_or(0, |since| since.as_secs()),
        contents: contents.name().into(),
        about: source.about(),
        stopped: !source.is_moving(),
        mappings: source.mappings().to_vec(),
        present,
        threads: source.threads(),
    }
}

/// The words by which the threads of `heap` are found. Those that lie in blocks are part of those.
fn threads_of(heap: &Heap) -> impl Iterator<Item = Span> + '_ {
    let words = heap.owners.iter().flat_map(words);
    let apart = |&at: &u64| heap.slab_at(at).is_none() && heap.large_at(at).is_none();
    words.filter(apart).map(|at| Span {
        start: at,
        end: at.saturating_add(4),
    })
}

/// The region, and what its header points to.
fn metadata(
    source: &dyn Source,
    heap: &Heap,
    contents: Contents,
    roots: Option<&Roots>,
    add: &mut impl FnMut(u64, &[u8]),
) {
    // What the roots hold is written with them.
    let apart = |at: u64| !roots.is_some_and(|roots| roots.hold(at));
    let region = &heap.region;
    if contents == Contents::All {
        copy(source, region.span(), add);
    } else {
        let samples = region.profile.samples;
        let before = Span {
            end: samples.start.max(region.base),
            ..region.span()
        };
        let behind = Span {
            start: samples.end.max(before.end),
            ..region.span()
        };
        copy(source, before, add);
        samples_without_stacks(source, heap, add);
        copy(source, behind, add);
    }
    let kept = region.fact(Fact::KeptPlaces) * region.fact(Fact::KeptBytes);
    for (what, bytes) in [
        (Elsewhere::Kept, kept),
        (Elsewhere::LargeEpoch, 4),
        (Elsewhere::SlabEpoch, 4),
    ] {
        let start = region.elsewhere(what);
        let mut piece = vec![0; bytes as usize];
        if start != 0 && bytes > 0 && apart(start) && source.read(start, &mut piece) {
            add(start, &piece);
        }
    }
    for span in threads_of(heap) {
        let mut piece = [0; 4];
        if apart(span.start) && source.peek(span.start, &mut piece) {
            add(span.start, &piece);
        }
    }
}

/// The samples of the heap profile. Their stacks, which hold the program's data, are zero.
fn samples_without_stacks(source: &dyn Source, heap: &Heap, add: &mut impl FnMut(u64, &[u8])) {
    let profile = &heap.region.profile;
    for index in 1..profile.made {
        let at = profile.samples.start + index * sample::BYTES as u64;
        let mut piece = vec![0; sample::BYTES];
        if source.peek(at, &mut piece) {
            piece[sample::STACK..].fill(0);
            add(at, &piece);
        }
    }
}

fn copy(source: &dyn Source, within: Span, add: &mut impl FnMut(u64, &[u8])) {
    let mut spans = Vec::new();
    source.held(within, &mut |span| spans.push(span));
    for span in spans {
        let mut start = span.start;
        while start < span.end {
            let end = span.end.min(start + STEP);
            let mut piece = vec![0; (end - start) as usize];
            if source.read(start, &mut piece) {
                add(start, &piece);
            }
            start = end;
        }
    }
}

/// The pages of slabs and large blocks. For `heads` all but the first words of live blocks is zero, which packs to
/// nothing.
fn blocks(source: &dyn Source, heap: &Heap, contents: Contents, add: &mut impl FnMut(u64, &[u8])) {
    for slab in heap.slabs.iter().filter(|slab| !slab.is_kept()) {
        let mut pages = vec![0; slab.span().bytes() as usize];
        let mut any = false;
        source.present(slab.span(), &mut |part| {
            let at = (part.start - slab.base) as usize;
            let bytes = part.bytes() as usize;
            any |= source.read(part.start, &mut pages[at..at + bytes]);
        });
        if !any {
            continue;
        }
        if contents == Contents::Heads {
            let bits = heap.bits(slab);
            let size = slab.size as usize;
            for (slot, block) in pages.chunks_mut(size).enumerate() {
                let keep = if bits.is_live(slot) {
                    HEAD.min(block.len())
                } else {
                    0
                };
                block[keep..].fill(0);
            }
        }
        add(slab.base, &pages);
    }
    for block in heap.large.iter().filter(|block| !block.stray) {
        let mut span = block.span;
        if contents == Contents::Heads {
            span.end = span.start + HEAD as u64;
            let mut piece = [0; HEAD];
            if source.peek(span.start, &mut piece) {
                add(span.start, &piece);
            }
            continue;
        }
        let mut parts = Vec::new();
        source.present(span, &mut |part| parts.push(part));
        for part in parts {
            let mut start = part.start;
            while start < part.end {
                let end = part.end.min(start + STEP);
                let mut piece = vec![0; (end - start) as usize];
                if source.read(start, &mut piece) {
                    add(start, &piece);
                }
                start = end;
            }
        }
    }
}

//! Who points to a block: one pass over all that the program can write.

use crate::model::{Heap, Owner};
use crate::source::{Source, Span};
use serde::Serialize;
use slabside::layout::BLOCK_BYTES;

/// Bytes read at once.
const STEP: u64 = 1 << 20;
/// The most pointers that are listed for a block.
const MOST: usize = 1000;

/// A word that points to a block, or into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Where the word lies. 0 means in a register.
    pub at: u64,
    /// Its value.
    pub value: u64,
    /// What it lies in, for people.
    pub place: String,
}

/// The words that point to or into each of `blocks`. Of live blocks all words count, of free memory none; what is not
/// resident is not looked at.
pub fn holders(source: &dyn Source, heap: &Heap, blocks: &[Span]) -> Vec<Vec<Holder>> {
    let mut found = vec![Vec::new(); blocks.len()];
    let mut tell = |at: u64, value: u64, place: &dyn Fn() -> Option<String>| {
        for (block, found) in blocks.iter().zip(&mut found) {
            // What lies in the block itself holds it no more than nothing does.
            let points = block.holds(value) && !block.holds(at) && found.len() < MOST;
            if let Some(place) = points.then(place).flatten() {
                found.push(Holder { at, value, place });
            }
        }
    };
    for thread in source.threads() {
        for (name, value) in &thread.registers {
            tell(0, *value, &|| {
                Some(format!("register {name} of thread {}", thread.tid))
            });
        }
    }
    let (low, high) = (
        blocks.iter().map(|block| block.start).min().unwrap_or(0),
        blocks.iter().map(|block| block.end).max().unwrap_or(0),
    );
    let mut bytes = Vec::new();
    for mapping in source.mappings().iter().filter(|one| one.read && one.write) {
        let mut parts = Vec::new();
        source.present(mapping.span, &mut |part| parts.push(part));
        for part in parts {
            let mut start = part.start;
            while start < part.end {
                let end = part.end.min(start + STEP);
                bytes.resize((end - start) as usize, 0);
                if source.read(start, &mut bytes) {
                    for (at, word) in (start..).step_by(8).zip(bytes.chunks_exact(8)) {
                        let value = word.try_into().map_or(0, u64::from_le_bytes);
                        if value >= low && value < high {
                            tell(at, value, &|| place(heap, at, &mapping.name));
                        }
                    }
                }
                start = end;
            }
        }
    }
    found
}

/// What the word at `at` lies in; none: in what is the allocator's own, or in free memory.
fn place(heap: &Heap, at: u64, mapping: &str) -> Option<String> {
    let own = heap.region.span().holds(at)
        || mapping.contains("libslabside")
        || heap.owners.iter().any(|owner| is_threads_block(owner, at));
    if own || heap.kept_at(at).is_some() {
        return None;
    }
    if let Some(slab) = heap.slab_at(at) {
        let slot = slab.slot_at(at);
        let live = heap.bits(slab).is_live(slot as usize);
        let start = slab.address(slot);
        return live.then(|| format!("a live block of {} bytes at {start:#x}", slab.size));
    }
    if let Some(block) = heap.large_at(at) {
        let start = block.span.start;
        return Some(format!("a large block at {start:#x}"));
    }
    if heap.window_at(at).is_some() {
        return None;
    }
    Some(match mapping {
        "" => "an anonymous mapping".into(),
        name => name.into(),
    })
}

/// Whether `at` lies in what the allocator keeps in a thread's own memory, around the word that it watches.
fn is_threads_block(owner: &Owner, at: u64) -> bool {
    let bytes = BLOCK_BYTES as u64;
    owner.watched != 0 && at + bytes > owner.watched && at < owner.watched + bytes
}

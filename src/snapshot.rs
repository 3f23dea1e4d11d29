//! What a reader outside the process can tell of a heap: one bounded walk over a metadata region that it does
//! not trust.
//!
//! ```text
//!   header --> areas --> page map: runs of pages of one number --> slab header --> live slots by class
//!                              `---- base - page: the window ----'
//! ```
//!
//! The region may be another process's, which is at work or was damaged, or a file's. So no offset, number or count
//! in it is used before it was compared with what it may be; every read has a fixed size and lies within the area that
//! it is of; the walk goes forwards only and is as long as the page map at most; and whatever does not fit is an
//! error that says where. Nothing is allocated. Of a process that goes on meanwhile it sees a moment's mixture, and
//! a slab half made may be such an error: read again.
//!
//! It knows the layout alone (`meta`, `slab`), no allocator. Large blocks are not seen: the region's header does
//! not say which of their tables is in use.

use crate::bitmap::slots_of_word;
use crate::class::{reciprocal, size_of_class, slots_in, CLASSES, PAIR, SPAN, SPAN_RECIPROCAL};
use crate::geometry::{PageNo, SlabId, PAGE, PAGE_SHIFT, SLAB_PAGES, SPAN_PAGES, WINDOW_PAGES};
use crate::meta::{Area, Extent, Header, Plan, AREAS, MAGIC, SLAB_BYTES, VERSION};
use crate::slab::{Slab, SlabPtr, State};
use crate::sync::Ordering::Relaxed;
use core::mem::{offset_of, size_of};
use core::ptr::NonNull;

/// The most bytes that a walk reads at once.
pub const READ_MOST: usize = 4096;
/// Entries of the page map in one read.
const ENTRIES: usize = READ_MOST / 4;
/// The most windows of a heap: the break's, and mapped ones.
const WINDOWS: usize = 8;
/// Addresses and sizes lie below: what a process has on x86-64, in bytes.
const ADDRESSES: usize = 1 << 47;

static_assertions::const_assert!(size_of::<Header>() <= READ_MOST);
static_assertions::const_assert!(WINDOW_PAGES.is_multiple_of(ENTRIES));

/// Why a region is none, or not one that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The header cannot be read.
    Unreadable,
    /// It does not begin with [`MAGIC`].
    Magic,
    /// It has this version, not [`VERSION`].
    Version(u32),
    /// The sizes that it tells are not this version's.
    Sizes,
    /// The area of this number does not lie behind the one before it, within the region.
    Area(usize),
    /// The page map names a header for this page that does not lie in the areas of headers.
    Number(PageNo, SlabId),
    /// This header, named for this page, cannot be a slab's there.
    Slab(PageNo, SlabId),
}

/// What a region says of its heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Slabs in use.
    pub slabs: usize,
    /// Spans in use or kept for reuse.
    pub spans: usize,
    /// Bytes in live slots, by size class, and in live spans.
    pub live_of: [usize; CLASSES + 1],
    /// Pages in slabs and spans, those among them that hardened mode keeps for their class.
    pub pages: usize,
    /// Pages within the heap that are somebody else's, or a guard.
    pub foreign: usize,
}

impl Snapshot {
    /// Bytes in live slots and spans.
    pub fn live(&self) -> usize {
        self.live_of.iter().sum()
    }
}

/// A reader of a region that lies in `image`, from its first byte on.
pub fn bytes(image: &[u8]) -> impl Fn(usize, &mut [u8]) -> bool + '_ {
    |offset, into| {
        let from = image.get(offset..).and_then(|rest| rest.get(..into.len()));
        from.is_some_and(|from| {
            into.copy_from_slice(from);
            true
        })
    }
}

/// Walks over the region that `read` reads: it fills the bytes with those at an offset from the region's start,
/// or says false where it has not all of them.
pub fn read(read: impl Fn(usize, &mut [u8]) -> bool) -> Result<Snapshot, Broken> {
    let areas = areas(&read)?;
    let mut walk = Walk {
        read,
        areas,
        windows: [Window::NONE; WINDOWS],
        used: 0,
        seen: Snapshot {
            slabs: 0,
            spans: 0,
            live_of: [0; CLASSES + 1],
            pages: 0,
            foreign: 0,
        },
    };
    let map = walk.areas[Area::PageMap as usize];
    // More page numbers than the largest plan has, and less than one window more.
    let most = Plan::unlimited().pages + 4 * WINDOW_PAGES;
    for first in (0..(map.bytes / 4).min(most)).step_by(WINDOW_PAGES) {
        walk.chunk(first)?;
    }
    Ok(walk.seen)
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    word32(bytes, at) as u64 | (word32(bytes, at + 4) as u64) << 32
}

/// Where the areas lie, by the header: one behind the other, within the region.
fn areas(read: &impl Fn(usize, &mut [u8]) -> bool) -> Result<[Extent; AREAS], Broken> {
    let mut header = [0; size_of::<Header>()];
    if !read(0, &mut header) {
        return Err(Broken::Unreadable);
    }
    if word64(&header, offset_of!(Header, magic)) != MAGIC {
        return Err(Broken::Magic);
    }
    let version = word32(&header, offset_of!(Header, version));
    if version != VERSION {
        return Err(Broken::Version(version));
    }
    let region = word64(&header, offset_of!(Header, region_bytes)) as usize;
    let told = [
        word32(&header, offset_of!(Header, header_bytes)) as usize,
        word32(&header, offset_of!(Header, areas_used)) as usize,
        word32(&header, offset_of!(Header, slab_bytes)) as usize,
    ];
    if told != [size_of::<Header>(), AREAS, SLAB_BYTES] || region > ADDRESSES {
        return Err(Broken::Sizes);
    }
    let mut areas = [Extent::default(); AREAS];
    let mut end = 0;
    for (index, area) in areas.iter_mut().enumerate() {
        let at = offset_of!(Header, areas) + index * 16;
        let offset = word64(&header, at) as usize;
        let bytes = word64(&header, at + 8) as usize;
        let behind = offset.checked_add(bytes).filter(|&end| end <= region);
        if offset < end || !offset.is_multiple_of(8) {
            return Err(Broken::Area(index));
        }
        end = behind.ok_or(Broken::Area(index))?;
        *area = Extent { offset, bytes };
    }
    Ok(areas)
}

/// A range of addresses whose pages have numbers in a row, as far as slabs were seen in it.
#[derive(Clone, Copy)]
struct Window {
    /// Where page 0 would lie; it may wrap.
    origin: usize,
    /// The first and the last address seen, and one more.
    low: usize,
    high: usize,
    /// The chunk of page numbers in which a slab was seen last.
    chunk: usize,
}

impl Window {
    const NONE: Window = Window {
        origin: 0,
        low: 0,
        high: 0,
        chunk: 0,
    };
}

/// Pages in a row that the page map names one number for.
#[derive(Clone, Copy)]
struct Run {
    id: SlabId,
    first: usize,
    pages: usize,
}

/// A copy of a slab header, or of a pair, so that it cannot change while it is looked at.
#[repr(C)]
struct Copy([Slab; 2]);

struct Walk<R> {
    read: R,
    areas: [Extent; AREAS],
    windows: [Window; WINDOWS],
    used: usize,
    seen: Snapshot,
}

impl<R: Fn(usize, &mut [u8]) -> bool> Walk<R> {
    /// The page map from page `first` on, as far as a window may begin behind it. What is open of it lies at the
    /// beginning; no slab reaches over its end.
    fn chunk(&mut self, first: usize) -> Result<(), Broken> {
        let map = self.areas[Area::PageMap as usize];
        let end = (first + WINDOW_PAGES).min(map.bytes / 4);
        let mut piece = [0; READ_MOST];
        let mut run = Run {
            id: SlabId::NONE,
            first,
            pages: 0,
        };
        for start in (first..end).step_by(ENTRIES) {
            let entries = (end - start).min(ENTRIES);
            if !(self.read)(map.offset + start * 4, &mut piece[..entries * 4]) {
                break;
            }
            for entry in 0..entries {
                let id = SlabId(word32(&piece, entry * 4));
                if id != run.id {
                    self.run(run)?;
                    run = Run {
                        id,
                        first: start + entry,
                        pages: 0,
                    };
                }
                run.pages += 1;
            }
        }
        self.run(run)
    }

    fn run(&mut self, run: Run) -> Result<(), Broken> {
        match run.id {
            SlabId::NONE => Ok(()),
            SlabId::FOREIGN => {
                self.seen.foreign += run.pages;
                Ok(())
            }
            _ => self.slab(run),
        }
    }

    fn slab(&mut self, run: Run) -> Result<(), Broken> {
        let broken = Broken::Slab(PageNo(run.first as u32), run.id);
        let mut copy = Copy([Slab::blank(), Slab::blank()]);
        let slab = self.header(run, &mut copy)?;
        if !is_possible(slab, run) || !self.place(slab.base(), run) {
            return Err(broken);
        }
        self.seen.pages += run.pages;
        match slab.state() {
            State::Released => return Err(broken),
            // No slab, but pages that wait for one.
            State::Kept => return Ok(()),
            _ if slab.is_span() => self.seen.spans += 1,
            _ => self.seen.slabs += 1,
        }
        self.seen.live_of[slab.class()] += count_live(slab) * slab.size();
        Ok(())
    }

    /// Copies the header that `run` names, both where it is one of a pair: all of it lies in one of the two areas
    /// of headers.
    fn header(&self, run: Run, copy: &mut Copy) -> Result<SlabPtr, Broken> {
        let broken = Broken::Number(PageNo(run.first as u32), run.id);
        let [first, rest] = [Area::FirstSlabs, Area::Slabs].map(|area| self.areas[area as usize]);
        let start = if first.bytes != 0 { first } else { rest }.offset;
        let offset = start + run.id.index() * SLAB_BYTES;
        let mut bytes = [0; 2 * SLAB_BYTES];
        let is_within = |n: usize| {
            [first, rest]
                .iter()
                .any(|area| offset >= area.offset && offset + n <= area.offset + area.bytes)
        };
        let (single, _) = bytes.split_at_mut(SLAB_BYTES);
        if !is_within(SLAB_BYTES) || !(self.read)(offset, single) {
            return Err(broken);
        }
        let mut n = SLAB_BYTES;
        if single[offset_of!(Slab, class)] as usize == PAIR {
            n = bytes.len();
            if !is_within(n) || !(self.read)(offset, &mut bytes) {
                return Err(broken);
            }
        }
        let header = NonNull::from(copy).cast::<Slab>();
        // SAFETY: `copy` has room for two headers, all of whose fields are integers; and it outlives the pointer, since
        // callers keep both.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), header.as_ptr().cast(), n);
            Ok(SlabPtr::new(header))
        }
    }

    /// Notes that the pages of `run` lie at `base`; false where that contradicts what was seen before: the pages of
    /// a window lie in order of their numbers, a window begins with a chunk, and no two overlap. So no slab is
    /// counted twice.
    fn place(&mut self, base: usize, run: Run) -> bool {
        let chunk = run.first / WINDOW_PAGES;
        let origin = base.wrapping_sub(run.first << PAGE_SHIFT);
        let end = base + (run.pages << PAGE_SHIFT);
        let last = self.windows[..self.used].last();
        if last.is_none_or(|last| last.origin != origin) {
            if self.used == WINDOWS || last.is_some_and(|last| last.chunk == chunk) {
                return false;
            }
            self.windows[self.used] = Window {
                origin,
                low: base,
                high: base,
                chunk,
            };
            self.used += 1;
        }
        let (last, others) = match self.windows[..self.used].split_last_mut() {
            Some(found) => found,
            None => return false,
        };
        last.high = end;
        last.chunk = chunk;
        others
            .iter()
            .all(|other| other.high <= last.low || other.low >= last.high)
    }
}

/// Whether the header can be one of a slab of the pages of `run`, but for where that lies: then all its numbers and
/// bits are in range.
fn is_possible(slab: SlabPtr, run: Run) -> bool {
    let (class, pages) = (slab.class(), slab.pages());
    let (slots, size, recip) = match class {
        SPAN => (1, pages * PAGE, SPAN_RECIPROCAL),
        _ if class < CLASSES => {
            let size = size_of_class(class);
            (slots_in(class, pages), size, reciprocal(size as u32))
        }
        _ => return false,
    };
    let most = if class == SPAN {
        SPAN_PAGES
    } else {
        SLAB_PAGES
    };
    let shape = slab.slots() == slots && slab.size() == size && slab.recip.load(Relaxed) == recip;
    let base = slab.base();
    let placed = base.is_multiple_of(PAGE) && base != 0 && base < ADDRESSES;
    // Bits past the last slot read free.
    let has_tail =
        |word: usize| slab.free_word(word).load(Relaxed) | slots_of_word(slots, word) == u64::MAX;
    slab.id() == run.id
        && pages == run.pages
        && (1..=most).contains(&pages)
        && shape
        && slots > 0
        && placed
        && (0..slab.words()).all(has_tail)
}

/// Number of live slots of a copied header: what it says of one slot need not agree.
fn count_live(slab: SlabPtr) -> usize {
    let live = |word| {
        let freed = slab.free_word(word).load(Relaxed) | slab.remote_word(word).load(Relaxed);
        (!freed & slots_of_word(slab.slots(), word)).count_ones() as usize
    };
    (0..slab.words()).map(live).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn bytes_that_are_no_region_are_told() {
        assert_eq!(read(bytes(&[])), Err(Broken::Unreadable));
        assert_eq!(read(bytes(&[0; 4096])), Err(Broken::Magic));
        let mut image = vec![0; 4096];
        image[..8].copy_from_slice(b"slabside");
        assert_eq!(read(bytes(&image)), Err(Broken::Version(0)));
        image[8] = VERSION as u8;
        assert_eq!(read(bytes(&image)), Err(Broken::Sizes));
    }

    #[test]
    fn a_reader_of_bytes_stays_within_them() {
        let mut into = [0; 3];
        assert!(bytes(&[1, 2, 3, 4])(1, &mut into) && into == [2, 3, 4]);
        for offset in [2, 4, 5, usize::MAX] {
            assert!(!bytes(&[1, 2, 3, 4])(offset, &mut into));
        }
    }
}

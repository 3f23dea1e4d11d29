//! The heap as it lies in the target: slabs, large blocks and owners, by address, made of copies of the metadata.
//!
//! ```text
//!   first copy    slab headers, sizes                (not where the target stands still)
//!   second copy   page map, then all the rest
//!   walk          runs of one number in the page map -> header -> compare -> slab
//! ```
//!
//! A slot is live where either copy says so. So a block that lives all the time is never missed, wherever it moves.
//! Neither is one that is replaced by another before it is freed. Sums can only be too high, by what was freed
//! meanwhile. What does not fit is looked at again in the target itself. Where it still does not after [`LOOKS`] looks, the
//! process runs on for a while and all is read again. What lasts is an error.
//!
//! Where hardened mode keeps exact sizes, a slot is live in a copy if it also has a size there. One that is live in neither
//! and that the allocator does not have waits in a quarantine.

use crate::image::Image;
use crate::region::{self, Broken, Region, Window, PAGE, SLAB_BYTES, WINDOW_PAGES};
use crate::sizes::{self, Sizes};
use crate::source::{Source, Span, Target, ADDRESSES};
use crate::threads;
use crate::{Error, Result};
use slabside_base::layout::{self, slab as field, Area, Elsewhere, Fact};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often something that does not fit is looked at.
pub const LOOKS: u32 = 3;
/// Times that a whole heap is read where it contradicts itself, and for how long the process runs before the second one:
/// see [`pause_before`]. It is a quarter of a second in all.
const READS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);
/// Times that the large table is copied until its records stand still.
const TABLE_READS: u32 = 8;
/// The most heaps, of threads and others.
const HEAPS: u64 = 1 << 20;
/// The areas that are copied, the page map first: what it leads to is read after it.
const COPIED: [Area; 5] = [
    Area::PageMap,
    Area::FirstSlabs,
    Area::Slabs,
    Area::FirstHeap,
    Area::Heaps,
];
/// Bitmap words of a header pair.
pub const WORDS: usize = 8;

/// Bits of a slab's slots, a set bit for each that is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    /// Live.
    pub live: [u64; WORDS],
    /// Freed by another thread, and not collected by the owner.
    pub waiting: [u64; WORDS],
    /// Freed by the program, and kept in a quarantine. To the allocator they are live.
    pub quarantined: [u64; WORDS],
}

impl Bits {
    /// Whether `slot` is live.
    pub fn is_live(&self, slot: usize) -> bool {
        bit(&self.live, slot)
    }

    /// Whether `slot` waits.
    pub fn is_waiting(&self, slot: usize) -> bool {
        bit(&self.waiting, slot)
    }

    /// Whether `slot` is in a quarantine.
    pub fn is_quarantined(&self, slot: usize) -> bool {
        bit(&self.quarantined, slot)
    }
}

/// Whether `words` have the bit of `slot`.
fn bit(words: &[u64; WORDS], slot: usize) -> bool {
    words
        .get(slot / 64)
        .is_some_and(|word| word >> (slot % 64) & 1 != 0)
}

/// A slab, or a span: a slab of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slab {
    /// Address of its first page and slot.
    pub base: u64,
    /// Number of its header.
    pub id: u32,
    /// Number of its first page.
    pub page: u64,
    /// Bytes of a slot.
    pub size: u64,
    /// Number of slots.
    pub slots: u32,
    /// Number of pages.
    pub pages: u32,
    /// Size class.
    pub class: u8,
    /// On which list of its owner it is.
    pub state: u8,
    /// Whether it is a span.
    pub is_span: bool,
    /// Its owner word.
    pub owner: u64,
    /// Live slots.
    pub live: u32,
    /// Slots freed by other threads that wait for the owner.
    pub waiting: u32,
    /// Slots freed by the program that wait in a quarantine.
    pub quarantined: u32,
}

/// [`Slab::state`] of pages that hardened mode keeps for their class: no slab, but pages that wait for one.
pub const KEPT: u8 = 8;

impl Slab {
    /// Its addresses.
    pub fn span(&self) -> Span {
        Span {
            start: self.base,
            end: self.base + u64::from(self.pages) * PAGE,
        }
    }

    /// The slot that `address`, which lies in the slab, is in. The last one and more after the last slot.
    pub fn slot_at(&self, address: u64) -> u32 {
        ((address - self.base) / self.size).min(u64::from(u32::MAX)) as u32
    }

    /// The address of `slot`.
    pub fn address(&self, slot: u32) -> u64 {
        self.base + u64::from(slot) * self.size
    }

    /// Slots that the allocator does not have: live ones, and those in a quarantine.
    pub fn in_use(&self) -> u32 {
        self.live + self.quarantined
    }

    /// Whether these are pages that wait for a slab.
    pub fn is_kept(&self) -> bool {
        self.state == KEPT
    }

    /// In which list it is, for people.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            1 => "unlisted",
            2 => "active",
            3 => "partial",
            4 => "sparse",
            5 => "full",
            6 => "binned",
            7 => "abandoned",
            8 => "kept",
            _ => "released",
        }
    }
}

/// What the record says of a large block that was freed and rests.
const AT_REST: u32 = 2;

/// A large block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// Where it lies.
    pub span: Span,
    /// Owner word of its first-class heap. 0 means none.
    pub owner: u64,
    /// Whether it was freed. It could not be unmapped, or it rests.
    pub stray: bool,
    /// Whether it was freed and is kept as it is for the next block of its size.
    pub rests: bool,
}

/// A freed mapping that is kept for reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where it lies.
    pub span: Span,
    /// Whether it was never touched.
    pub clean: bool,
}

/// A heap of a thread, or a first-class one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub index: u64,
    /// Its owner word now. 0 means nobody uses it.
    pub word: u64,
    /// The process that its thread is one of, as it states. 0 means not stated.
    pub pid: u32,
    /// The number of its thread, as it states. 0 means not stated, or a first-class heap.
    pub tid: u32,
    /// The thread pointer of its thread. 0 means not stated, or no thread's.
    pub pointer: u64,
    /// Where its thread keeps a word of 4 bytes, for as long as it has the heap. 0 means not stated, or no thread's.
    pub watched: u64,
    /// The value of that word.
    pub value: u32,
    /// The number of its thread, as who reads counts threads. 0 means not known, or no thread's.
    pub thread: u32,
    /// Whether it is a first-class heap.
    pub is_arena: bool,
}

/// Who owns a slab, by its owner word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The heap of this number.
    Heap(u64),
    /// A heap that is no more.
    Ended(u64),
    /// Nobody: it is full, and the first who frees into it claims it.
    Disowned,
    /// Nobody: it is on the process's list of slabs without an owner.
    Abandoned,
    /// No slab.
    Released,
}

/// Whether a process that was stopped stands still on, for its contents to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It goes on.
    No,
    /// It stands still until the target is released.
    Yes,
}

/// Buffers that are used again by the next reading.
#[derive(Default)]
pub struct Buffers {
    earlier: Image,
    now: Image,
    sizes: [Sizes; 2],
    slabs: Vec<Slab>,
}

/// A header that was looked at again, and which slots had a size then.
struct Again {
    header: [u8; 2 * SLAB_BYTES],
    sized: Option<[u64; WORDS]>,
}

/// A copy of a header.
#[derive(Clone, Copy)]
struct Seen<'a> {
    bytes: &'a [u8],
    /// Which slots had a size then. None means that none are kept, or not known.
    sized: Option<&'a [u64]>,
}

impl Seen<'_> {
    /// The slots of word `word` that have a size. All where that is not known.
    fn sized(&self, word: usize) -> u64 {
        let known = self.sized.and_then(|sized| sized.get(word));
        known.copied().unwrap_or(u64::MAX)
    }
}

/// A heap.
pub struct Heap {
    /// Its region.
    pub region: Region,
    /// Slabs and spans, by address.
    pub slabs: Vec<Slab>,
    /// Where pages lie.
    pub windows: Vec<Window>,
    /// Large blocks, by address.
    pub large: Vec<Large>,
    /// Kept ranges, by address.
    pub kept: Vec<Kept>,
    /// Heaps in use, by number.
    pub owners: Vec<Owner>,
    /// Pages within the windows that are somebody else's, or a guard, by address.
    pub foreign: Vec<Span>,
    /// Whether the target stood still.
    pub stopped: bool,
    /// Times that something had to be looked at again.
    pub looks: u32,
    /// Whether it could change while it was copied.
    moving: bool,
    /// Headers that were looked at again, by number.
    again: BTreeMap<u32, Again>,
    earlier: Option<Image>,
    now: Image,
    /// Which slots had a size, earlier and now. Empty where no sizes are kept.
    sizes: [Sizes; 2],
}

/// Pages in a row that the page map names one number for.
#[derive(Clone, Copy)]
struct Run {
    id: u32,
    page: u64,
    pages: u64,
}

impl Heap {
    /// The first heap of `source`: that of the process's malloc where there are more.
    pub fn read(source: &dyn Source) -> Result<Heap> {
        Heap::numbered(source, 0)
    }

    /// The heap numbered `index`, by address of their regions.
    pub fn numbered(source: &dyn Source, index: usize) -> Result<Heap> {
        let mut regions = region::find(source)?;
        if index >= regions.len() {
            return Err(Error::NoSuchHeap {
                name: source.name(),
                count: regions.len(),
                wanted: index,
            });
        }
        Heap::of(source, regions.swap_remove(index), &mut Buffers::default())
    }

    /// The heap of `region`, with buffers of an earlier reading. Read again where it contradicts itself.
    pub fn of(source: &dyn Source, region: Region, buffers: &mut Buffers) -> Result<Heap> {
        let reads = if source.is_moving() { READS } else { 1 };
        let mut last = Broken::Unreadable;
        for read in 0..reads {
            pause_before(read, PAUSE);
            match Heap::once(source, region.base, buffers) {
                Ok(heap) => return Ok(heap),
                Err(broken) => last = broken,
            }
            if source.is_gone() {
                return Err(Error::Ended {
                    name: source.name(),
                });
            }
        }
        Err(contradiction(source, last, reads))
    }

    /// The heaps of `regions`, of a process that stands still for no longer than their metadata are copied, or, with
    /// [`Hold::Yes`], until it is released. One that was stopped in the middle of making a slab is stopped again.
    pub fn of_stopped(
        target: &mut Target,
        regions: &[Region],
        buffers: &mut Vec<Buffers>,
        hold: Hold,
    ) -> Result<Vec<Heap>> {
        let reads = if target.is_moving() { READS } else { 1 };
        let mut last = Broken::Unreadable;
        for read in 0..reads {
            pause_before(read, PAUSE);
            let mut kept: Vec<Buffers> = regions
                .iter()
                .map(|_| buffers.pop().unwrap_or_default())
                .collect();
            if target.is_moving() {
                // All that can be done before is.
                for (region, kept) in regions.iter().zip(&mut kept) {
                    Heap::prepare(&**target, region, kept);
                }
                target.stop()?;
            }
            let copied: std::result::Result<Vec<Heap>, Broken> = regions
                .iter()
                .zip(&mut kept)
                .map(|(region, kept)| Heap::copy(&**target, region.base, kept))
                .collect();
            if hold == Hold::No {
                target.release();
            }
            target.renew()?;
            let walked = copied.and_then(|mut heaps| {
                for heap in &mut heaps {
                    heap.walk(&**target)?;
                }
                Ok(heaps)
            });
            match walked {
                Ok(heaps) => return Ok(heaps),
                Err(broken) => last = broken,
            }
            target.release();
        }
        Err(Error::Contradiction {
            name: target.name(),
            place: last.to_string(),
            reads,
            advice: "",
        })
    }

    /// The buffers, for the next reading.
    pub fn into_buffers(self) -> Buffers {
        Buffers {
            earlier: self.earlier.unwrap_or_default(),
            now: self.now,
            sizes: self.sizes,
            slabs: self.slabs,
        }
    }

    /// Reads the heap whose region begins at `base` once.
    pub fn once(
        source: &dyn Source,
        base: u64,
        buffers: &mut Buffers,
    ) -> std::result::Result<Heap, Broken> {
        let mut heap = Heap::copy(source, base, buffers)?;
        heap.walk(source)?;
        Ok(heap)
    }

    /// Makes the buffers as large as the metadata of `region` are now. A process that is stopped later then stands
    /// still only while they are copied.
    pub fn prepare(source: &dyn Source, region: &Region, buffers: &mut Buffers) {
        buffers.now.clear();
        for area in COPIED {
            buffers.now.add(source, region.area(area));
        }
    }

    /// Copies the metadata of the heap whose region begins at `base`: its slabs come by [`Heap::walk`]. A process that
    /// stands still may go on in between.
    pub fn copy(
        source: &dyn Source,
        base: u64,
        buffers: &mut Buffers,
    ) -> std::result::Result<Heap, Broken> {
        let mut header = [0; layout::HEADER_BYTES];
        if !source.read(base, &mut header) {
            return Err(Broken::Unreadable);
        }
        let mut region = Region::parse(base, &header)?;
        let mut sizes = std::mem::take(&mut buffers.sizes);
        let earlier = source.is_moving().then(|| {
            let mut image = std::mem::take(&mut buffers.earlier);
            image.clear();
            image.add(source, region.area(Area::FirstSlabs));
            image.add(source, region.area(Area::Slabs));
            sizes[0].copy(source, region.area(Area::Sizes));
            image
        });
        let mut large = BTreeMap::new();
        if source.is_moving() {
            read_large(source, &region, &mut large);
        }
        let mut now = std::mem::take(&mut buffers.now);
        now.clear();
        now.add(source, region.area(COPIED[0]));
        // Windows and heaps may have come since: those in the copy of the page map are all stated now.
        if source.read(base, &mut header) {
            region = Region::parse(base, &header)?;
        }
        for area in &COPIED[1..] {
            now.add(source, region.area(*area));
        }
        sizes[1].copy(source, region.area(Area::Sizes));
        read_large(source, &region, &mut large);
        let mut slabs = std::mem::take(&mut buffers.slabs);
        slabs.clear();
        Ok(Heap {
            windows: region.windows.clone(),
            slabs,
            large: apart(large.into_values()),
            kept: read_kept(source, &region),
            owners: Vec::new(),
            foreign: Vec::new(),
            stopped: source.stood_still(),
            moving: source.is_moving(),
            looks: 0,
            again: BTreeMap::new(),
            earlier,
            now,
            sizes,
            region,
        })
    }

    // ---- the walk -------------------------------------------------------------------------------

    /// Finds the slabs in what was copied of `source`.
    pub fn walk(&mut self, source: &dyn Source) -> std::result::Result<(), Broken> {
        self.read_owners();
        threads::find(source, self);
        if self.region.version < 3 {
            self.guess_windows();
        }
        let map = self.region.area(Area::PageMap);
        let now = std::mem::take(&mut self.now);
        let mut outcome = Ok(());
        for (address, bytes) in now.pieces(map) {
            let first = (address - map.start) / 4;
            outcome = runs(first, bytes, |run| self.run(source, &now, run));
            if outcome.is_err() {
                break;
            }
        }
        self.now = now;
        outcome?;
        self.slabs.sort_unstable_by_key(|slab| slab.base);
        self.foreign.sort_unstable();
        let mut overlap = None;
        self.slabs.dedup_by(|next, before| {
            let overlaps = next.base < before.span().end;
            if overlaps && next != before {
                overlap = Some(Broken::Slab(next.page, next.id));
            }
            overlaps
        });
        match overlap {
            // Pages that changed hands under the walk were seen twice.
            Some(broken) if self.stopped => Err(broken),
            _ => Ok(()),
        }
    }

    fn run(
        &mut self,
        source: &dyn Source,
        now: &Image,
        run: Run,
    ) -> std::result::Result<(), Broken> {
        match run.id {
            0 => return Ok(()),
            1 => {
                let place = self.windows.iter().find_map(|window| {
                    let start = window.address(run.page)?;
                    let end = (start + run.pages * PAGE).min(window.span().end);
                    Some(Span { start, end })
                });
                self.foreign.extend(place);
                return Ok(());
            }
            _ => {}
        }
        let mut broken = match self
            .header_of(now, run)
            .and_then(|slab| self.count(now, slab))
        {
            Ok(slab) => {
                self.slabs.push(slab);
                return Ok(());
            }
            Err(broken) => broken,
        };
        if !self.moving {
            // What was not copied because nothing of it is there may still be read. What was copied stays as it is.
            if self.stopped && matches!(broken, Broken::Slab(..)) {
                return Err(broken);
            }
            return match self.look(source, run.page) {
                Ok(slab) => {
                    self.slabs.extend(slab);
                    Ok(())
                }
                Err(broken) if self.stopped => Err(broken),
                // A snapshot of a process that went on: what came and went meanwhile is left out.
                Err(_) => Ok(()),
            };
        }
        for page in run.page..run.page + run.pages {
            let mut done = false;
            for _ in 0..LOOKS {
                match self.look(source, page) {
                    Ok(slab) => {
                        self.slabs.extend(slab);
                        done = true;
                        break;
                    }
                    Err(again) => broken = again,
                }
                std::thread::yield_now();
            }
            if !done {
                return Err(broken);
            }
        }
        Ok(())
    }

    /// What the target itself says of `page` by now: a slab, or none.
    fn look(
        &mut self,
        source: &dyn Source,
        page: u64,
    ) -> std::result::Result<Option<Slab>, Broken> {
        self.looks = self.looks.saturating_add(1);
        let mut word = [0; 4];
        if !source.read(self.region.entry(page), &mut word) {
            return Ok(None);
        }
        let id = u32::from_le_bytes(word);
        if id < 2 {
            return Ok(None);
        }
        let number = Broken::Number(page, id);
        let mut bytes = [0; 2 * SLAB_BYTES];
        let at = self.region.header(id, SLAB_BYTES).ok_or(number)?;
        if !source.read(at, &mut bytes[..SLAB_BYTES]) {
            return Err(number);
        }
        if u64::from(bytes[field::CLASS]) == self.region.fact(Fact::PairClass) {
            let at = self.region.header(id, 2 * SLAB_BYTES).ok_or(number)?;
            if !source.read(at, &mut bytes) {
                return Err(number);
            }
        }
        let slab = self
            .parse(&bytes, id, page, None)
            .ok_or(Broken::Slab(page, id))?;
        let again = Again {
            header: bytes,
            sized: self.sized_now(source, &slab),
        };
        self.again.insert(id, again);
        let bits = self.bits(&slab);
        Ok(Some(counted(slab, &bits)))
    }

    /// The slab that the copied header of `run` says to be there.
    fn header_of(&self, now: &Image, run: Run) -> std::result::Result<Slab, Broken> {
        let number = Broken::Number(run.page, run.id);
        let at = self.region.header(run.id, SLAB_BYTES).ok_or(number)?;
        let bytes = now.get(at, SLAB_BYTES).ok_or(number)?;
        self.parse(bytes, run.id, run.page, Some(run.pages))
            .ok_or(Broken::Slab(run.page, run.id))
    }

    /// The slab that a header describes, if one of `pages` pages of number `id` can lie at `page`. Without `pages`
    /// any page of it may be `page`.
    fn parse(&self, bytes: &[u8], id: u32, page: u64, pages: Option<u64>) -> Option<Slab> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let class = bytes[field::CLASS];
        let slab = Slab {
            base: long(field::BASE),
            id: word(field::ID),
            page,
            size: u64::from(word(field::SIZE)),
            slots: u32::from(half(field::SLOTS)),
            // In layout 2 a byte more, which was zero.
            pages: u32::from(bytes[field::PAGES]),
            class,
            state: bytes[field::STATE],
            is_span: u64::from(class) == self.region.fact(Fact::SpanClass),
            owner: long(field::OWNER),
            live: 0,
            waiting: 0,
            quarantined: 0,
        };
        let length = u64::from(slab.pages);
        let good = slab.id == id
            && matches!(slab.state, 1..=8)
            && pages.is_none_or(|pages| pages == length)
            && slab.base.is_multiple_of(PAGE)
            && slab.base != 0
            && slab.base < ADDRESSES
            && self.has_shape(&slab, word(field::RECIPROCAL));
        if !good {
            return None;
        }
        let window = self
            .windows
            .iter()
            .find(|window| window.span().holds(slab.base))?;
        let first = window.first + (slab.base - window.base) / PAGE;
        let inside = slab.span().end <= window.span().end;
        let here = match pages {
            Some(_) => first == page,
            None => (first..first + length).contains(&page),
        };
        (inside && here).then_some(Slab {
            page: first,
            ..slab
        })
    }

    /// Whether size, slots, pages and reciprocal are those of some class.
    fn has_shape(&self, slab: &Slab, reciprocal: u32) -> bool {
        let bytes = u64::from(slab.pages) * PAGE;
        if slab.is_span {
            return slab.slots == 1
                && slab.size == bytes
                && reciprocal == 1
                && (1..=self.region.fact(Fact::SpanPages)).contains(&u64::from(slab.pages));
        }
        if !self.has_size_of_class(slab) {
            return false;
        }
        let pair = u64::from(slab.class) == self.region.fact(Fact::PairClass);
        let most = self.region.fact(Fact::Slots) * if pair { 2 } else { 1 };
        u64::from(slab.slots) == (bytes / slab.size).min(most)
            && slab.slots > 0
            && u64::from(reciprocal) == (1u64 << 32).div_ceil(slab.size)
            && u64::from(slab.pages) <= self.region.fact(Fact::SlabPages)
    }

    /// Whether a slot is as large as those of the class: from layout 4 on the sizes are known.
    fn has_size_of_class(&self, slab: &Slab) -> bool {
        let known = layout::SIZES.get(usize::from(slab.class));
        match self.region.version {
            4 | region::NEWEST => {
                usize::from(slab.class) < self.region.span_class()
                    && known.is_some_and(|&size| u64::from(size) == slab.size)
            }
            _ => {
                usize::from(slab.class) < self.region.span_class()
                    && slab.size >= 8
                    && slab.size.is_multiple_of(8)
            }
        }
    }

    /// The same with its slots counted.
    fn count(&self, now: &Image, slab: Slab) -> std::result::Result<Slab, Broken> {
        let broken = Broken::Number(slab.page, slab.id);
        let n = self.header_bytes(&slab);
        let at = self.region.header(slab.id, n).ok_or(broken)?;
        let bytes = now.get(at, n).ok_or(broken)?;
        if !self.has_tail(&slab, bytes) {
            return Err(Broken::Slab(slab.page, slab.id));
        }
        let bits = self.bits_copied(&slab, at, bytes);
        Ok(counted(slab, &bits))
    }

    fn is_pair(&self, slab: &Slab) -> bool {
        u64::from(slab.class) == self.region.fact(Fact::PairClass)
    }

    fn header_bytes(&self, slab: &Slab) -> usize {
        if self.is_pair(slab) {
            2 * SLAB_BYTES
        } else {
            SLAB_BYTES
        }
    }

    /// Whether the bits past the last slot read free.
    fn has_tail(&self, slab: &Slab, bytes: &[u8]) -> bool {
        let words = (slab.slots as usize).div_ceil(64);
        (0..words).all(|word| {
            let free = bitmap(bytes, field::FREE, word);
            free | slots_of_word(slab.slots, word) == u64::MAX
        })
    }

    /// What the header `bytes`, which was copied from `at`, says of the slots, and an earlier copy of it.
    fn bits_copied(&self, slab: &Slab, at: u64, bytes: &[u8]) -> Bits {
        let [sized_earlier, sized] = self.sizes.each_ref().map(|sizes| {
            let at = self.sizes_at(slab)?;
            sizes.get(at, (slab.slots as usize).div_ceil(64))
        });
        let earlier = self.earlier.as_ref();
        let earlier = earlier.and_then(|image| image.get(at, bytes.len()));
        let earlier = earlier.map(|bytes| Seen {
            bytes,
            sized: sized_earlier,
        });
        self.bits_of(slab, Seen { bytes, sized }, earlier)
    }

    /// What `now` says of the slots, and `earlier`, an earlier copy of it, where the slab was the same.
    fn bits_of(&self, slab: &Slab, now: Seen<'_>, earlier: Option<Seen<'_>>) -> Bits {
        let mut bits = Bits::default();
        if slab.is_kept() {
            return bits;
        }
        let remote = if self.is_pair(slab) {
            field::PAIR_REMOTE
        } else {
            field::REMOTE
        };
        let same = |other: &Seen<'_>| {
            let fixed = [
                field::BASE..field::BASE + 8,
                field::RECIPROCAL..field::SIZE + 4,
                field::SLOTS..field::CLASS + 1,
            ];
            fixed
                .into_iter()
                .all(|part| other.bytes[part.clone()] == now.bytes[part])
        };
        let earlier = earlier.filter(same);
        let words = (slab.slots as usize).div_ceil(64).min(WORDS);
        for word in 0..words {
            let mask = slots_of_word(slab.slots, word);
            // Those that the allocator does not have, of these the live ones, and those that others have freed.
            let slots = |seen: &Seen<'_>| {
                let free = bitmap(seen.bytes, field::FREE, word);
                let others = bitmap(seen.bytes, remote, word);
                let in_use = !(free | others) & mask;
                (in_use, in_use & seen.sized(word), others & !free & mask)
            };
            let (in_use, mut live, waiting) = slots(&now);
            if let Some(earlier) = &earlier {
                live |= slots(earlier).1;
            }
            bits.live[word] = live;
            bits.waiting[word] = waiting & !live;
            bits.quarantined[word] = in_use & !live;
        }
        bits
    }

    /// Which slots of `slab`, one of this heap's, are live, which wait, and which are in a quarantine.
    pub fn bits(&self, slab: &Slab) -> Bits {
        if let Some(again) = self.again.get(&slab.id) {
            let seen = Seen {
                bytes: &again.header,
                sized: again.sized.as_ref().map(|sized| &sized[..]),
            };
            return self.bits_of(slab, seen, None);
        }
        let n = self.header_bytes(slab);
        let Some(at) = self.region.header(slab.id, n) else {
            return Bits::default();
        };
        let Some(bytes) = self.now.get(at, n) else {
            return Bits::default();
        };
        self.bits_copied(slab, at, bytes)
    }

    /// Where the sizes of the slots of `slab` lie. None where none are kept.
    fn sizes_at(&self, slab: &Slab) -> Option<u64> {
        let area = self.region.area(Area::Sizes);
        let header = u64::from(slab.id).checked_mul(self.region.fact(Fact::SizesBytes))?;
        let at = area.start.checked_add(header)?;
        area.holds(at).then_some(at)
    }

    /// Which slots of `slab` have a size in the target itself.
    fn sized_now(&self, source: &dyn Source, slab: &Slab) -> Option<[u64; WORDS]> {
        let words = (slab.slots as usize).div_ceil(64).min(WORDS);
        let mut bytes = [0; WORDS * sizes::OF_WORD];
        let bytes = &mut bytes[..words * sizes::OF_WORD];
        if !source.read(self.sizes_at(slab)?, bytes) {
            return None;
        }
        let mut sized = [0; WORDS];
        let words = sized.iter_mut().zip(sizes::words_of(bytes));
        words.for_each(|(to, word)| *to = word);
        Some(sized)
    }

    /// Slots that are marked free by the owner and by another thread: they were freed twice.
    pub fn freed_twice(&self, slab: &Slab) -> u32 {
        let n = self.header_bytes(slab);
        let Some(bytes) = self
            .region
            .header(slab.id, n)
            .and_then(|at| self.now.get(at, n))
        else {
            return 0;
        };
        let remote = if self.is_pair(slab) {
            field::PAIR_REMOTE
        } else {
            field::REMOTE
        };
        let words = (slab.slots as usize).div_ceil(64).min(WORDS);
        (0..words)
            .map(|word| {
                let both = bitmap(bytes, field::FREE, word) & bitmap(bytes, remote, word);
                (both & slots_of_word(slab.slots, word)).count_ones()
            })
            .sum()
    }

    /// Layout 2 does not state its windows: they are where slabs lie whose pages have numbers in a row.
    fn guess_windows(&mut self) {
        let map = self.region.area(Area::PageMap);
        let mut found: Vec<Window> = Vec::new();
        for (address, bytes) in self.now.pieces(map) {
            let first = (address - map.start) / 4;
            let _ = runs(first, bytes, |run| {
                self.guess(run, &mut found);
                Ok(())
            });
        }
        self.windows = found;
    }

    fn guess(&self, run: Run, found: &mut Vec<Window>) {
        if run.id == 1 {
            if let Some(last) = found.last_mut() {
                last.pages = last.pages.max(run.page + run.pages - last.first);
            }
        }
        let at = self.region.header(run.id, SLAB_BYTES);
        let Some(bytes) = at
            .filter(|_| run.id >= 2)
            .and_then(|at| self.now.get(at, SLAB_BYTES))
        else {
            return;
        };
        let mut base = [0; 8];
        base.copy_from_slice(&bytes[field::BASE..field::BASE + 8]);
        let base = u64::from_le_bytes(base);
        let first = run.page / WINDOW_PAGES * WINDOW_PAGES;
        let Some(start) = base.checked_sub((run.page - first) * PAGE) else {
            return;
        };
        let end = base.saturating_add(run.pages.saturating_mul(PAGE));
        if !base.is_multiple_of(PAGE) || start == 0 || end > ADDRESSES {
            return;
        }
        let pages = run.page + run.pages - first;
        let (full, mapped) = (found.len() == layout::WINDOWS, !found.is_empty());
        match found.last_mut() {
            Some(last) if last.base + (run.page - last.first) * PAGE == base => {
                last.pages = run.page + run.pages - last.first;
            }
            Some(last) if last.first + last.pages > first => {}
            _ if full => {}
            _ => found.push(Window {
                base: start,
                first,
                pages,
                mapped,
            }),
        }
    }

    // ---- owners ---------------------------------------------------------------------------------

    fn read_owners(&mut self) {
        let fact = |fact| self.region.fact(fact);
        for index in 0..self.region.heaps_made.min(HEAPS) {
            let Some(at) = self.region.heap(index) else {
                return;
            };
            let word = self.now.word(at + fact(Fact::HeapOwner)).unwrap_or(0);
            let thread = self.now.word(at + fact(Fact::HeapThread)).unwrap_or(0);
            let arena = self.now.get(at + fact(Fact::HeapArena), 1);
            let stated = |fact: Fact| match self.region.states_threads() {
                true => self.now.word(at + self.region.fact(fact)).unwrap_or(0),
                false => 0,
            };
            if word != 0 {
                self.owners.push(Owner {
                    index,
                    word,
                    pid: (thread >> 32) as u32,
                    tid: thread as u32,
                    pointer: stated(Fact::HeapPointer),
                    watched: stated(Fact::HeapWatched) >> layout::WATCHED_SHIFT << 2,
                    value: stated(Fact::HeapWatchedValue) as u32,
                    thread: 0,
                    is_arena: arena == Some(&[1]),
                });
            }
        }
    }

    /// Who an owner word speaks of.
    pub fn holder(&self, word: u64) -> Holder {
        match word {
            layout::owner::RELEASED => return Holder::Released,
            _ if word & layout::owner::FULL != 0 => return Holder::Disowned,
            _ if layout::owner::list_of(word).is_some() => return Holder::Abandoned,
            _ => {}
        }
        let index = layout::owner::index(word) as u64;
        match self.owner(index) {
            Some(owner) if (owner.word ^ word) & !layout::owner::PENDING == 0 => {
                Holder::Heap(index)
            }
            _ => Holder::Ended(index),
        }
    }

    /// The heap numbered `index`, if it is in use.
    pub fn owner(&self, index: u64) -> Option<&Owner> {
        let at = self
            .owners
            .binary_search_by_key(&index, |owner| owner.index)
            .ok()?;
        self.owners.get(at)
    }

    // ---- by address -----------------------------------------------------------------------------

    /// The slab whose pages hold `address`.
    pub fn slab_at(&self, address: u64) -> Option<&Slab> {
        let index = self.slabs.partition_point(|slab| slab.base <= address);
        self.slabs[..index]
            .last()
            .filter(|slab| slab.span().holds(address))
    }

    /// The large block that holds `address`.
    pub fn large_at(&self, address: u64) -> Option<&Large> {
        let index = self
            .large
            .partition_point(|block| block.span.start <= address);
        self.large[..index]
            .last()
            .filter(|block| block.span.holds(address))
    }

    /// The kept range that holds `address`.
    pub fn kept_at(&self, address: u64) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.span.holds(address))
    }

    /// The window that holds `address`.
    pub fn window_at(&self, address: u64) -> Option<&Window> {
        self.windows
            .iter()
            .find(|window| window.span().holds(address))
    }

    /// Whether `address` lies in a page among the heap's that is somebody else's, or a guard.
    pub fn is_foreign(&self, address: u64) -> bool {
        let index = self.foreign.partition_point(|span| span.start <= address);
        self.foreign[..index]
            .last()
            .is_some_and(|span| span.holds(address))
    }

    /// Bytes that were asked for of a slot, where hardened mode keeps that.
    pub fn asked(&self, source: &dyn Source, slab: &Slab, slot: u32) -> Option<u64> {
        let bytes = self.region.fact(Fact::SizesBytes);
        let area = self.region.area(Area::Sizes);
        let at = area.start + u64::from(slab.id) * bytes + u64::from(slot) * 2;
        let mut word = [0; 2];
        if !self.region.is_hardened() || !area.holds(at + 1) || !source.read(at, &mut word) {
            return None;
        }
        let unused = u64::from(u16::from_le_bytes(word)).checked_sub(1)?;
        slab.size.checked_sub(unused)
    }

    /// Calls `visit` with each live block: where it lies, and its slab if it is in one. By address, large ones last.
    pub fn each_live(&self, mut visit: impl FnMut(Span, Option<&Slab>)) {
        for slab in &self.slabs {
            let bits = self.bits(slab);
            for (word, &live) in bits.live.iter().enumerate() {
                let mut left = live;
                while left != 0 {
                    let slot = word as u32 * 64 + left.trailing_zeros();
                    left &= left - 1;
                    let start = slab.address(slot);
                    let end = start + slab.size;
                    visit(Span { start, end }, Some(slab));
                }
            }
        }
        for block in self.large.iter().filter(|block| !block.stray) {
            visit(block.span, None);
        }
    }

    /// Bytes of metadata that were copied.
    pub fn copied(&self) -> usize {
        let sizes: usize = self.sizes.iter().map(Sizes::len).sum();
        self.now.len() + sizes + self.earlier.as_ref().map_or(0, Image::len)
    }
}

/// Waits before the `read`th reading, but not before that of number 0. The process runs `first` before the next one, and
/// twice as long each time: a thread may have to wait for a processor in the middle of a change.
pub(crate) fn pause_before(read: u32, first: Duration) {
    if let Some(times) = read.checked_sub(1) {
        std::thread::sleep(first * 2u32.pow(times));
    }
}

/// What is told where `broken` stays so.
pub fn contradiction(source: &dyn Source, broken: Broken, reads: u32) -> Error {
    Error::Contradiction {
        name: source.name(),
        place: broken.to_string(),
        reads,
        advice: if source.is_moving() {
            "; --stop gives a whole picture"
        } else {
            ""
        },
    }
}

fn counted(slab: Slab, bits: &Bits) -> Slab {
    let ones = |words: &[u64; WORDS]| words.iter().map(|word| word.count_ones()).sum();
    Slab {
        live: ones(&bits.live),
        waiting: ones(&bits.waiting),
        quarantined: ones(&bits.quarantined),
        ..slab
    }
}

/// The `word`-th word of the bitmap at byte `at` of a header.
fn bitmap(header: &[u8], at: usize, word: usize) -> u64 {
    let bytes = header.get(at + 8 * word..at + 8 * word + 8);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(u64::MAX, u64::from_le_bytes)
}

/// The bits of word `word` that stand for slots.
fn slots_of_word(slots: u32, word: usize) -> u64 {
    match (slots as usize).saturating_sub(word * 64) {
        0 => 0,
        n if n >= 64 => u64::MAX,
        n => (1 << n) - 1,
    }
}

/// Calls `visit` with each run of one number among the entries `bytes` of the page map, the first of which is that of
/// page `first`.
fn runs(
    first: u64,
    bytes: &[u8],
    mut visit: impl FnMut(Run) -> std::result::Result<(), Broken>,
) -> std::result::Result<(), Broken> {
    let mut run = Run {
        id: 0,
        page: first,
        pages: 0,
    };
    for (index, entry) in bytes.chunks_exact(4).enumerate() {
        let id = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        if id != run.id {
            if run.id != 0 {
                visit(run)?;
            }
            run = Run {
                id,
                page: first + index as u64,
                pages: 0,
            };
        }
        run.pages += 1;
    }
    if run.id == 0 {
        return Ok(());
    }
    visit(run)
}

/// Adds the records of the large table to `found`, by address.
fn read_large(source: &dyn Source, region: &Region, found: &mut BTreeMap<u64, Large>) {
    let epoch = region.elsewhere(Elsewhere::LargeEpoch);
    let now = || {
        let mut word = [0; 4];
        (epoch != 0 && source.read(epoch, &mut word)).then(|| u32::from_le_bytes(word))
    };
    for _ in 0..TABLE_READS {
        let before = now();
        let mut shift = [0; 4];
        let at = region.base + layout::offset::LARGE_SHIFT as u64;
        if !source.read(at, &mut shift) {
            return;
        }
        let Some(table) = region.large_table(u32::from_le_bytes(shift)) else {
            return;
        };
        let mut image = Image::default();
        image.add(source, table);
        records(region, &image, table, found);
        let after = now();
        if !source.is_moving()
            || before.is_none()
            || before == after && before.is_some_and(|epoch| epoch.is_multiple_of(2))
        {
            return;
        }
    }
}

fn records(region: &Region, image: &Image, table: Span, found: &mut BTreeMap<u64, Large>) {
    let bytes = region.fact(Fact::RecordBytes);
    let os_page = region.fact(Fact::OsPage);
    for (start, piece) in image.pieces(table) {
        // Records do not straddle pages: their size is a power of two.
        let skipped = (start - table.start).next_multiple_of(bytes) - (start - table.start);
        for at in (start + skipped..start + piece.len() as u64).step_by(bytes as usize) {
            let word = |fact| image.word(at + region.fact(fact)).unwrap_or(0);
            let (address, length) = (word(Fact::RecordAddress), word(Fact::RecordLength));
            let possible = address != 0
                && length != 0
                && address.is_multiple_of(PAGE)
                && length.is_multiple_of(os_page.min(PAGE))
                && address
                    .checked_add(length)
                    .is_some_and(|end| end <= ADDRESSES);
            if possible {
                let freed = word(Fact::RecordStray) as u32;
                let block = Large {
                    span: Span {
                        start: address,
                        end: address + length,
                    },
                    // A record at rest has a link there.
                    owner: Some(word(Fact::RecordOwner))
                        .filter(|word| word & layout::owner::ARENA != 0)
                        .unwrap_or(0),
                    stray: freed != 0,
                    rests: freed == AT_REST,
                };
                found.insert(address, block);
            }
        }
    }
}

/// Blocks that do not overlap, by address: of two that do, the first.
fn apart(blocks: impl Iterator<Item = Large>) -> Vec<Large> {
    let mut all: Vec<Large> = blocks.collect();
    all.dedup_by(|next, before| next.span.start < before.span.end);
    all
}

fn read_kept(source: &dyn Source, region: &Region) -> Vec<Kept> {
    let at = region.elsewhere(Elsewhere::Kept);
    let (places, bytes) = (region.fact(Fact::KeptPlaces), region.fact(Fact::KeptBytes));
    if at == 0 || places == 0 || bytes == 0 {
        return Vec::new();
    }
    let mut table = vec![0; (places * bytes) as usize];
    if !source.read(at, &mut table) {
        return Vec::new();
    }
    let mut kept: Vec<Kept> = table
        .chunks_exact(bytes as usize)
        .filter_map(|range| {
            let word = |fact| {
                let at = region.fact(fact) as usize;
                let word = range.get(at..at + 8)?.try_into().ok()?;
                Some(u64::from_le_bytes(word))
            };
            let (start, length) = (word(Fact::KeptAddress)?, word(Fact::KeptLength)?);
            let end = start.checked_add(length).filter(|&end| end <= ADDRESSES)?;
            let clean = range.get(region.fact(Fact::KeptClean) as usize)? != &0;
            (length > 0).then_some(Kept {
                span: Span { start, end },
                clean,
            })
        })
        .collect();
    kept.sort_by_key(|kept| kept.span);
    kept.dedup_by(|next, before| next.span.start < before.span.end);
    kept
}

//! The metadata region: one range of address space, at a random place apart from all user memory, cut into areas.
//!
//! ```text
//!   | header, | first | first group's bitmaps, | first slab | page map | heaps | arenas | page groups | ...
//!   | counters| heap  | run tree               | headers    |          |
//!    `----------------- opened at once -----------------------'          each area has room for its full size,
//!                                                                         and is opened as far as it is used
//! ```
//!
//! The region is claimed, not reserved, if the system can. What is not open is not mapped. It counts for no limit that
//! the process is under, or puts itself under later. Somebody else may come to lie there. Then the area ends before. So
//! which pages are open is written down exactly (`Opened`): a page is opened once.
//!
//! What a small program needs of each area lies side by side: one call of the system opens it, and one page of
//! page tables holds it. So the first heap, the first group and the first slab headers lie apart from the rest of
//! their kind. In hardened mode gaps part all areas, and nothing lies apart.
//!
//! The header describes the areas for a reader outside the process. What the areas hold is given a type by the layers
//! above. This one only knows bytes.

use crate::budget::Budget;
use crate::class::{PAIR, SPAN};
use crate::counters::{self, Counters};
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::{Hold, Limits, Os, Refusal, Vm};
use crate::read_only::ReadOnly;
use crate::sync::{AtomicU32, AtomicU64};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::units::{align_up, GROUP_PAGES, PAGE, PAGE_SHIFT, WINDOW_PAGES};
use crate::units::{SLAB_PAGES, SLOTS, SPAN_PAGES};
use core::ops::Range;
use core::ptr::NonNull;

pub use crate::region::{
    Area, Elsewhere, Fact, Header, WindowRange, AREAS, HARDENED, MAGIC, PROFILE_SHIFT,
};
pub use crate::region::{SAMPLE_BYTES, SLAB_BYTES, VERSION, WINDOWS};

/// Number of all areas.
const ALL_AREAS: usize = AREAS + 2;

/// Bytes reserved for a thread heap.
pub const HEAP_BYTES: usize = 8192;
/// Bytes reserved for a first-class heap beside its thread heap.
pub const ARENA_BYTES: usize = 1280;
/// Bytes reserved for the bitmaps of a group of pages.
pub const GROUP_BYTES: usize = 4096;
/// Bytes of them that are used.
pub const GROUP_USED: usize = 2176;
/// Bytes of a record of a large block.
pub const RECORD_BYTES: usize = 32;
/// Bytes reserved for the exact sizes of one header's slots.
pub const SIZES_BYTES: usize = SLOTS * 2;
/// Bytes reserved for what hardened mode keeps of a thread.
pub const THREAD_BYTES: usize = 40 << 10;
/// Blocks of no bytes that can live at a time in hardened mode. More are served as one byte is.
pub const EMPTY_BLOCKS: usize = 1 << 20;
/// Base-2 logarithm of the number of lists that samples are found in.
pub const SAMPLE_LISTS_SHIFT: u32 = 14;

/// Where an area lies, from the region's start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Extent {
    /// First byte.
    pub offset: usize,
    /// Bytes reserved.
    pub bytes: usize,
}

/// The library's version, filled up with zeros.
const LIBRARY: [u64; 2] = {
    let text = env!("CARGO_PKG_VERSION").as_bytes();
    let mut words = [0; 2];
    let mut at = 0;
    while at < text.len() && at < 16 {
        words[at / 8] |= (text[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
};

/// How much the region provides for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Pages of the break window.
    pub break_pages: usize,
    /// Page numbers for all windows together.
    pub pages: usize,
    /// Slab headers.
    pub slabs: usize,
    /// Thread heaps.
    pub heaps: usize,
    /// Records of large blocks in one table, a power of two.
    pub records: usize,
    /// Places for samples of the heap profile.
    pub samples: usize,
    /// Whether the areas of hardened mode are provided for, and lie apart.
    pub hardened: bool,
}

impl Plan {
    /// The largest plan: 4 TiB of break, 1 TiB in fallback windows.
    pub const fn unlimited() -> Plan {
        Plan {
            break_pages: 1 << 30,
            pages: (1 << 30) + (1 << 28),
            slabs: 1 << 30,
            heaps: 1 << 15,
            records: 1 << 24,
            samples: 1 << 20,
            hardened: false,
        }
    }

    /// A plan for `bytes` of heap in all, which costs about a fifteenth of that in address space.
    pub fn of(bytes: usize) -> Plan {
        let most = Plan::unlimited();
        let pages = (bytes >> PAGE_SHIFT).clamp(1 << 10, most.break_pages);
        Plan {
            break_pages: pages,
            pages: (2 * pages).min(most.pages).next_multiple_of(WINDOW_PAGES) + 3 * WINDOW_PAGES,
            // A page of 8-byte slots takes a pair of headers, and a single header never becomes part of a pair. So in a
            // small plan there is one of each for every page.
            slabs: if pages <= 1 << 20 {
                3 * pages
            } else {
                pages + (1 << 21)
            },
            heaps: (pages >> 6).clamp(64, most.heaps),
            // Aligned blocks are large ones of a page or two, each with a record.
            records: (pages >> 1).next_power_of_two().clamp(1 << 8, most.records),
            samples: (pages >> 6).clamp(64, most.samples),
            hardened: false,
        }
    }

    /// The same with or without hardened mode.
    const fn with_hardened(self, hardened: bool) -> Plan {
        Plan { hardened, ..self }
    }

    /// The plan for a process under `limits`, on a system with `memory` bytes. It is all the address space that may be
    /// used, or four times the memory, but at least 64 GiB.
    pub fn under(limits: Limits, memory: usize) -> Plan {
        if limits.address_space != usize::MAX {
            return Plan::of(limits.address_space);
        }
        match memory.checked_mul(4) {
            Some(bytes) => Plan::of(bytes.max(64 << 30)),
            None => Plan::unlimited(),
        }
    }

    /// The next smaller plan, for when address space is refused. `None` at the smallest.
    fn smaller(self) -> Option<Plan> {
        let smaller = || Plan::of(self.break_pages / 4 * PAGE).with_hardened(self.hardened);
        (self.break_pages > 1 << 12).then(smaller)
    }

    /// Number of page groups.
    pub const fn groups(&self) -> usize {
        self.pages.div_ceil(GROUP_PAGES)
    }

    fn bytes_of(&self, area: Area) -> usize {
        match area {
            Area::Header => PAGE,
            Area::FirstHeap | Area::FirstGroup | Area::FirstSlabs if self.hardened => 0,
            Area::FirstHeap => HEAP_BYTES,
            Area::FirstGroup => GROUP_USED,
            Area::FirstSlabs => PAGE,
            Area::Heaps => self.heaps * HEAP_BYTES,
            Area::Arenas => self.heaps * ARENA_BYTES,
            Area::Groups => self.groups() * GROUP_BYTES,
            // Levels of n, n/64, n/64^2 ... bytes, each rounded up to 64.
            Area::Tree => self.groups() + self.groups() / 32 + 6 * 64,
            Area::PageMap => self.groups() * GROUP_PAGES * 4,
            Area::LargeOdd | Area::LargeEven => self.records * RECORD_BYTES,
            Area::Slabs => self.slabs * SLAB_BYTES,
            Area::Sizes | Area::Threads | Area::Empty if !self.hardened => 0,
            Area::Sizes => self.slabs * SIZES_BYTES,
            Area::Threads => self.heaps * THREAD_BYTES,
            Area::Empty => EMPTY_BLOCKS / 8,
            Area::Samples => self.samples * SAMPLE_BYTES,
            Area::SampleIndex => 4 << SAMPLE_LISTS_SHIFT,
        }
    }
}

/// All areas in order of address.
const ALL: [Area; ALL_AREAS] = [
    Area::Header,
    Area::FirstHeap,
    Area::FirstGroup,
    Area::Tree,
    Area::FirstSlabs,
    Area::PageMap,
    Area::Heaps,
    Area::Arenas,
    Area::Groups,
    Area::LargeOdd,
    Area::LargeEven,
    Area::Slabs,
    Area::Sizes,
    Area::Threads,
    Area::Empty,
    Area::Samples,
    Area::SampleIndex,
];

/// Where the region lies, and what in it.
struct Place {
    base: usize,
    os_page: usize,
    hold: Hold,
    extents: [Extent; ALL_AREAS],
    plan: Plan,
}

/// Ranges of open pages there may be: each area has one, and three have one for each window.
const OPEN_RANGES: usize = ALL_AREAS + 3 * WINDOWS;

/// Which pages of the region are open, by OS pages from its start.
///
/// A range grows at its end, and none goes. Each change is one store, so that a fork finds what holds at every moment.
struct Opened {
    used: AtomicU32,
    ranges: [AtomicU64; OPEN_RANGES],
    /// What a thread was about to open: in a fork child, by a thread that is gone. 0: nothing.
    pending: AtomicU64,
}

/// A range of pages as a word.
fn packed(pages: &Range<usize>) -> u64 {
    (pages.start as u64) << 32 | pages.end as u64
}

/// The range of pages that `word` stands for.
fn unpacked(word: u64) -> Range<usize> {
    (word >> 32) as usize..word as u32 as usize
}

impl Opened {
    const fn none() -> Opened {
        Opened {
            used: AtomicU32::new(0),
            ranges: [const { AtomicU64::new(0) }; OPEN_RANGES],
            pending: AtomicU64::new(0),
        }
    }

    fn forget(&self) {
        self.used.store(0, Relaxed);
        self.pending.store(0, Relaxed);
    }

    fn words(&self) -> &[AtomicU64] {
        &self.ranges[..self.used.load(Acquire) as usize]
    }

    /// The first of `pages` that are not open, in a row.
    fn gap(&self, pages: Range<usize>) -> Option<Range<usize>> {
        let ranges = || self.words().iter().map(|word| unpacked(word.load(Relaxed)));
        let mut start = pages.start;
        while let Some(open) = ranges().find(|open| open.contains(&start)) {
            start = open.end;
            if start >= pages.end {
                return None;
            }
        }
        // A page alone is all of the gap. A refused growth comes this way again and again.
        if start + 1 == pages.end {
            return Some(start..pages.end);
        }
        let behind = ranges().filter(|open| open.start > start);
        let end = behind.fold(pages.end, |end, open| end.min(open.start));
        (start < end).then_some(start..end)
    }

    /// `pages`, none of which was open, are so now. False where there is no place to note that.
    fn add(&self, pages: &Range<usize>) -> bool {
        let words = self.words();
        let before = |word: &&AtomicU64| unpacked(word.load(Relaxed)).end == pages.start;
        if let Some(word) = words.iter().find(before) {
            let start = unpacked(word.load(Relaxed)).start;
            word.store(packed(&(start..pages.end)), Relaxed);
            return true;
        }
        let used = words.len();
        let Some(word) = self.ranges.get(used) else {
            return false;
        };
        word.store(packed(pages), Relaxed);
        self.used.store(used as u32 + 1, Release);
        true
    }
}

/// Where memory comes from: the system, and the metadata region, which records and limits what the process has of it.
/// Two words, by value.
pub struct Supply<'a, V: Vm> {
    /// The system.
    pub os: &'a V,
    /// The metadata region.
    pub meta: &'a Meta,
}

impl<V: Vm> Clone for Supply<'_, V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: Vm> Copy for Supply<'_, V> {}

/// The region. All zero until [`Meta::init`].
pub struct Meta {
    /// What the heap may take from the system, and has taken.
    pub budget: Budget,
    /// Non-zero once the region is there.
    ready: AtomicU32,
    /// Where it is.
    place: ReadOnly<Place>,
    /// Which pages of it are open.
    opened: Opened,
    /// Held while pages are opened.
    opening: Mutex<()>,
    /// Non-zero where hardened mode is provided for.
    hardened: AtomicU32,
}

impl Meta {
    /// A region that is not there yet.
    pub const fn new(locks: &mut Registry) -> Meta {
        Meta {
            budget: Budget::new(),
            ready: AtomicU32::new(0),
            place: ReadOnly::new(Place {
                base: 0,
                os_page: 0,
                hold: Hold::Reserved,
                extents: [Extent {
                    offset: 0,
                    bytes: 0,
                }; ALL_AREAS],
                plan: Plan::unlimited(),
            }),
            opened: Opened::none(),
            opening: Mutex::new(locks, ()),
            hardened: AtomicU32::new(0),
        }
    }

    /// From [`Meta::init`] on, which comes later, the plan provides for hardened mode. Its areas are there, and gaps of
    /// random width that nobody can touch separate the areas.
    pub fn harden(&self) {
        self.hardened.store(1, Relaxed);
    }

    /// Finds the region a place and opens its header and counters. False where the system refuses. It can be tried
    /// again. Once at a time.
    pub fn init<O: Os>(&self, os: &O) -> bool {
        let hardened = self.hardened.load(Relaxed) != 0;
        let mut plan = Plan::under(os.limits(), os.memory()).with_hardened(hardened);
        loop {
            // Somebody else may be faster than the first call that opens a part of what was claimed.
            let found = [Hold::Claimed, Hold::Claimed, Hold::Reserved]
                .into_iter()
                .any(|hold| self.begin(os, plan, hold).is_some());
            if found {
                return true;
            }
            match plan.smaller() {
                Some(smaller) => plan = smaller,
                None => return false,
            }
        }
    }

    /// Finds place for the areas, and for a page before and after them that is never opened: an overflow from what
    /// lies beside must meet a fault.
    fn begin<O: Os>(&self, os: &O, plan: Plan, hold: Hold) -> Option<()> {
        let os_page = os.page_size();
        let (extents, end) = lay_out(os, plan)?;
        let bytes = end + 2 * os_page;
        let whole = match hold {
            Hold::Claimed => os.claim(bytes).ok()?,
            Hold::Reserved => os.reserve(bytes)?,
        };
        // SAFETY: the mapping `whole` is longer than an OS page, so the sum stays inside it.
        let start = unsafe { whole.add(os_page) };
        let place = Place {
            base: start.as_ptr() as usize,
            os_page,
            hold,
            extents,
            plan,
        };
        // SAFETY: nobody reads before `ready` is published, and `init` runs once at a time.
        unsafe { self.place.set(place) };
        let first = self.first_bytes();
        // SAFETY: at the start of our own range, as long as `end`.
        let opened = unsafe { os.open(start, first, hold) };
        if opened.is_err() && hold == Hold::Reserved {
            // SAFETY: the reserve is ours, and nobody knows it.
            unsafe { os.unmap(whole, bytes) };
        }
        opened.ok()?;
        self.opened.forget();
        self.opened.add(&(0..first / os_page));
        self.note_apart();
        self.set_up(os, start);
        Some(())
    }

    fn set_up<O: Os>(&self, os: &O, start: NonNull<u8>) {
        os.name(start, self.first_bytes(), c"slabside: metadata");
        self.ready.store(1, Release);
        self.write_header(os, self.total());
        self.reset_counters();
        // Whoever uses the rest counts it.
        let counted = self.extent(Area::Header).bytes + self.extent(Area::FirstSlabs).bytes;
        counters::add(&self.counters().metadata, counted as u64);
    }

    /// How much is opened at once, in bytes. That is all up to the first page of the page map, or, where gaps separate
    /// the areas, the header alone.
    fn first_bytes(&self) -> usize {
        match self.place.plan.hardened {
            false => self.extent(Area::PageMap).offset + self.os_page(),
            true => self.extent(Area::Header).bytes,
        }
    }

    /// What the first heap and the first group have apart is not opened again in the areas of their kind.
    fn note_apart(&self) {
        if self.place.plan.hardened {
            return;
        }
        let heap = self.extent(Area::FirstHeap).bytes;
        for (area, bytes) in [(Area::Heaps, heap), (Area::Groups, GROUP_BYTES)] {
            let (first, pages) = (self.page(area, 0), bytes / self.os_page());
            if pages > 0 {
                self.opened.add(&(first..first + pages));
            }
        }
    }

    /// The number of the OS page of byte `offset` of `area`.
    fn page(&self, area: Area, offset: usize) -> usize {
        (self.extent(area).offset + offset) / self.os_page()
    }

    fn write_header<O: Os>(&self, os: &O, total: usize) {
        let header = self.header();
        header.version.store(VERSION, Relaxed);
        header
            .header_bytes
            .store(core::mem::size_of::<Header>() as u32, Relaxed);
        header.region_bytes.store(total, Relaxed);
        header.areas_used.store(AREAS as u32, Relaxed);
        header.slab_bytes.store(SLAB_BYTES as u32, Relaxed);
        for (place, area) in header.areas.iter().zip(ALL) {
            let extent = self.extent(area);
            place[0].store(extent.offset, Relaxed);
            place[1].store(extent.bytes, Relaxed);
        }
        let samples = self.extent(Area::Samples);
        header.samples[0].store(samples.offset, Relaxed);
        header.samples[1].store(samples.bytes, Relaxed);
        header.started.store(os.clock(), Relaxed);
        header.point(Elsewhere::Region, self.place.base);
        for (word, part) in header.library.iter().zip(LIBRARY) {
            word.store(part, Relaxed);
        }
        let hardened = self.hardened.load(Relaxed) != 0;
        for (fact, value) in [
            (Fact::PageShift, PAGE_SHIFT as usize),
            (Fact::OsPage, self.os_page()),
            (Fact::Flags, if hardened { HARDENED as usize } else { 0 }),
            (Fact::SlabPages, SLAB_PAGES),
            (Fact::SpanPages, SPAN_PAGES),
            (Fact::Slots, SLOTS),
            (Fact::SpanClass, SPAN.index()),
            (Fact::PairClass, PAIR.index()),
            (Fact::Counters, counters::OFFSET),
            (Fact::SizesBytes, SIZES_BYTES),
        ] {
            header.state(fact, value);
        }
        header.magic.store(MAGIC, Release);
    }

    fn reset_counters(&self) {
        let counters = self.counters();
        counters.magic.store(counters::MAGIC, Relaxed);
        counters.version.store(counters::VERSION, Relaxed);
    }

    fn total(&self) -> usize {
        let last = self.extent(ALL[ALL_AREAS - 1]);
        last.offset + last.bytes
    }

    /// Whether any address in `range` is one of the region, open or not. After `init`.
    pub fn reaches(&self, range: &Range<usize>) -> bool {
        self.place.base < range.end && range.start < self.place.base + self.total()
    }

    /// Whether [`Meta::init`] has succeeded.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Acquire) != 0
    }

    /// From now on a write to where the region lies faults. After `init`.
    pub fn seal<O: Vm>(&self, os: &O) -> bool {
        self.place.seal(os)
    }

    /// What the region provides for. After `init`.
    pub fn plan(&self) -> Plan {
        self.place.plan
    }

    /// Where `area` lies within the region. After `init`.
    pub fn extent(&self, area: Area) -> Extent {
        self.place.extents[area as usize]
    }

    /// The start of `area`. After `init`.
    #[inline]
    pub fn start<T>(&self, area: Area) -> NonNull<T> {
        let address = self.place.base + self.extent(area).offset;
        debug_assert!(self.is_ready());
        // SAFETY: `base` is the reserve's start, not null (`is_ready`).
        unsafe { NonNull::new_unchecked(address as *mut T) }
    }

    /// Where byte `offset` of `area` lies, whose first bytes are those of `first` if that is there at all. After
    /// `init`.
    #[inline]
    pub fn place<T>(&self, first: Area, area: Area, offset: usize) -> NonNull<T> {
        let area = if offset < self.extent(first).bytes {
            first
        } else {
            area
        };
        // SAFETY: callers pass offsets within the area, so the address lies in the region.
        unsafe { self.start::<T>(area).byte_add(offset) }
    }

    /// How the slab headers are numbered: the first number past those that lie apart, and the number of the
    /// first of the others. After `init`.
    pub fn slab_numbers(&self) -> (u32, u32) {
        let (first, rest) = (self.extent(Area::FirstSlabs), self.extent(Area::Slabs));
        if first.bytes == 0 {
            return (0, 0);
        }
        let number = |bytes| (bytes / SLAB_BYTES) as u32;
        (number(first.bytes), number(rest.offset - first.offset))
    }

    /// The region's header. After `init`.
    pub fn header(&self) -> &Header {
        // SAFETY: opened by `set_up`, zero is a valid header, all fields are atomics.
        unsafe { self.start::<Header>(Area::Header).as_ref() }
    }

    /// The heap's figures. After `init`.
    #[inline]
    pub fn counters(&self) -> &Counters {
        // SAFETY: opened by `set_up`, after the header. Zero is a valid page of counters, all fields are atomics.
        unsafe {
            self.start::<Counters>(Area::Header)
                .byte_add(counters::OFFSET)
                .as_ref()
        }
    }

    /// `n` rounded up to whole OS pages.
    pub fn os_pages(&self, n: usize) -> usize {
        let mask = self.place.os_page - 1;
        (n + mask) & !mask
    }

    /// Bytes in an OS page. After `init`.
    #[inline]
    pub fn os_page(&self) -> usize {
        self.place.os_page
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.opening.as_lock());
    }

    /// Makes bytes `from..to` of `area` usable. Whole OS pages around them are opened.
    pub fn open<O: Vm>(&self, os: &O, area: Area, from: usize, to: usize) -> Result<(), Refusal> {
        let _guard = self.opening.lock();
        if to > self.extent(area).bytes {
            return Err(Refusal::NoMemory);
        }
        self.requeue(os);
        let mut pages = self.page(area, from)..self.page(area, to + self.os_page() - 1);
        while let Some(gap) = self.opened.gap(pages.clone()) {
            self.open_gap(os, &gap)?;
            pages.start = gap.end;
        }
        Ok(())
    }

    /// Opens pages of the region, none of which is open.
    fn open_gap<O: Vm>(&self, os: &O, gap: &Range<usize>) -> Result<(), Refusal> {
        let opened = &self.opened;
        opened.pending.store(packed(gap), Relaxed);
        let (start, bytes) = (self.address(gap.start), gap.len() * self.os_page());
        // SAFETY: within our own range: callers name pages of areas.
        let done = unsafe { os.open(start, bytes, self.place.hold) };
        let noted = done.is_ok() && opened.add(gap);
        opened.pending.store(0, Release);
        debug_assert!(noted || done.is_err(), "more ranges than areas and windows");
        done
    }

    /// In the child of a fork that came while another thread opened pages, these may be there, untouched.
    fn requeue<O: Vm>(&self, os: &O) {
        let pending = self.opened.pending.load(Relaxed);
        if pending == 0 {
            return;
        }
        let pages = unpacked(pending);
        let is_zero = |page| os.still_holds(self.address(page).as_ptr() as usize, 0) == Some(true);
        let unknown = self.opened.gap(pages.clone()) == Some(pages.clone());
        if unknown && pages.clone().all(is_zero) {
            self.opened.add(&pages);
        }
        self.opened.pending.store(0, Release);
    }

    /// The start of an OS page of the region.
    fn address(&self, page: usize) -> NonNull<u8> {
        // SAFETY: callers pass pages of areas, so the address lies in the region and is not null.
        unsafe { NonNull::new_unchecked((self.place.base + page * self.os_page()) as *mut u8) }
    }

    /// Opens `area` from `*opened` to at least `to`, in steps that grow with it, and moves `*opened`.
    pub fn open_to<O: Vm>(&self, os: &O, area: Area, opened: &mut usize, to: usize) -> bool {
        if to <= *opened {
            return true;
        }
        let extent = self.extent(area).bytes;
        if to > extent {
            return false;
        }
        let step = (*opened / 8).max(OPEN_STEP);
        for end in [(*opened + step).max(to).min(extent), to] {
            if self.open(os, area, *opened, end).is_ok() {
                let end = self.os_pages(end);
                counters::add(&self.counters().metadata, (end - *opened) as u64);
                *opened = end;
                return true;
            }
        }
        false
    }
}

/// Where the areas of `plan` lie, and where the last one ends, from the region's start.
fn lay_out<O: Os>(os: &O, plan: Plan) -> Option<([Extent; ALL_AREAS], usize)> {
    let os_page = os.page_size();
    let mut extents = [Extent::default(); ALL_AREAS];
    let mut end = 0;
    for (extent, area) in extents.iter_mut().zip(ALL) {
        if plan.hardened && area != Area::Header {
            end += (1 + os.random() as usize % GAP_PAGES) * os_page;
        }
        // These two are always opened together, and share pages.
        let bytes = plan.bytes_of(area);
        let (offset, bytes) = match area {
            Area::FirstGroup if !plan.hardened => (end, bytes),
            Area::Tree if !plan.hardened => (end, align_up(end + bytes, os_page)? - end),
            _ => (end, align_up(bytes, os_page)?),
        };
        *extent = Extent { offset, bytes };
        end = offset + bytes;
    }
    Some((extents, end))
}

/// The most pages of a gap between two areas in hardened mode.
const GAP_PAGES: usize = 256;
/// The least step in which an area is opened, in bytes.
const OPEN_STEP: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn ranges_of_open_pages_grow_at_their_ends_and_gaps_between_them_are_found() {
        let opened = Opened::none();
        let gaps = |pages: Range<usize>| {
            let (mut at, mut gaps) = (pages.start, Vec::new());
            while let Some(gap) = opened.gap(at..pages.end) {
                at = gap.end;
                gaps.push((gap.start, gap.end));
            }
            gaps
        };
        assert_eq!(gaps(0..10), [(0, 10)]);
        assert!(opened.add(&(5..7)) && opened.add(&(1..2)) && opened.add(&(7..8)));
        assert_eq!(opened.words().len(), 2);
        assert_eq!(gaps(0..10), [(0, 1), (2, 5), (8, 10)]);
        assert_eq!(gaps(6..8), []);
        assert!(opened.add(&(2..5)));
        assert_eq!(gaps(1..9), [(8, 9)]);
        assert_eq!(gaps(3..4), []);
        let more = (0..OPEN_RANGES).map(|n| opened.add(&(100 + 2 * n..101 + 2 * n)));
        assert_eq!(more.filter(|&noted| noted).count(), OPEN_RANGES - 2);
        assert_eq!(gaps(100..104), [(101, 102), (103, 104)]);
    }

    #[test]
    fn what_a_thread_that_is_gone_had_opened_without_saying_so_is_ours() {
        let (sim, meta) = (
            slabside_sim::Sim::default(),
            Meta::new(&mut Registry::new()),
        );
        assert!(meta.init(&sim));
        for there in [false, true] {
            let start = if there { 6 } else { 1 };
            let first = meta.page(Area::Slabs, start * meta.os_page());
            let pages = first..first + 2;
            meta.opened.pending.store(packed(&pages), Relaxed);
            if there {
                let (at, bytes) = (meta.address(first), 2 * meta.os_page());
                // SAFETY: pages of the region that are not open.
                let opened = unsafe { sim.open(at, bytes, Hold::Claimed) };
                assert_eq!(opened, Ok(()));
            }
            // The simulated system ends the test where a page is opened twice.
            assert_eq!(
                meta.open(&sim, Area::Slabs, 0, (start + 3) * meta.os_page()),
                Ok(())
            );
            assert_eq!(meta.opened.pending.load(Relaxed), 0);
        }
    }

    /// Four TiB of break, with or without hardened mode: their numbers fit the map's entries, and their
    /// bookkeeping what a process can address.
    #[test]
    fn the_largest_plan_holds_four_tib_and_fits_the_address_space() {
        let nothing_limits = Limits {
            address_space: usize::MAX,
            data: usize::MAX,
        };
        for hardened in [false, true] {
            let plan = Plan::under(nothing_limits, 1 << 40).with_hardened(hardened);
            assert!(plan.break_pages * PAGE >= 4 << 40);
            assert!(plan.pages > plan.break_pages && plan.groups() * GROUP_PAGES >= plan.pages);
            assert!(plan.groups() * GROUP_PAGES <= u32::MAX as usize);
            assert!(plan.slabs <= u32::MAX as usize);
            let books: usize = ALL.iter().map(|&area| plan.bytes_of(area)).sum();
            assert!(
                books + plan.pages * PAGE < 1 << 46,
                "{books} bytes of books"
            );
        }
    }
}

//! The header of a metadata region: where areas, windows and tables lie, by what it states of itself.
//!
//! Layouts 3 to 5 state what a reader needs. Layout 2 left most of it to be known, and that is written down here. Layout 4
//! is 3 with the heap profile after it. Layout 5 has slots of up to 32 KiB. Nothing is taken from a header before it was
//! compared with what it may be.

use crate::source::{Source, Span, ADDRESSES};
use crate::{Error, Result};
use slabside_base::layout::{self, Area, Elsewhere, Fact, AREAS, ELSEWHERE, FACTS, MAGIC, WINDOWS};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The oldest layout that is read.
pub const OLDEST: u32 = 2;
/// The newest.
pub const NEWEST: u32 = layout::VERSION;
/// Bytes of a heap page.
pub const PAGE: u64 = 4096;
/// A window begins at a page number that is a multiple of this.
pub const WINDOW_PAGES: u64 = 64 << 10;
/// Bytes of a header of layout 2.
const HEADER_2: usize = 296;
/// Bytes of a header of layout 3.
const HEADER_3: usize = 656;
/// The class number of spans up to layout 4, whose largest slots have 8 KiB. The classes below are those of today.
const SPAN_4: usize = 57;
/// Bytes of a slab header, in all layouts.
pub const SLAB_BYTES: usize = layout::SLAB_BYTES;

/// What is wrong with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The header cannot be read.
    Unreadable,
    /// It does not begin with the magic number.
    Magic,
    /// It has a layout that is not read.
    Version(u32),
    /// A size or an offset in it is not what it may be.
    Sizes,
    /// The area of this number does not lie after the one before it, within the region.
    Area(usize),
    /// The window of this number lies where none can.
    Window(usize),
    /// The page map names a header for this page that does not lie in the areas of headers.
    Number(u64, u32),
    /// This header, named for this page, cannot be a slab's there.
    Slab(u64, u32),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Unreadable => f.write_str("the header, which cannot be read"),
            Broken::Magic => f.write_str("the magic number"),
            Broken::Version(version) => write!(f, "the version ({version})"),
            Broken::Sizes => f.write_str("the header's sizes"),
            Broken::Area(index) => write!(f, "area {index}"),
            Broken::Window(index) => write!(f, "window {index}"),
            Broken::Number(page, id) | Broken::Slab(page, id) => write!(
                f,
                "page {} (slab {})",
                grouped(*page),
                grouped(u64::from(*id))
            ),
        }
    }
}

/// `number` with commas between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A range of addresses whose pages have numbers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Address of the first page.
    pub base: u64,
    /// Its number.
    pub first: u64,
    /// The most pages that it ever had.
    pub pages: u64,
    /// Whether it is mapped, and not part of the break.
    pub mapped: bool,
}

impl Window {
    /// Its addresses.
    pub fn span(self) -> Span {
        Span {
            start: self.base,
            end: self.base + self.pages * PAGE,
        }
    }

    /// The address of `page`, if it is one of its pages.
    pub fn address(self, page: u64) -> Option<u64> {
        let index = page.checked_sub(self.first)?;
        (index < self.pages).then(|| self.base + index * PAGE)
    }
}

/// A region, by its header.
#[derive(Clone, Debug)]
pub struct Region {
    /// Address of its first byte.
    pub base: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Its layout.
    pub version: u32,
    /// Version of the library that made it. Empty means not stated.
    pub library: String,
    /// The process that made it. 0 means not stated.
    pub pid: u32,
    /// Milliseconds of the monotonic clock when it was made. 0 means not stated.
    pub started: u64,
    /// The windows. None means not stated.
    pub windows: Vec<Window>,
    /// Heaps made so far.
    pub heaps_made: u64,
    /// Base-2 logarithm of the records of the large table in use. 0 means none.
    pub large_shift: u32,
    /// The heap profile.
    pub profile: Profile,
    areas: [Span; AREAS],
    facts: [u32; FACTS],
    elsewhere: [u64; ELSEWHERE],
}

/// What a region states of the heap profile. All 0 where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The interval that is asked for, in bytes. 0 means no samples are taken now.
    pub interval: u64,
    /// How often a profile was begun: the samples of the last one count.
    pub begun: u32,
    /// How often the interval is doubled at present.
    pub doubled: u32,
    /// Where samples lie. Empty means this layout has none.
    pub samples: Span,
    /// Places used of them, the first of which stands for none.
    pub made: u64,
    /// Samples taken so far.
    pub taken: u64,
    /// Samples for which there was no place.
    pub lost: u64,
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

/// What layout 2 does not state, in the order of [`Fact`].
const FACTS_2: [u32; FACTS] = [
    12, 4096, 0, 57, 0, 16, 32, 256, // pages, classes, slots
    4096, 0, 32, 40, // heaps
    32, 0, 8, 16, 24, // records
    0, 0, 0, 0, 0, // kept ranges
    1024, 512, // counters, sizes
    0, 0, 0, // what leads to the threads
];

impl Region {
    /// The region whose header `bytes` begins with, at address `base`.
    pub fn parse(base: u64, bytes: &[u8]) -> std::result::Result<Region, Broken> {
        use layout::offset;
        if bytes.len() < HEADER_2 {
            return Err(Broken::Unreadable);
        }
        if word64(bytes, offset::MAGIC) != MAGIC {
            return Err(Broken::Magic);
        }
        let version = word32(bytes, offset::VERSION);
        let (header, facts) = match version {
            2 => (HEADER_2, FACTS_2),
            3..=NEWEST => (
                if version == 3 {
                    HEADER_3
                } else {
                    layout::HEADER_BYTES
                },
                std::array::from_fn(|fact| word32(bytes, offset::FACTS + 4 * fact)),
            ),
            _ => return Err(Broken::Version(version)),
        };
        let told = [
            word32(bytes, offset::HEADER_BYTES) as usize,
            word32(bytes, offset::AREAS_USED) as usize,
            word32(bytes, offset::SLAB_BYTES) as usize,
        ];
        let region_bytes = word64(bytes, offset::REGION_BYTES);
        if told != [header, AREAS, SLAB_BYTES]
            || bytes.len() < header
            || base
                .checked_add(region_bytes)
                .is_none_or(|end| end > ADDRESSES)
        {
            return Err(Broken::Sizes);
        }
        let mut region = Region {
            base,
            bytes: region_bytes,
            version,
            library: String::new(),
            pid: 0,
            started: 0,
            windows: Vec::new(),
            heaps_made: u64::from(word32(bytes, offset::HEAPS_MADE)),
            large_shift: word32(bytes, offset::LARGE_SHIFT),
            profile: Profile::default(),
            areas: areas(base, region_bytes, bytes)?,
            facts,
            elsewhere: [0; ELSEWHERE],
        };
        if version >= 3 {
            region.pid = word32(bytes, offset::PID);
            region.started = word64(bytes, offset::STARTED);
            region.library = text(&bytes[offset::LIBRARY..offset::LIBRARY + 16]);
            region.elsewhere =
                std::array::from_fn(|what| word64(bytes, offset::ELSEWHERE + 8 * what));
            region.windows = region.parse_windows(bytes)?;
        }
        if version >= 4 {
            region.profile = region.parse_profile(bytes)?;
        }
        region.compare_facts()?;
        Ok(region)
    }

    /// The same region as it is now.
    pub fn again(&self, source: &dyn Source) -> Option<Region> {
        let mut bytes = [0; layout::HEADER_BYTES];
        let read = source.read(self.base, &mut bytes);
        read.then(|| Region::parse(self.base, &bytes).ok())?
    }

    /// The same region as it is now in `memory`, that of its process.
    pub(crate) fn again_in(&self, memory: &File) -> Option<Region> {
        let mut bytes = [0; layout::HEADER_BYTES];
        memory.read_exact_at(&mut bytes, self.base).ok()?;
        Region::parse(self.base, &bytes).ok()
    }

    fn parse_windows(&self, bytes: &[u8]) -> std::result::Result<Vec<Window>, Broken> {
        use layout::{offset, window};
        let used = word32(bytes, offset::WINDOWS) as usize;
        if used > WINDOWS {
            return Err(Broken::Sizes);
        }
        let mut windows: Vec<Window> = Vec::new();
        for index in 0..used {
            let at = offset::RANGES + index * window::BYTES;
            let kind = word32(bytes, at + window::KIND);
            let window = Window {
                base: word64(bytes, at + window::BASE),
                first: u64::from(word32(bytes, at + window::FIRST)),
                pages: word64(bytes, at + window::PAGES),
                mapped: kind == 2,
            };
            let entries = self.area(Area::PageMap).bytes() / 4;
            let possible = window.base.is_multiple_of(PAGE)
                && window.base < ADDRESSES
                && window.pages <= (ADDRESSES - window.base) / PAGE
                && window
                    .first
                    .checked_add(window.pages)
                    .is_some_and(|end| end <= entries)
                && (1..=2).contains(&kind);
            let apart = |other: &Window| {
                other.span().common(window.span()).bytes() == 0
                    && other.first + other.pages <= window.first
            };
            if !possible || !windows.iter().all(apart) {
                return Err(Broken::Window(index));
            }
            windows.push(window);
        }
        Ok(windows)
    }

    fn parse_profile(&self, bytes: &[u8]) -> std::result::Result<Profile, Broken> {
        use layout::{offset, sample};
        let [from, length] = [0, 8].map(|at| word64(bytes, offset::SAMPLES + at));
        let start = self.base.checked_add(from);
        let end = start.and_then(|start| start.checked_add(length));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Broken::Sizes);
        };
        let samples = Span { start, end };
        let made = u64::from(word32(bytes, offset::SAMPLES_MADE));
        let behind = self.areas.last().map_or(self.base, |area| area.end);
        let places = length / sample::BYTES as u64;
        if start < behind || end > self.span().end || made > places || !from.is_multiple_of(PAGE) {
            return Err(Broken::Sizes);
        }
        let word = word64(bytes, offset::PROFILE);
        Ok(Profile {
            interval: word & ((1 << sample::PROFILE_SHIFT) - 1),
            begun: (word >> sample::PROFILE_SHIFT) as u32,
            doubled: word32(bytes, offset::SAMPLES_DOUBLED),
            samples,
            made,
            taken: word64(bytes, offset::SAMPLES_TAKEN),
            lost: word64(bytes, offset::SAMPLES_LOST),
        })
    }

    /// Every stated number is one that it may be.
    fn compare_facts(&self) -> std::result::Result<(), Broken> {
        let within = |fact: Fact, bytes: u64, whole: Fact| {
            self.fact(fact)
                .checked_add(bytes)
                .is_some_and(|end| end <= self.fact(whole))
        };
        let os_page = self.fact(Fact::OsPage);
        let good = self.fact(Fact::PageShift) == u64::from(PAGE.ilog2())
            && os_page.is_power_of_two()
            && (PAGE..=1 << 20).contains(&os_page)
            && self.fact(Fact::Slots) == layout::SLOTS as u64
            && self.fact(Fact::SpanClass) == self.span_class() as u64
            // The same in every layout read here.
            && self.fact(Fact::PairClass) == layout::PAIR.index() as u64
            && (1..=1024).contains(&self.fact(Fact::SlabPages))
            && (1..=1 << 15).contains(&self.fact(Fact::SpanPages))
            && self.fact(Fact::HeapBytes) <= 1 << 20
            && within(Fact::HeapOwner, 8, Fact::HeapBytes)
            && within(Fact::HeapThread, 8, Fact::HeapBytes)
            && within(Fact::HeapArena, 1, Fact::HeapBytes)
            && within(Fact::HeapPointer, 8, Fact::HeapBytes)
            && within(Fact::HeapWatched, 8, Fact::HeapBytes)
            && within(Fact::HeapWatchedValue, 8, Fact::HeapBytes)
            && self.fact(Fact::RecordBytes) <= 4096
            && within(Fact::RecordAddress, 8, Fact::RecordBytes)
            && within(Fact::RecordLength, 8, Fact::RecordBytes)
            && within(Fact::RecordStray, 4, Fact::RecordBytes)
            && within(Fact::RecordOwner, 8, Fact::RecordBytes)
            && self.fact(Fact::KeptPlaces) <= 1 << 12
            && self.fact(Fact::KeptBytes) <= 256
            && (self.fact(Fact::KeptPlaces) == 0
                || within(Fact::KeptAddress, 8, Fact::KeptBytes)
                    && within(Fact::KeptLength, 8, Fact::KeptBytes)
                    && within(Fact::KeptClean, 1, Fact::KeptBytes))
            && self.fact(Fact::Counters) < PAGE
            && self.elsewhere.iter().all(|&address| address < ADDRESSES);
        if good {
            Ok(())
        } else {
            Err(Broken::Sizes)
        }
    }

    /// The class number of spans.
    pub(crate) fn span_class(&self) -> usize {
        match self.version {
            5.. => layout::SPAN.index(),
            _ => SPAN_4,
        }
    }

    /// A stated number.
    pub fn fact(&self, fact: Fact) -> u64 {
        u64::from(self.facts[fact as usize])
    }

    /// Whether heaps state how their threads are found.
    pub fn states_threads(&self) -> bool {
        self.version >= 3
    }

    /// Where something lies that is not in the region. 0 means not stated.
    pub fn elsewhere(&self, what: Elsewhere) -> u64 {
        self.elsewhere[what as usize]
    }

    /// The addresses of `area`.
    pub fn area(&self, area: Area) -> Span {
        self.areas[area as usize]
    }

    /// The area that holds `address`.
    pub fn area_at(&self, address: u64) -> Option<usize> {
        self.areas.iter().position(|area| area.holds(address))
    }

    /// All of its addresses.
    pub fn span(&self) -> Span {
        Span {
            start: self.base,
            end: self.base + self.bytes,
        }
    }

    /// Whether hardened mode is provided for.
    pub fn is_hardened(&self) -> bool {
        self.area(Area::Sizes).bytes() > 0
    }

    /// The address of `n` bytes from the slab header numbered `id` on, if all of them lie in one area of headers.
    pub fn header(&self, id: u32, n: usize) -> Option<u64> {
        let [first, rest] = [Area::FirstSlabs, Area::Slabs].map(|area| self.area(area));
        let start = if first.bytes() > 0 { first } else { rest }.start;
        let at = start + u64::from(id) * SLAB_BYTES as u64;
        let end = at + n as u64;
        [first, rest]
            .iter()
            .any(|area| area.start <= at && end <= area.end)
            .then_some(at)
    }

    /// The address of the page map's entry of `page`.
    pub fn entry(&self, page: u64) -> u64 {
        self.area(Area::PageMap).start + 4 * page
    }

    /// The address of the heap numbered `index`, if it lies in the area of heaps.
    pub fn heap(&self, index: u64) -> Option<u64> {
        let bytes = self.fact(Fact::HeapBytes);
        let first = self.area(Area::FirstHeap);
        let offset = index.checked_mul(bytes)?;
        if offset < first.bytes() {
            return Some(first.start + offset);
        }
        let area = self.area(Area::Heaps);
        (offset.checked_add(bytes)? <= area.bytes()).then(|| area.start + offset)
    }

    /// The addresses of the large table in use, for the shift `shift`.
    pub fn large_table(&self, shift: u32) -> Option<Span> {
        let area = match shift {
            0 | 48.. => return None,
            _ if shift % 2 == 1 => self.area(Area::LargeOdd),
            _ => self.area(Area::LargeEven),
        };
        let bytes = self.fact(Fact::RecordBytes).checked_mul(1 << shift)?;
        (bytes <= area.bytes()).then(|| Span {
            start: area.start,
            end: area.start + bytes,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    let printable = text.iter().all(|byte| byte.is_ascii_graphic());
    if printable {
        String::from_utf8_lossy(text).into_owned()
    } else {
        String::new()
    }
}

/// Where the areas lie: one after the other, within the region.
fn areas(base: u64, region: u64, bytes: &[u8]) -> std::result::Result<[Span; AREAS], Broken> {
    let mut areas = [Span { start: 0, end: 0 }; AREAS];
    let mut end = 0;
    for (index, area) in areas.iter_mut().enumerate() {
        let at = layout::offset::AREAS + index * 16;
        let (offset, length) = (word64(bytes, at), word64(bytes, at + 8));
        let behind = offset.checked_add(length).filter(|&end| end <= region);
        if offset < end || !offset.is_multiple_of(8) {
            return Err(Broken::Area(index));
        }
        end = behind.ok_or(Broken::Area(index))?;
        *area = Span {
            start: base + offset,
            end: base + end,
        };
    }
    Ok(areas)
}

/// The regions of `source`, by address: of the process's malloc, and of libraries and programs that brought their own.
pub fn find(source: &dyn Source) -> Result<Vec<Region>> {
    let (mut found, mut other) = (Vec::new(), None);
    let candidates = source
        .mappings()
        .iter()
        .filter(|mapping| mapping.read && mapping.write && mapping.span.bytes() >= PAGE);
    for mapping in candidates {
        let base = mapping.span.start;
        let mut first = [0; 8];
        if !source.peek(base, &mut first) || u64::from_le_bytes(first) != MAGIC {
            continue;
        }
        let mut bytes = [0; layout::HEADER_BYTES];
        if !source.read(base, &mut bytes) {
            continue;
        }
        match Region::parse(base, &bytes) {
            // A copy of a region, as this very program makes: it states where the original lies.
            Ok(region) if region.version >= 3 && region.elsewhere(Elsewhere::Region) != base => {}
            Ok(region) => found.push(region),
            Err(broken) => other = other.or(Some(broken)),
        }
    }
    match other {
        _ if !found.is_empty() => Ok(found),
        None if source.is_gone() => Err(Error::Ended {
            name: source.name(),
        }),
        None => Err(source.no_heap()),
        Some(Broken::Version(found)) => Err(Error::Layout {
            name: source.name(),
            found,
            least: OLDEST,
            most: NEWEST,
        }),
        Some(broken) => Err(Error::Contradiction {
            name: source.name(),
            place: broken.to_string(),
            reads: 1,
            advice: "",
        }),
    }
}

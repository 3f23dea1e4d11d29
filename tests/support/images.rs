//! Images of metadata regions: taken from a process, kept as a few bytes, damaged, read by `slabside-view`, and counted
//! in another way than it does.
//!
//! ```text
//!   | page u32 | from u16 | n u16 | n bytes | page ...      little-endian; the rest of a page named is zero,
//!                                                           other pages cannot be read
//! ```
#![allow(dead_code)] // Each test and fuzz target uses a part.

use slabside_base::class::{size_of_class, ClassId, CLASSES, SPAN};
use slabside_base::layout::{self, HEADER_BYTES};
use slabside_core::meta::Area;
use slabside_core::slab::State;
use slabside_view::check::check;
use slabside_view::figures::Figures;
use slabside_view::kinds::kinds;
use slabside_view::leaks::{search, Proof, Search};
use slabside_view::model::{Buffers, Heap};
use slabside_view::region::{find, Broken, Region};
use slabside_view::source::core::Core;
use slabside_view::source::file::Snapshot;
use slabside_view::source::{About, Mapping, Source, Span, Target, Thread};
use slabside_view::types::Types;
use slabside_view::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes in a page of an image.
const PAGE: usize = 4096;
/// Bytes before those of a piece.
const HEAD: usize = 8;
/// Zeros in a row that end a piece: fewer cost less than the next one's head.
const GAP: usize = HEAD;

/// Where an image is said to lie.
const BASE: u64 = 1 << 40;
/// The class number of spans up to layout 4.
const SPAN_4: usize = 57;

/// What a region says of its slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Slabs in use.
    pub slabs: usize,
    /// Spans in use or kept for reuse.
    pub spans: usize,
    /// Bytes in slots that are live to the allocator, by size class, and in such spans: also those in a quarantine.
    pub live_of: [usize; CLASSES + 1],
    /// Pages in slabs and spans, those among them that hardened mode keeps for their class.
    pub pages: usize,
}

impl Seen {
    const NOTHING: Seen = Seen {
        slabs: 0,
        spans: 0,
        live_of: [0; CLASSES + 1],
        pages: 0,
    };

    /// Of a heap that was read.
    pub fn of(heap: &Heap) -> Seen {
        let mut seen = Seen::NOTHING;
        for slab in &heap.slabs {
            seen.pages += slab.pages as usize;
            if slab.is_kept() {
                continue;
            }
            seen.live_of[slab.class as usize] += slab.in_use() as usize * slab.size as usize;
            *(if slab.is_span {
                &mut seen.spans
            } else {
                &mut seen.slabs
            }) += 1;
        }
        seen
    }

    /// Bytes in live slots and spans.
    pub fn live(&self) -> usize {
        self.live_of.iter().sum()
    }
}

/// Those pages of a region that are known.
#[derive(Clone, Default)]
pub struct Image(BTreeMap<usize, Box<[u8; PAGE]>>);

impl Image {
    /// What any bytes stand for. What is left over is dropped.
    pub fn from_bytes(mut bytes: &[u8]) -> Image {
        let mut image = Image::default();
        while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
            let page = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let from = u16::from_le_bytes([head[4], head[5]]) as usize % PAGE;
            let n = u16::from_le_bytes([head[6], head[7]]) as usize;
            let n = n.min(PAGE - from).min(rest.len());
            image.page(page)[from..from + n].copy_from_slice(&rest[..n]);
            bytes = &rest[n..];
        }
        image
    }

    /// The bytes that stand for it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = |page: usize, from: usize, piece: &[u8]| {
            bytes.extend((page as u32).to_le_bytes());
            bytes.extend((from as u16).to_le_bytes());
            bytes.extend((piece.len() as u16).to_le_bytes());
            bytes.extend(piece);
        };
        for (&page, content) in &self.0 {
            let (mut at, mut pieces) = (0, 0);
            while let Some(skip) = content[at..].iter().position(|&byte| byte != 0) {
                let from = at + skip;
                let zeros = content[from..].windows(GAP).position(|w| w == [0; GAP]);
                at = zeros.map_or(PAGE, |n| from + n);
                piece(page, from, &content[from..at]);
                pieces += 1;
            }
            if pieces == 0 {
                piece(page, 0, &[]);
            }
        }
        bytes
    }

    fn page(&mut self, page: usize) -> &mut [u8; PAGE] {
        self.0.entry(page).or_insert_with(|| Box::new([0; PAGE]))
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len() * PAGE
    }

    /// Changes the byte at `offset` to another one.
    pub fn spoil(&mut self, offset: usize, by: u8) {
        self.page(offset / PAGE)[offset % PAGE] ^= by;
    }

    /// Changes the `pick`-th byte of those that it has to what `change` makes of it.
    pub fn poke(&mut self, pick: usize, change: impl FnOnce(u8) -> u8) {
        let count = self.0.len().max(1);
        if let Some(content) = self.0.values_mut().nth(pick / PAGE % count) {
            let byte = &mut content[pick % PAGE];
            *byte = change(*byte);
        }
    }

    /// Forgets the `pick`-th page.
    pub fn tear(&mut self, pick: usize) {
        let page = self.0.keys().nth(pick % self.0.len().max(1)).copied();
        page.map(|page| self.0.remove(&page));
    }

    /// The first `n` bytes of those that it has. The rest of the page that is cut is zero.
    pub fn cut(&self, n: usize) -> Image {
        let pages = self.0.iter().take(n.div_ceil(PAGE));
        let mut image = Image(
            pages
                .map(|(page, content)| (*page, content.clone()))
                .collect(),
        );
        if let Some(last) = image.0.values_mut().nth(n / PAGE) {
            last[n % PAGE..].fill(0);
        }
        image
    }

    /// The byte at `offset`, if it is known.
    pub fn byte(&self, offset: usize) -> Option<u8> {
        let mut byte = [0];
        self.copy(offset, &mut byte).then_some(byte[0])
    }

    fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        let (mut at, mut done) = (offset, 0);
        while done < into.len() {
            let Some(content) = self.0.get(&(at / PAGE)) else {
                return false;
            };
            let n = (PAGE - at % PAGE).min(into.len() - done);
            into[done..done + n].copy_from_slice(&content[at % PAGE..][..n]);
            (at, done) = (at + n, done + n);
        }
        true
    }

    /// Where the header table begins.
    pub fn slabs(&self) -> usize {
        let area = |area: Area| 32 + area as usize * 16;
        match self.word(area(Area::FirstSlabs) + 8, 8) {
            0 => self.word(area(Area::Slabs), 8) as usize,
            _ => self.word(area(Area::FirstSlabs), 8) as usize,
        }
    }

    /// Where the page map begins.
    pub fn map(&self) -> usize {
        self.word(32 + Area::PageMap as usize * 16, 8) as usize
    }

    /// Writes over the `n` bytes of `word` at `offset`.
    pub fn set(&mut self, offset: usize, n: usize, word: u64) {
        for (at, byte) in (offset..).zip(&word.to_le_bytes()[..n]) {
            self.page(at / PAGE)[at % PAGE] = *byte;
        }
    }

    /// The `n` bytes at `offset` as a word.
    pub fn word(&self, offset: usize, n: usize) -> u64 {
        let mut word = [0; 8];
        assert!(self.copy(offset, &mut word[..n]), "{offset:#x}");
        u64::from_le_bytes(word)
    }

    /// What is read in it. No more is copied than there is.
    pub fn read(&self) -> Result<Seen, Broken> {
        let heap = Heap::once(self, BASE, &mut Buffers::default())?;
        assert!(heap.copied() <= self.len());
        Ok(Seen::of(&heap))
    }

    /// The same by way of sets: each number in the page map, wherever it stands, names a header once. For an image
    /// that could be read.
    fn count(&self) -> Seen {
        let bytes = self.word(32 + Area::PageMap as usize * 16 + 8, 8) as usize;
        let mut seen = Seen::NOTHING;
        let mut ids = BTreeSet::new();
        for id in self.entries(self.map(), bytes / 4) {
            if id > 1 {
                seen.pages += 1;
                ids.insert(id);
            }
        }
        for id in ids {
            self.count_slab(self.slabs() + id * 128, &mut seen);
        }
        seen
    }

    /// The `n` entries of the page map at `map`, as far as they are there.
    fn entries(&self, map: usize, n: usize) -> Vec<usize> {
        let mut entries = Vec::new();
        for (&page, content) in &self.0 {
            for (at, word) in (page * PAGE..).step_by(4).zip(content.chunks_exact(4)) {
                if at >= map && (at - map) / 4 < n {
                    let word = word.try_into().expect("four");
                    entries.push(u32::from_le_bytes(word) as usize);
                }
            }
        }
        entries
    }

    /// The header at `offset`, by its drawing.
    fn count_slab(&self, offset: usize, seen: &mut Seen) {
        let [size, slots, class, state] =
            [(20, 4), (28, 2), (30, 1), (31, 1)].map(|(at, n)| self.word(offset + at, n) as usize);
        if state == State::Parked as usize {
            return;
        }
        let remote = if class == 0 { 128 } else { 64 };
        let bit = |bitmap: usize, slot: usize| {
            self.word(offset + bitmap + slot / 8, 1) >> (slot % 8) & 1 == 1
        };
        let live = (0..slots).filter(|&slot| !bit(32, slot) && !bit(remote, slot));
        let version = self.word(layout::offset::VERSION, 4);
        let is_span = class == if version < 5 { SPAN_4 } else { SPAN.index() };
        // Of the layouts before the reader does not know the sizes.
        assert!(is_span || version < 4 || size == size_of_class(ClassId::new(class)));
        *(if is_span {
            &mut seen.spans
        } else {
            &mut seen.slabs
        }) += 1;
        seen.live_of[class] += live.count() * size;
    }

    /// Reads it, twice, and counts it the other way: what can be read at all is counted alike. Pages of which the map's
    /// entries are not there are known by their slab's header alone.
    pub fn agree(&self) -> Result<Seen, Broken> {
        let found = self.read();
        assert_eq!(found, self.read());
        if let Ok(seen) = found {
            let counted = self.count();
            assert!(seen.pages >= counted.pages);
            let pages = seen.pages;
            assert_eq!(seen, Seen { pages, ..counted });
            assert!(seen.live() <= seen.pages * PAGE);
            assert!(seen.slabs + seen.spans <= seen.pages);
        }
        found
    }
}

impl Source for Image {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let offset = address.checked_sub(BASE);
        offset.is_some_and(|offset| self.copy(offset as usize, into))
    }

    fn mappings(&self) -> &[Mapping] {
        &[]
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        for page in self.0.keys() {
            let start = BASE + (page * PAGE) as u64;
            let end = start + PAGE as u64;
            let part = Span { start, end }.common(within);
            if part.bytes() > 0 {
                visit(part);
            }
        }
    }

    fn about(&self) -> About {
        About::default()
    }

    fn threads(&self) -> Vec<Thread> {
        Vec::new()
    }

    fn name(&self) -> String {
        "an image".into()
    }

    fn is_moving(&self) -> bool {
        false
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata { name: self.name() }
    }
}

/// A process that stands in the middle of a change for a while, whether it is stopped or not: its thread has no processor.
pub struct Changing {
    before: Image,
    after: Image,
    lasts: Duration,
    since: Mutex<Option<Instant>>,
    is_stopped: bool,
}

impl Changing {
    /// From the first reading on it `lasts` so long until `before` is `after`.
    pub fn new(before: Image, after: Image, lasts: Duration) -> Changing {
        Changing {
            before,
            after,
            lasts,
            since: Mutex::default(),
            is_stopped: false,
        }
    }

    /// Its region.
    pub fn region(&self) -> Region {
        let mut header = [0; HEADER_BYTES];
        assert!(Source::read(&self.after, BASE, &mut header));
        Region::parse(BASE, &header).expect("a region")
    }
}

impl Source for Changing {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let mut since = self.since.lock().expect("nobody panicked");
        let image = match since.get_or_insert_with(Instant::now).elapsed() < self.lasts {
            true => &self.before,
            false => &self.after,
        };
        Source::read(image, address, into)
    }

    fn mappings(&self) -> &[Mapping] {
        &[]
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        self.after.present(within, visit);
    }

    fn about(&self) -> About {
        About::default()
    }

    fn threads(&self) -> Vec<Thread> {
        Vec::new()
    }

    fn name(&self) -> String {
        "a process".into()
    }

    fn is_moving(&self) -> bool {
        !self.is_stopped
    }

    fn stop(&mut self) -> slabside_view::Result<()> {
        self.is_stopped = true;
        Ok(())
    }

    fn release(&mut self) {
        self.is_stopped = false;
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata { name: self.name() }
    }
}

/// A process, and an image of those pages of its region that are read.
struct Recorder {
    target: Target,
    region: u64,
    image: Mutex<Image>,
}

impl Source for Recorder {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let there = self.target.read(address, into);
        // The image stands for 4 GiB from the region's start on, of which the region is a part.
        let offset = address.wrapping_sub(self.region) as usize;
        if there && !into.is_empty() && offset < 1 << 32 {
            let mut image = self.image.lock().expect("nobody panicked");
            for page in offset / PAGE..=(offset + into.len() - 1) / PAGE {
                let at = self.region + (page * PAGE) as u64;
                // Whole pages are open.
                assert!(self.target.read(at, image.page(page)));
            }
        }
        there
    }

    fn mappings(&self) -> &[Mapping] {
        self.target.mappings()
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        self.target.present(within, visit);
    }

    fn held(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        self.target.held(within, visit);
    }

    fn about(&self) -> About {
        self.target.about()
    }

    fn threads(&self) -> Vec<Thread> {
        self.target.threads()
    }

    fn name(&self) -> String {
        self.target.name()
    }

    /// Nobody is at work in it.
    fn is_moving(&self) -> bool {
        false
    }

    fn no_heap(&self) -> Error {
        self.target.no_heap()
    }
}

/// What the region at `base` of the process `pid`, which rests, says, and an image of all pages that were read for it.
pub fn take(pid: libc::pid_t, base: usize) -> (Result<Seen, Broken>, Image) {
    let recorder = Recorder {
        target: Target::process(pid as u32).expect("it can be read"),
        region: base as u64,
        image: Mutex::default(),
    };
    let heap = Heap::once(&recorder, base as u64, &mut Buffers::default());
    let found = heap.map(|heap| Seen::of(&heap));
    let image = recorder.image.into_inner();
    (found, image.expect("nobody panicked"))
}

/// Any bytes as a metadata region that is read from outside: an error, or what another count finds as well.
pub fn regions(bytes: &[u8]) {
    let _ = Image::from_bytes(bytes).agree();
}

/// Any bytes as a snapshot file: an error, or a target whose heap is an error or adds up.
pub fn files(bytes: &[u8]) {
    if let Ok(snapshot) = Snapshot::read("any", bytes) {
        look_into(snapshot);
    }
}

/// Any bytes as a core file, likewise.
pub fn cores(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    if let Ok(core) = Core::open(file.path()) {
        look_into(core);
    }
}

fn look_into(source: impl Source + 'static) {
    let mut target = Target::from(Box::new(source) as Box<dyn Source>);
    let source: &dyn Source = &*target;
    for region in find(source).into_iter().flatten() {
        let Ok(heap) = Heap::of(source, region, &mut Buffers::default()) else {
            continue;
        };
        let figures = Figures::of(source, &heap);
        assert_eq!(figures.of_heap() + figures.rest, figures.resident);
        check(source, &heap);
        kinds(source, &heap, &mut Types::new());
    }
    let how = Search {
        passes: None,
        proof: Proof::Short,
        track: None,
        kinds: false,
    };
    let _ = search(&mut target, None, &how, None);
}

//! Files that are damaged or made to deceive: an error or other figures, never a panic, and never without end.

use proptest::prelude::*;
use slabside_base::layout;
use slabside_view::check::{check, lasting};
use slabside_view::diff::{diff, Moment};
use slabside_view::explain::explain;
use slabside_view::figures::Figures;
use slabside_view::kinds::kinds;
use slabside_view::leaks::{search, Proof, Search};
use slabside_view::map::{pictures, pins, sparse};
use slabside_view::model::{Buffers, Heap, Hold};
use slabside_view::region::{find, Region};
use slabside_view::source::file::Snapshot;
use slabside_view::source::{About, Mapping, Source, Span, Target, Thread};
use slabside_view::types::Types;
use slabside_view::{Error, Result};
use std::path::Path;
use std::sync::OnceLock;

/// A target whose bytes can be changed.
#[derive(Clone)]
struct Damaged {
    pieces: Vec<(u64, Vec<u8>)>,
    mappings: Vec<Mapping>,
    moving: bool,
}

impl Damaged {
    /// The snapshot `name` of tests/regions, which is whole.
    fn of(name: &str) -> Damaged {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/regions")
            .join(name);
        let snapshot = Snapshot::open(&path).expect("a snapshot");
        let mut pieces = Vec::new();
        let whole = Span {
            start: 0,
            end: 1 << 47,
        };
        snapshot.pieces(whole, |start, bytes| pieces.push((start, bytes.to_vec())));
        Damaged {
            pieces,
            mappings: snapshot.mappings().to_vec(),
            moving: false,
        }
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.1.len()).sum()
    }

    /// Changes the `at`-th byte of those that there are.
    fn poke(&mut self, mut at: usize, change: impl Fn(u8) -> u8) {
        for (_, bytes) in &mut self.pieces {
            match bytes.get_mut(at) {
                Some(byte) => {
                    *byte = change(*byte);
                    return;
                }
                None => at -= bytes.len(),
            }
        }
    }
}

impl Source for Damaged {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let index = self.pieces.partition_point(|piece| piece.0 <= address);
        let Some((start, bytes)) = self.pieces[..index].last() else {
            return false;
        };
        let from = bytes.get((address - start) as usize..);
        match from.and_then(|from| from.get(..into.len())) {
            Some(from) => {
                into.copy_from_slice(from);
                true
            }
            None => false,
        }
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        for (start, bytes) in &self.pieces {
            let span = Span {
                start: *start,
                end: start + bytes.len() as u64,
            };
            let part = span.common(within);
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
        "damaged".into()
    }

    fn is_moving(&self) -> bool {
        self.moving
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata { name: self.name() }
    }
}

/// Everything that can be asked of a target.
fn ask_all(source: &dyn Source) -> Result<()> {
    for region in find(source)? {
        let span = region.span();
        let heap = Heap::of(source, region, &mut Buffers::default())?;
        let figures = Figures::of(source, &heap);
        assert_eq!(figures.of_heap() + figures.rest, figures.resident);
        check(source, &heap);
        sparse(&heap);
        let mut types = Types::new();
        pins(source, &heap, &mut types, 5);
        for picture in pictures(source, &heap) {
            assert!(picture.cells(1000).len() <= 1001);
        }
        let slabs = heap.slabs.iter().step_by(heap.slabs.len() / 16 + 1);
        let mut addresses: Vec<u64> = slabs.map(|slab| slab.span().end - 1).collect();
        addresses.extend([0, span.start, span.end, 1 << 46, u64::MAX]);
        for address in addresses {
            explain(source, &heap, &mut types, address, true);
        }
        kinds(source, &heap, &mut types);
        let moment = Moment {
            source,
            heap: &heap,
            figures: &figures,
        };
        let same = diff(&moment, &moment);
        assert_eq!((same.new, same.gone), (0, 0));
    }
    Ok(())
}

/// What can be asked of a target that is handed over.
fn ask_for_leaks(source: impl Source + 'static) -> Result<()> {
    let mut target = Target::from(Box::new(source) as Box<dyn Source>);
    let how = Search {
        passes: None,
        proof: Proof::Short,
        track: None,
        kinds: true,
    };
    let found = search(&mut target, None, &how, None)?;
    assert!(found.lost.iter().all(|group| group.count > 0));
    Ok(())
}

fn samples() -> &'static [Damaged] {
    static SAMPLES: OnceLock<Vec<Damaged>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        ["2.slab", "3.slab", "hardened.slab", "4.slab", "5.slab"]
            .map(Damaged::of)
            .to_vec()
    })
}

/// A process, one of whose slabs reads as released until the heap is read for the `until`-th time.
struct Changing {
    damaged: Damaged,
    whole: Damaged,
    until: u32,
    renewed: u32,
    stopped: bool,
}

impl Changing {
    fn now(&self) -> &Damaged {
        match self.renewed < self.until {
            true => &self.damaged,
            false => &self.whole,
        }
    }
}

impl Source for Changing {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.now().read(address, into)
    }

    fn mappings(&self) -> &[Mapping] {
        self.now().mappings()
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        self.now().present(within, visit);
    }

    fn about(&self) -> About {
        About::default()
    }

    fn threads(&self) -> Vec<Thread> {
        Vec::new()
    }

    fn name(&self) -> String {
        "changing".into()
    }

    fn is_moving(&self) -> bool {
        !self.stopped
    }

    fn stop(&mut self) -> Result<()> {
        self.stopped = true;
        Ok(())
    }

    fn release(&mut self) {
        self.stopped = false;
    }

    fn renew(&mut self) -> Result<()> {
        self.renewed += 1;
        Ok(())
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata { name: self.name() }
    }
}

/// Two contradictions, the first of which is there for `until` readings: what [`lasting`] says of them.
fn lasting_after(until: u32) -> Vec<String> {
    let mut whole = Damaged::of("5.slab");
    whole.moving = false;
    let heap = Heap::read(&whole).expect("it is whole");
    let release = |sample: &mut Damaged, slab: usize| {
        let header = heap.region.header(heap.slabs[slab].id, 1);
        let owner = header.expect("it has one") + layout::slab::OWNER as u64;
        let word = layout::owner::RELEASED.to_le_bytes();
        for (at, byte) in (owner..).zip(word) {
            let mut before = 0;
            for (start, bytes) in &sample.pieces {
                if (*start..start + bytes.len() as u64).contains(&at) {
                    before += (at - start) as usize;
                    break;
                }
                before += bytes.len();
            }
            sample.poke(before, |_| byte);
        }
    };
    release(&mut whole, 0);
    let mut damaged = whole.clone();
    release(&mut damaged, 1);
    let changing = Changing {
        damaged,
        whole,
        until,
        renewed: 0,
        stopped: false,
    };
    let mut target = Target::from(Box::new(changing) as Box<dyn Source>);
    let regions = find(&*target).expect("a region");
    let heaps = Heap::of_stopped(&mut target, &regions, &mut Vec::new(), Hold::No);
    let heaps = heaps.expect("it is read");
    let found = lasting(&mut target, &heaps).expect("it is read again");
    assert_eq!(found.len(), 1);
    found
        .into_iter()
        .flat_map(|checked| checked.wrong)
        .collect()
}

#[test]
fn of_a_process_only_what_lasts_is_a_contradiction() {
    for (until, wrong) in [(1, 1), (3, 1), (1000, 2)] {
        let found = lasting_after(until);
        assert_eq!(found.len(), wrong, "{until}: {found:?}");
        assert!(found
            .iter()
            .all(|line| line.ends_with("its owner word says released")));
    }
}

#[test]
fn what_is_whole_is_read() {
    for sample in samples() {
        ask_all(sample).expect("it is whole");
        ask_for_leaks(sample.clone()).expect("it is whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_region_is_an_error_or_another_heap(
        which in 0..4usize,
        moving in any::<bool>(),
        pokes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..8),
        tear in prop::option::weighted(0.2, any::<u16>()),
    ) {
        let mut sample = samples()[which].clone();
        sample.moving = moving;
        let len = sample.len();
        for (pick, byte) in pokes {
            // Half of them in the header, on which all depends.
            let at = if pick % 2 == 0 { pick as usize % 760 } else { pick as usize % len };
            sample.poke(at, |old| if byte < 8 { old ^ 1 << byte } else { byte });
        }
        if let Some(pick) = tear {
            let at = pick as usize % sample.pieces.len();
            sample.pieces.remove(at);
        }
        let _ = ask_all(&sample);
    }

    #[test]
    fn any_bytes_are_no_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Snapshot::read("any", &bytes[..]).is_err());
        let mut bytes = bytes;
        bytes.splice(0..0, *b"slabsnap\x01\0\0\0");
        prop_assert!(Snapshot::read("any", &bytes[..]).is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_target(pokes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/regions/3.slab");
        let mut bytes = std::fs::read(path).expect("a file");
        for (pick, byte) in pokes {
            let at = pick as usize % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(snapshot) = Snapshot::read("damaged", &bytes[..]) {
            let _ = ask_all(&snapshot);
            let _ = ask_for_leaks(snapshot);
        }
    }

    #[test]
    fn any_header_is_refused_or_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let mut bytes = bytes;
        bytes.splice(0..0, *b"slabside\x04\0\0\0");
        let _ = Region::parse(0x7f00_0000_0000, &bytes);
    }

    #[test]
    fn a_damaged_core_file_is_an_error_or_another_target(
        pokes in prop::collection::vec((0..1200usize, any::<u8>()), 0..6),
        end in 0..6000usize,
    ) {
        let mut bytes = core_file();
        for (at, byte) in pokes {
            bytes[at] = byte;
        }
        bytes.truncate(end);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("written");
        if let Ok(core) = slabside_view::source::core::Core::open(file.path()) {
            let _ = ask_all(&core);
            let _ = ask_for_leaks(core);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lost_blocks_are_looked_for_in_whatever_a_region_says(
        which in 0..4usize,
        moving in any::<bool>(),
        pokes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..8),
    ) {
        let mut sample = samples()[which].clone();
        sample.moving = moving;
        let len = sample.len();
        for (pick, byte) in pokes {
            sample.poke(pick as usize % len, |old| old ^ byte);
        }
        let _ = ask_for_leaks(sample);
    }
}

/// A core file of one segment and a note, with a region's header in it.
fn core_file() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..20].copy_from_slice(&[
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 62, 0,
    ]);
    let mut put = |at: usize, word: u64, n: usize| {
        bytes[at..at + n].copy_from_slice(&word.to_le_bytes()[..n])
    };
    put(20, 1, 4);
    put(32, 64, 8); // program headers
    put(52, 64, 2);
    put(54, 56, 2);
    put(56, 2, 2);
    // A note of 400 bytes at 512.
    put(64, 4, 4);
    put(72, 512, 8);
    put(96, 400, 8);
    put(512, 5, 4);
    put(516, 336, 4);
    put(520, 1, 4);
    // A segment of a page at 4096.
    put(120, 1, 4);
    put(124, 6, 4);
    put(128, 4096, 8);
    put(136, 0x10000, 8);
    put(152, 4096, 8);
    put(160, 4096, 8);
    bytes[524..529].copy_from_slice(b"CORE\0");
    bytes[4096..4104].copy_from_slice(b"slabside");
    bytes[4104] = 3;
    bytes
}

//! What a reader outside the process (`slabside-view`) tells of a heap by its metadata region: of an honest region exactly
//! what the process counts itself, of a damaged one an error or another number, never more than that.
//!
//! This program runs on slabside, and forks children that are read from outside.

#![cfg(not(any(loom, slabside_portable, slabside_core_alone)))] // The reader is not built then.

#[path = "support/images.rs"]
mod images;
mod support;

use images::{take, Changing, Image, Seen};
use proptest::prelude::*;
use slabside::Slabside;
use slabside_base::class::SPAN;
use slabside_base::units::WINDOW_PAGES;
use slabside_core::meta::{Area, AREAS};
use slabside_core::process::GLOBAL;
use slabside_core::stats::{stats, Stats};
use slabside_sim::SimConfig;
use slabside_view::model::{Buffers, Heap, Hold};
use slabside_view::region::Broken;
use slabside_view::source::{Source, Target};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use support::fuzzing::replay;
use support::{sim_with, Memory, Op, Random, World};

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

fn own_pid() -> libc::pid_t {
    std::process::id() as libc::pid_t
}

/// Where the region of a world begins.
fn region(world: &World) -> usize {
    world.allocator.backend.meta.header() as *const _ as usize
}

/// The bitmaps alone, which `seen` is of, do not tell a live slot from one in a quarantine.
fn expect_same(seen: &Seen, stats: &Stats, large: usize) {
    assert_eq!(
        (seen.slabs, seen.spans, seen.live()),
        (
            stats.slabs,
            stats.spans,
            stats.live + stats.quarantine - large
        )
    );
}

/// Bytes in live large blocks, which are counted apart.
fn large_bytes(world: &World) -> usize {
    world.allocator.backend.large.live().0
}

#[test]
fn an_honest_region_says_what_the_allocator_counts() {
    for (seed, config) in [
        SimConfig::default(),
        sim_with(|config| config.break_fails = true),
        sim_with(|config| config.break_bytes = 1 << 20),
        sim_with(|config| config.page_size = 16 << 10),
        sim_with(|config| config.break_offset = 0x12345),
        sim_with(|config| config.options = "hardened"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut world = World::new(config, Memory::Ample, 1000);
        for step in 0..6 {
            world.play(Random(seed as u64 + 100 * step).take(1500));
            let (found, image) = take(own_pid(), region(&world));
            let seen = found.expect("an honest region is read");
            expect_same(&seen, &world.stats(), large_bytes(&world));
            assert_eq!(image.agree(), Ok(seen));
            assert!(seen.slabs > 0);
        }
        world.finish();
        let (found, _) = take(own_pid(), region(&world));
        assert_eq!(found.map(|seen| (seen.live(), seen.slabs)), Ok((0, 0)));
    }
}

/// Slot by slot: what is allocated and freed shows in its class, and a free by another thread does at once.
#[test]
fn a_class_has_the_bytes_of_its_live_slots() {
    let world = World::new(SimConfig::default(), Memory::Ample, 1);
    let (one, other) = (
        slabside_core::tls::ThreadCache::new(),
        slabside_core::tls::ThreadCache::new(),
    );
    let blocks: Vec<*mut u8> = (0..1000)
        .map(|_| world.allocator.malloc(&one, 48))
        .collect();
    let span = world.allocator.malloc(&one, 50_000);
    let look = || {
        let header = world.allocator.backend.meta.header();
        let seen = take(own_pid(), header as *const _ as usize)
            .0
            .expect("read");
        (seen.live_of[3], seen.live_of[SPAN.index()])
    };
    assert_eq!(look(), (48_000, 53_248));
    world.allocator.free(&one, blocks[0]);
    world.allocator.free(&other, blocks[1]);
    world.allocator.free(&other, blocks[999]);
    world.allocator.free(&one, span);
    assert_eq!(look(), (997 * 48, 0));
    world.allocator.exit_thread(&one);
    world.allocator.exit_thread(&other);
}

/// A child of this program on the real system, stopped after it has told what it counts itself.
struct Child {
    pid: libc::pid_t,
    told: Stats,
    large: usize,
}

impl Child {
    fn new() -> Child {
        let mut ends = [0; 2];
        // SAFETY: pipe(2) writes two descriptors, and `ends` has room for two.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let mut told = [0usize; size_of::<Stats>() / 8 + 1];
        // SAFETY: the child allocates by slabside alone, which repairs itself, and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            Child::live(ends[1]);
        }
        assert!(pid > 0);
        let bytes = size_of_val(&told);
        // SAFETY: `told` has `bytes` bytes, and read(2) writes at most so many.
        let n = unsafe { libc::read(ends[0], told.as_mut_ptr().cast(), bytes) };
        assert_eq!(n, bytes as isize);
        // SAFETY: all fields are words, and it was written as such.
        let stats = unsafe { told.as_ptr().cast::<Stats>().read() };
        Child {
            pid,
            told: stats,
            large: told[told.len() - 1],
        }
    }

    fn live(end: libc::c_int) -> ! {
        let mut blocks: Vec<Vec<u8>> = (1..100).map(|n| vec![1; n * 137 % 12_000]).collect();
        let mut at = 0;
        blocks.retain(|_| {
            at += 1;
            at % 3 != 0
        });
        let mut message = (
            stats(&GLOBAL, slabside_core::tls::local()),
            GLOBAL.backend.large.live().0,
        );
        // SAFETY: the message's bytes; and this process is nobody else's.
        unsafe {
            libc::write(end, (&raw mut message).cast(), size_of_val(&message));
            loop {
                libc::pause();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: `self.pid` is our own child, and only `drop` waits for it, so the number cannot belong to
        // another process.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// What a live process says, read by another one. Its region lies where this program's does. `SLABSIDE_WRITE=1` keeps
/// the image as the fuzzer's seed (a smaller one when no other test runs).
#[test]
fn a_live_process_is_read_from_outside() {
    drop(vec![1; 10]);
    let base = GLOBAL.backend.meta.header() as *const _ as usize;
    let child = Child::new();
    let (found, image) = take(child.pid, base);
    let seen = found.expect("a live region is read");
    expect_same(&seen, &child.told, child.large);
    assert!(seen.live() > 100_000, "{seen:?}");
    assert_eq!(image.agree(), Ok(seen));
    let kept = image.to_bytes();
    assert_eq!(Image::from_bytes(&kept).agree(), Ok(seen));
    if std::env::var_os("SLABSIDE_WRITE").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/snapshots/process");
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, &kept).expect("written");
    }
}

/// The image that is damaged below, in parts that matter: two windows and every kind of slab.
fn sample() -> &'static (Seen, Image) {
    static SAMPLE: OnceLock<(Seen, Image)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let config = sim_with(|config| config.break_bytes = 1 << 20);
        let mut world = World::new(config, Memory::Ample, 2000);
        let eights = Op::Malloc {
            thread: 0,
            size: 8,
            count: 300,
        };
        // A thread's first slabs of these have two pages each.
        let sizes = (1100..2000).step_by(100);
        let twos = sizes.flat_map(|size| {
            (0..3).map(move |thread| Op::Malloc {
                thread,
                size,
                count: 4,
            })
        });
        world.play(Random(7).take(2000));
        world.play(twos);
        world.play([eights]);
        let (found, image) = take(own_pid(), region(&world));
        (found.expect("an honest region is read"), image)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_region_is_an_error_or_counted_alike(
        pokes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..6),
        tear in prop::option::weighted(0.1, any::<u16>()),
    ) {
        let (_, image) = sample();
        let mut image = image.clone();
        for (pick, byte) in pokes {
            image.poke(pick as usize % image.len(), |old| if byte < 8 { old ^ 1 << byte } else { byte });
        }
        tear.into_iter().for_each(|page| image.tear(page as usize));
        let _ = image.agree();
    }

    #[test]
    fn any_bytes_are_an_error_or_counted_alike(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Image::from_bytes(&bytes).agree();
    }
}

/// Every byte of the header, and of the first slab headers, in turn: nothing there is believed.
#[test]
fn each_byte_of_the_header_and_the_first_slabs_may_be_wrong() {
    let (seen, image) = sample();
    let slabs = image.slabs();
    let mut errors = 0;
    for at in (0..320).chain(slabs..slabs + 8 * 128) {
        let mut image = image.clone();
        image.spoil(at, 1 << (at % 8));
        errors += usize::from(image.agree() != Ok(*seen));
    }
    // Owners, counts of frees left and links are nothing that is counted.
    assert!(errors > 200, "{errors}");
}

/// The sample with one word changed is broken in the way that `of` says.
#[track_caller]
fn expect_broken(offset: usize, n: usize, word: u64, of: fn(&Broken) -> bool) {
    let mut image = sample().1.clone();
    image.set(offset, n, word);
    let found = image.agree();
    assert!(found.as_ref().is_err_and(of), "{found:?}");
}

const fn is_slab(broken: &Broken) -> bool {
    matches!(broken, Broken::Slab(..))
}

const fn is_number(broken: &Broken) -> bool {
    matches!(broken, Broken::Number(..))
}

/// The entries of the sample's page map that satisfy `wanted`, by what each says of its page, among the first pages of
/// the window that begins with page `first`.
fn entries(first: usize, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = usize> {
    let image = &sample().1;
    let at = move |page: usize| image.map() + 4 * page;
    (first..first + 256)
        .map(at)
        .filter(move |&at| wanted(image.word(at, 4)))
}

/// A slab of `pages` pages, by its number.
fn slab_of(pages: u64) -> u64 {
    let image = &sample().1;
    let has = |id: u64| image.word(image.slabs() + id as usize * 128 + 120, 2) == pages;
    let at = entries(0, |id| id > 1 && has(id)).next();
    image.word(at.expect("there is one"), 4)
}

/// A free page of either window that is said to belong to a slab counted already.
#[test]
fn no_slab_is_counted_twice() {
    let image = &sample().1;
    let second = (1..1 << 12)
        .map(|window| window * WINDOW_PAGES)
        .find(|page| image.byte(image.map() + 4 * page).is_some())
        .expect("two windows");
    for window in [0, second] {
        for free in entries(window, |id| id == 0).take(20) {
            expect_broken(free, 4, slab_of(1), is_slab);
        }
    }
}

/// Slabs of one window that lie elsewhere than their pages, and windows of the same addresses.
#[test]
fn slabs_lie_where_their_pages_do() {
    let image = &sample().1;
    let base = |id: u64| image.slabs() + id as usize * 128;
    let (one, other) = (slab_of(1), slab_of(2));
    expect_broken(base(one), 8, image.word(base(other), 8), is_slab);
    // The last is a page that nobody has, and one that no other page of the window agrees with.
    for wrong in [0, 1, 1 << 47, u64::MAX, u64::MAX - 4095, 1 << 20] {
        expect_broken(base(one), 8, wrong, is_slab);
    }
}

#[test]
fn a_header_must_fit_its_pages_and_its_class() {
    let image = &sample().1;
    let header = image.slabs() + slab_of(2) as usize * 128;
    // Reciprocal, size, slots, class, state, number, pages.
    for (at, n) in [(16, 4), (20, 4), (28, 2), (30, 1), (96, 4), (120, 2)] {
        for change in [1, 2, 3] {
            let word = image.word(header + at, n);
            expect_broken(header + at, n, word ^ change, |_| true);
        }
        expect_broken(header + at, n, u64::MAX, |_| true);
    }
    for class in SPAN.index() as u64 + 1..=255 {
        expect_broken(header + 30, 1, class, is_slab);
    }
    expect_broken(header + 31, 1, 0, is_slab);
    let id = slab_of(2);
    let last = entries(0, |entry| entry == id).last();
    expect_broken(last.expect("of two"), 4, 0, is_slab);
}

/// A thread that gets no processor in the middle of a change stays there, however often it is stopped.
#[test]
fn a_process_that_waits_in_the_middle_of_a_change_is_read_when_it_goes_on() {
    let (seen, whole) = sample();
    let mut torn = whole.clone();
    torn.spoil(whole.slabs() + slab_of(2) as usize * 128 + 30, 1);
    assert!(torn.read().is_err());
    for hold in [None, Some(Hold::No), Some(Hold::Yes)] {
        let process = Changing::new(torn.clone(), whole.clone(), Duration::from_millis(20));
        let region = process.region();
        let heap = match hold {
            None => Heap::of(&process, region, &mut Buffers::default()),
            Some(hold) => {
                let mut target = Target::from(Box::new(process) as Box<dyn Source>);
                Heap::of_stopped(&mut target, &[region], &mut Vec::new(), hold)
                    .map(|mut heaps| heaps.remove(0))
            }
        };
        let heap = heap.unwrap_or_else(|error| panic!("{hold:?}: {error}"));
        assert_eq!(Seen::of(&heap), *seen, "{hold:?}");
    }
}

/// Numbers behind the last header, and those of the gap between the first headers and the others: there lies the page
/// map.
#[test]
fn only_what_lies_in_the_areas_of_headers_is_a_header() {
    let image = &sample().1;
    let free = entries(0, |id| id == 0).next().expect("a free page");
    let gap = (image.map() - image.slabs()) as u64 / 128;
    for wrong in [gap, gap + 1, u32::MAX as u64, 1 << 31] {
        expect_broken(free, 4, wrong, is_number);
    }
}

/// Headers as good as any, but in another area, or a pair of which one half is.
#[test]
fn a_forged_header_elsewhere_is_none() {
    let image = &sample().1;
    let area = |area: Area, word: usize| image.word(32 + area as usize * 16 + word * 8, 8) as usize;
    let end = area(Area::Slabs, 0) + area(Area::Slabs, 1);
    let (single, pair) = (slab_of(1), pair());
    for (from, offset) in [
        (single, area(Area::Heaps, 0).next_multiple_of(128)),
        (single, end),
        (pair, end - 128),
    ] {
        let id = ((offset - image.slabs()) / 128) as u64;
        let mut forged = image.clone();
        let header = image.slabs() + from as usize * 128;
        (0..256).step_by(8).for_each(|at| {
            forged.set(offset + at, 8, image.word(header + at, 8));
        });
        forged.set(offset + 96, 4, id);
        let at = entries(0, |entry| entry == from).next().expect("its page");
        forged.set(at, 4, id);
        let found = forged.agree();
        assert!(found.as_ref().is_err_and(is_number), "{found:?}");
    }
}

/// A slab of the class whose headers are pairs, by its number.
fn pair() -> u64 {
    let image = &sample().1;
    let is_pair = |id: u64| id > 1 && image.word(image.slabs() + id as usize * 128 + 30, 1) == 0;
    let at = entries(0, is_pair).next();
    image.word(at.expect("there is one"), 4)
}

/// Areas lie one behind the other, within the region.
#[test]
fn areas_do_not_overlap() {
    let image = &sample().1;
    for area in 1..AREAS {
        let at = 32 + area * 16;
        let offset = image.word(at, 8);
        for wrong in [0, offset - 64, offset + 1, 1 << 46, u64::MAX - 7] {
            expect_broken(at, 8, wrong, |broken| matches!(broken, Broken::Area(_)));
        }
        expect_broken(at + 8, 8, u64::MAX - 7, |broken| {
            matches!(broken, Broken::Area(_))
        });
    }
}

/// A region cut anywhere is an error, or what lies before the cut.
#[test]
fn a_region_cut_short_is_never_read_past_its_end() {
    let (_, image) = sample();
    for end in (0..image.len()).step_by(61) {
        let _ = image.cut(end).agree();
    }
}

#[test]
fn the_kept_corpora_are_errors_or_read_alike() {
    replay("snapshots", images::regions);
    replay("files", images::files);
    replay("cores", images::cores);
}

//! What a reader outside the process tells of a heap by its metadata region (`slabside::snapshot`): of an honest region
//! exactly what the process counts itself, of a damaged one an error or another number, never more than that.
//!
//! This program runs on slabside, and forks children that are read from outside.

mod support;

use proptest::prelude::*;
use slabside::class::SPAN;
use slabside::inspect::{stats, Stats};
use slabside::life::GLOBAL;
use slabside::os::SimConfig;
use slabside::snapshot::{bytes, read, Snapshot};
use slabside::Slabside;
use std::path::Path;
use std::sync::OnceLock;
use support::snapshots::{take, Image};
use support::{sim_with, Memory, Random, World};

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

fn own_pid() -> libc::pid_t {
    std::process::id() as libc::pid_t
}

/// The region of a world that played `operations`, and what the allocator counts of it.
fn honest(config: SimConfig, seed: u64, operations: usize) -> (Snapshot, Image, Stats) {
    let mut world = World::new(config, Memory::Ample, operations);
    world.play(Random(seed).take(operations));
    let header = world.allocator.ground.meta.header();
    let (found, image) = take(own_pid(), header as *const _ as usize);
    (
        found.expect("an honest region is read"),
        image,
        world.stats(),
    )
}

fn expect_same(seen: &Snapshot, stats: &Stats, large: usize) {
    assert_eq!(
        (seen.slabs, seen.spans, seen.live()),
        (stats.slabs, stats.spans, stats.live - large)
    );
}

/// Bytes in live large blocks, which a snapshot does not see.
fn large_bytes(world: &World) -> usize {
    world.allocator.ground.large.live().0
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
        let header = |world: &World| world.allocator.ground.meta.header() as *const _ as usize;
        for step in 0..6 {
            world.play(Random(seed as u64 + 100 * step).take(1500));
            let (found, image) = take(own_pid(), header(&world));
            let seen = found.expect("an honest region is read");
            expect_same(&seen, &world.stats(), large_bytes(&world));
            assert_eq!(image.agree(), Ok(seen));
            assert!(seen.slabs > 0);
        }
        world.finish();
        let (found, _) = take(own_pid(), header(&world));
        assert_eq!(found.map(|seen| (seen.live(), seen.slabs)), Ok((0, 0)));
    }
}

/// Slot by slot: what is allocated and freed shows in its class, and a free by another thread does at once.
#[test]
fn a_class_has_the_bytes_of_its_live_slots() {
    let world = World::new(SimConfig::default(), Memory::Ample, 1);
    let (one, other) = (slabside::tls::Local::new(), slabside::tls::Local::new());
    let blocks: Vec<*mut u8> = (0..1000)
        .map(|_| world.allocator.malloc(&one, 48))
        .collect();
    let span = world.allocator.malloc(&one, 20_000);
    let look = || {
        let header = world.allocator.ground.meta.header();
        let seen = take(own_pid(), header as *const _ as usize)
            .0
            .expect("read");
        (seen.live_of[3], seen.live_of[SPAN])
    };
    assert_eq!(look(), (48_000, 20_480));
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
        // SAFETY: room for two.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let mut told = [0usize; size_of::<Stats>() / 8 + 1];
        // SAFETY: the child allocates by slabside alone, which repairs itself, and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            Child::live(ends[1]);
        }
        assert!(pid > 0);
        let bytes = size_of_val(&told);
        // SAFETY: `told` has so many bytes.
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
        let mut message = (stats(&GLOBAL), GLOBAL.ground.large.live().0);
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
        // SAFETY: our own child.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// What a live process says, read by another one; its region lies where this program's does. `SLABSIDE_WRITE=1`
/// keeps the image as the fuzzer's seed (a smaller one when no other test runs).
#[test]
fn a_live_process_is_read_from_outside() {
    drop(vec![1; 10]);
    let base = GLOBAL.ground.meta.header() as *const _ as usize;
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
fn sample() -> &'static (Snapshot, Image) {
    static SAMPLE: OnceLock<(Snapshot, Image)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let config = sim_with(|config| config.break_bytes = 1 << 20);
        let (seen, image, _) = honest(config, 7, 2000);
        (seen, image)
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
    // Owners, credits and links are nothing that is counted.
    assert!(errors > 200, "{errors}");
}

/// A region in one piece, as a file would have it: cut anywhere it is an error, or what lies before the cut.
#[test]
fn a_region_cut_short_is_never_read_past_its_end() {
    let (_, image) = sample();
    let mut whole = vec![0; 64 << 10];
    for (at, byte) in whole.iter_mut().enumerate() {
        image.byte(at).into_iter().for_each(|known| *byte = known);
    }
    for end in (0..whole.len()).step_by(61) {
        let _ = read(bytes(&whole[..end]));
    }
}

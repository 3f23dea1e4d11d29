//! The model: any script of operations on an `Allocator<Sim>` and several simulated threads, played beside
//! a plain map of what must be live.
//!
//! ```text
//!   Op ... ---> World::play ---> the allocator under test   (a boxed ThreadCache stands for each thread)
//!                        `-----> BTreeMap address -> block  (what was asked, and what was written there)
//! ```
//!
//! After every operation the two must agree. No two blocks overlap. Each keeps what was written into all of its usable
//! bytes, is aligned, and zero after calloc. And `validate` finds nothing. Tests, fuzz targets and soak runs all play
//! through [`World::play`]. They differ only in where the operations come from.
#![allow(dead_code)] // Each test file uses a part.
#![allow(clippy::vec_box)] // A heap names its thread's block by address.

pub mod fuzzing;
pub mod parallel;

use slabside_base::os::{Limits, Vm};
use slabside_base::units::{PAGE, SPAN_MAX};
use slabside_core::allocator::Allocator;
use slabside_core::stats::{census, stats, Stats};
use slabside_core::tls::ThreadCache;
use slabside_sim::{Sim, SimConfig};
use std::collections::BTreeMap;
use std::slice;

/// Simulated threads at one time.
pub const THREADS: usize = 5;
/// The most bytes that a world keeps live: well below what a default [`Sim`] has.
const LIVE_MOST: usize = 40 << 20;

/// One operation. Threads and blocks are picked by number, modulo how many there are, so that any numbers
/// make a valid script and a script stays valid when a part of it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `count` blocks of one size.
    Malloc {
        thread: usize,
        size: usize,
        count: usize,
    },
    /// One zeroed block.
    Calloc { thread: usize, size: usize },
    /// One block at a multiple of `1 << shift`.
    Aligned {
        thread: usize,
        size: usize,
        shift: u32,
    },
    /// Resizes a block.
    Realloc {
        thread: usize,
        pick: usize,
        size: usize,
    },
    /// `count` blocks, each `stride` further on in the order of their making.
    Free {
        thread: usize,
        pick: usize,
        count: usize,
        stride: usize,
    },
    /// The thread's exit hook runs. It is late from then on, and may still be used.
    Exit(usize),
    /// The thread exits and a new one takes its place.
    Birth(usize),
    /// Time goes by.
    Clock(u64),
    /// Another library moves the break up.
    Foreign(usize),
    /// Another library moves the break back down, if it can.
    ForeignBack,
    /// The process goes on as the fork child of this thread: the other threads are gone.
    Fork(usize),
    /// Everything kept for reuse is given back.
    Reclaim(usize),
}

impl Op {
    /// Any four numbers as an operation. Small numbers make small ones, so that shrinking them shrinks it.
    pub fn from_numbers(kind: u8, thread: u8, pick: u16, size: u32) -> Op {
        let (thread, pick) = (thread as usize % THREADS, pick as usize);
        let few = if size >> 28 == 15 { 1 + pick % 200 } else { 1 };
        let size = scaled(size);
        match kind % 64 {
            0..=21 => Op::Malloc {
                thread,
                size,
                count: few.min(1 + (512 << 10) / (size + 1)),
            },
            22..=25 => Op::Calloc { thread, size },
            26..=29 => Op::Aligned {
                thread,
                size,
                shift: pick as u32 % 17,
            },
            30..=35 => Op::Realloc { thread, pick, size },
            36..=53 => Op::Free {
                thread,
                pick,
                count: few,
                stride: 1 + pick % 3,
            },
            54 => Op::Exit(thread),
            55..=56 => Op::Birth(thread),
            57..=58 => Op::Clock(pick as u64 % 700),
            59 => Op::Foreign(1 + size % (3 * PAGE)),
            60 => Op::ForeignBack,
            61 => Op::Fork(thread),
            62 => Op::Reclaim(thread),
            _ => Op::Free {
                thread,
                pick,
                count: 300,
                stride: 1 + pick % 2,
            },
        }
    }

    /// Eight bytes as an operation: for a fuzzer's input.
    pub fn from_bytes(bytes: [u8; 8]) -> Op {
        let word = u64::from_le_bytes(bytes);
        Op::from_numbers(
            word as u8,
            (word >> 8) as u8,
            (word >> 16) as u16,
            (word >> 32) as u32,
        )
    }
}

/// A request's size: mostly small, seldom large.
fn scaled(number: u32) -> usize {
    let limit = match number >> 24 & 15 {
        0..=6 => 256,
        7..=9 => 1 << 10,
        10..=11 => 9 << 10,
        12..=14 => SPAN_MAX + PAGE,
        _ => 1 << 20,
    };
    number as usize % (1 << 24) % limit
}

/// Pseudo-random operations without end.
pub struct Random(pub u64);

impl Random {
    /// The next number (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }
}

impl Iterator for Random {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        Some(Op::from_bytes(self.word().to_le_bytes()))
    }
}

/// What the model knows of a live block.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Usable bytes.
    usable: usize,
    /// What was written.
    tag: u64,
}

/// Whether an allocation may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// There is enough: a null is an error.
    Ample,
    /// The system may refuse: a null is allowed, and must have changed nothing.
    Scarce,
}

/// An allocator under test and the model beside it.
pub struct World {
    /// The allocator.
    pub allocator: Box<Allocator<Sim>>,
    /// Boxed: a heap names its thread's block by address.
    threads: [Box<ThreadCache>; THREADS],
    /// Blocks of threads that a fork left behind: a heap may still name them.
    forgotten: Vec<Box<ThreadCache>>,
    live: BTreeMap<usize, Block>,
    /// Live addresses in the order of their making, but for swaps.
    order: Vec<usize>,
    live_bytes: usize,
    foreign: Vec<(usize, usize)>,
    /// Whether an allocation may fail.
    pub memory: Memory,
    /// What is told of this world when it fails.
    pub note: String,
    /// Operations between two validations.
    every: usize,
    played: usize,
    tags: u64,
    /// Allocations that failed.
    pub refused: usize,
}

/// A system as the default but for what `change` says.
pub fn sim_with(change: impl FnOnce(&mut SimConfig)) -> SimConfig {
    let mut config = SimConfig::default();
    change(&mut config);
    config
}

/// An allocator on the system that `config` makes, used by one thread of the test at a time: fails the test if one of
/// the locks that are never held over a system call is.
pub fn allocator_on(config: SimConfig) -> Box<Allocator<Sim>> {
    let allocator = Box::new(Allocator::new(Sim::new(config)));
    let address = &raw const *allocator as usize;
    allocator.backend.os.expect_at_calls(move || {
        // SAFETY: it is the allocator's own system that calls this, as long as there is the allocator.
        let allocator = unsafe { &*(address as *const Allocator<Sim>) };
        allocator.short_locks_are_free()
    });
    allocator
}

/// Limits of so many bytes of address space, and none on data.
pub fn address_limit(bytes: usize) -> Limits {
    Limits {
        address_space: bytes,
        data: usize::MAX,
    }
}

impl World {
    /// A world on the system that `config` makes, validated after each `every` operations.
    pub fn new(config: SimConfig, memory: Memory, every: usize) -> World {
        let config = SimConfig {
            marks_forks: true,
            ..config
        };
        World {
            allocator: allocator_on(config),
            threads: std::array::from_fn(|_| Box::new(ThreadCache::new())),
            forgotten: Vec::new(),
            live: BTreeMap::new(),
            order: Vec::new(),
            live_bytes: 0,
            foreign: Vec::new(),
            memory,
            note: String::new(),
            every,
            played: 0,
            tags: 0,
            refused: 0,
        }
    }

    /// The simulated system.
    pub fn sim(&self) -> &Sim {
        &self.allocator.backend.os
    }

    /// The heap's figures.
    pub fn stats(&self) -> Stats {
        stats(&self.allocator, &ThreadCache::new())
    }

    /// How many blocks are live.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Plays a script.
    pub fn play(&mut self, script: impl IntoIterator<Item = Op>) {
        for op in script {
            self.step(op);
            self.played += 1;
            if self.played.is_multiple_of(self.every) {
                self.check();
            }
        }
    }

    /// Panics where the allocator is not as it should be.
    pub fn check(&self) {
        assert_eq!(
            self.allocator.validate(&ThreadCache::new()),
            0,
            "broken invariants after {} operations",
            self.played
        );
    }

    /// Panics where any live block has been damaged, or foreign memory has.
    pub fn check_contents(&self) {
        self.live
            .iter()
            .for_each(|(&address, block)| expect_pattern(address, block.usable, block.tag));
        for &(start, bytes) in &self.foreign {
            // SAFETY: foreign memory of the simulated system, usable until it is given back.
            let bytes = unsafe { slice::from_raw_parts(start as *const u8, bytes) };
            assert!(
                bytes.iter().all(|&byte| byte == FOREIGN),
                "foreign memory at {start:#x} was written"
            );
        }
    }

    /// Ends the world: every block is freed, in part by other threads than its own, every thread exits, and
    /// nothing may be left.
    pub fn finish(&mut self) {
        self.check_contents();
        let mut thread = 0;
        while self.count() > 0 {
            self.free(thread % THREADS, thread * 7);
            thread += 1;
        }
        self.check();
        // A late thread reaches the shared heap. One that never allocated would get a heap of its own.
        self.allocator
            .free(self.thread(0), self.allocator.malloc(self.thread(0), 1));
        (0..THREADS).for_each(|thread| self.allocator.exit_thread(self.thread(thread)));
        self.allocator.reclaim(&self.threads[0]);
        self.check();
        let stats = self.stats();
        assert_eq!(
            (stats.live, stats.slabs, stats.spans, stats.large),
            (0, 0, 0, 0),
            "{stats:?}"
        );
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Malloc {
                thread,
                size,
                count,
            } => (0..count).for_each(|_| self.malloc(thread, size)),
            Op::Calloc { thread, size } => self.calloc(thread, size),
            Op::Aligned {
                thread,
                size,
                shift,
            } => self.aligned(thread, size, 1 << shift),
            Op::Realloc { thread, pick, size } => self.realloc(thread, pick, size),
            Op::Free {
                thread,
                pick,
                count,
                stride,
            } => {
                (0..count).for_each(|i| self.free(thread, pick + i * stride));
            }
            Op::Exit(thread) => self.allocator.exit_thread(self.thread(thread)),
            Op::Birth(thread) => {
                self.allocator.exit_thread(self.thread(thread));
                *self.threads[thread % THREADS] = ThreadCache::new();
            }
            Op::Clock(ms) => self.sim().advance_clock(ms),
            Op::Foreign(bytes) => self.foreign(bytes),
            Op::ForeignBack => self.foreign_back(),
            Op::Fork(thread) => self.fork(thread),
            Op::Reclaim(thread) => self.allocator.reclaim(self.thread(thread)),
        }
    }

    fn thread(&self, thread: usize) -> &ThreadCache {
        &self.threads[thread % THREADS]
    }

    fn malloc(&mut self, thread: usize, size: usize) {
        if self.has_room(size) {
            let block = self.allocator.malloc(self.thread(thread), size);
            self.enter(block, size, if size > 8 { 16 } else { 8 });
        }
    }

    fn calloc(&mut self, thread: usize, size: usize) {
        if !self.has_room(size) {
            return;
        }
        let block = self.allocator.calloc(self.thread(thread), 1, size);
        if !block.is_null() {
            // SAFETY: just allocated with at least `size` bytes.
            let bytes = unsafe { slice::from_raw_parts(block, size) };
            let dirty = bytes
                .chunks(PAGE)
                .position(|chunk| chunk != &[0; PAGE][..chunk.len()]);
            assert_eq!(
                dirty, None,
                "calloc({size}) at {block:p}: a page is not zero"
            );
        }
        self.enter(block, size, 8);
    }

    fn aligned(&mut self, thread: usize, size: usize, align: usize) {
        if self.has_room(size.max(align)) {
            let block = self.allocator.aligned(self.thread(thread), size, align);
            self.enter(block, size, align);
        }
    }

    fn realloc(&mut self, thread: usize, pick: usize, size: usize) {
        let Some(address) = self.pick(pick).filter(|_| self.has_room(size)) else {
            return;
        };
        let old = self.leave(address);
        expect_pattern(address, old.usable, old.tag);
        let moved = self
            .allocator
            .realloc(self.thread(thread), address as *mut u8, size);
        if moved.is_null() {
            assert!(
                size > old.usable,
                "realloc from {} to {size} failed",
                old.usable
            );
            assert_eq!(
                self.usable(address),
                old.usable,
                "a failed realloc changed the block"
            );
            expect_pattern(address, old.usable, old.tag);
            self.note(address, old);
            self.refuse(size);
            return;
        }
        expect_pattern(moved as usize, old.usable.min(size), old.tag);
        self.enter(moved, size, if size > 8 { 16 } else { 8 });
    }

    fn free(&mut self, thread: usize, pick: usize) {
        if let Some(address) = self.pick(pick) {
            let block = self.leave(address);
            expect_pattern(address, block.usable, block.tag);
            self.allocator.free(self.thread(thread), address as *mut u8);
        }
    }

    fn foreign(&mut self, bytes: usize) {
        if let Some(start) = self.sim().foreign_sbrk(bytes as isize) {
            // SAFETY: memory that the simulated break has just moved over.
            unsafe { (start as *mut u8).write_bytes(FOREIGN, bytes) };
            self.foreign.push((start, bytes));
        }
    }

    fn foreign_back(&mut self) {
        let last = self.foreign.last().copied();
        if let Some((_, bytes)) =
            last.filter(|&(at, bytes)| at + bytes == self.sim().break_position())
        {
            self.check_contents();
            self.foreign.pop();
            self.sim().foreign_sbrk(-(bytes as isize));
        }
    }

    fn fork(&mut self, thread: usize) {
        for other in (0..THREADS).filter(|other| *other != thread % THREADS) {
            let gone = std::mem::replace(&mut self.threads[other], Box::new(ThreadCache::new()));
            self.forgotten.push(gone);
        }
        let (allocator, thread) = (&self.allocator, self.thread(thread));
        // By the handlers, or by _Fork: then the first slow path notices, whichever it is.
        let kind = if self.sim().fork() {
            self.played % 6
        } else {
            0
        };
        match (kind, self.pick(self.played)) {
            (1, _) => assert_eq!(allocator.validate(thread), 0),
            (2, _) => drop(stats(allocator, thread)),
            (3, _) => drop(census(allocator, thread)),
            (4, Some(block)) => drop(allocator.usable_size(thread, block as *const u8)),
            (5, _) => allocator.reclaim(thread),
            _ => allocator.repair_after_fork(thread),
        }
    }

    // ---- the map --------------------------------------------------------------------------------

    fn has_room(&self, size: usize) -> bool {
        self.live_bytes + size <= LIVE_MOST
    }

    fn pick(&self, pick: usize) -> Option<usize> {
        self.order.get(pick % self.order.len().max(1)).copied()
    }

    fn usable(&self, address: usize) -> usize {
        let thread = slabside_core::tls::ThreadCache::new();
        self.allocator.usable_size(&thread, address as *const u8)
    }

    fn refuse(&mut self, size: usize) {
        assert_eq!(
            self.memory,
            Memory::Scarce,
            "{size} bytes refused, {} live",
            self.live_bytes
        );
        self.refused += 1;
    }

    /// A new live block: it must lie apart from all others.
    fn enter(&mut self, block: *mut u8, size: usize, align: usize) {
        if block.is_null() {
            return self.refuse(size);
        }
        let address = block as usize;
        assert_eq!(
            address % align,
            0,
            "{size} bytes at {address:#x}, not at a multiple of {align}"
        );
        let usable = self.usable(address);
        assert!(
            usable >= size,
            "{usable} bytes usable of {size} at {address:#x}"
        );
        self.expect_apart(address, usable);
        self.tags += 1;
        let block = Block {
            usable,
            tag: self.tags,
        };
        write_pattern(address, usable, block.tag);
        self.note(address, block);
    }

    fn expect_apart(&self, address: usize, usable: usize) {
        let end = address + usable;
        if let Some((other, block)) = self.live.range(..end).next_back() {
            assert!(
                other + block.usable <= address,
                "{address:#x}..{end:#x} overlaps {other:#x} {block:?}"
            );
        }
        let within = |&&(start, bytes): &&(usize, usize)| start < end && address < start + bytes;
        assert_eq!(
            self.foreign.iter().find(within),
            None,
            "{address:#x}..{end:#x} is foreign"
        );
    }

    fn note(&mut self, address: usize, block: Block) {
        self.live_bytes += block.usable;
        self.live.insert(address, block);
        self.order.push(address);
    }

    fn leave(&mut self, address: usize) -> Block {
        let place = self
            .order
            .iter()
            .position(|&other| other == address)
            .expect("live");
        self.order.swap_remove(place);
        let block = self.live.remove(&address).expect("live");
        self.live_bytes -= block.usable;
        block
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "world {}: {} operations played, {} blocks live",
                self.note,
                self.played,
                self.live.len()
            );
        }
    }
}

/// What foreign memory is filled with.
const FOREIGN: u8 = 0xf0;

/// One page of the pattern `tag`. Its first word tells which page it is.
fn pattern(tag: u64, page: usize) -> [u8; PAGE] {
    let mut bytes = [tag as u8 | 1; PAGE];
    bytes[..8].copy_from_slice(&(tag << 20 | 1 << 19 | page as u64).to_le_bytes());
    bytes
}

/// Whether a page of a block is written and looked at: in a large one, for speed, the first ones and then
/// each eighth.
fn is_written<T>((page, _): &(usize, T)) -> bool {
    *page < 8 || page % 8 == 0
}

fn write_pattern(address: usize, bytes: usize, tag: u64) {
    // SAFETY: the caller's block is live and has so many usable bytes.
    let block = unsafe { slice::from_raw_parts_mut(address as *mut u8, bytes) };
    for (page, chunk) in block.chunks_mut(PAGE).enumerate().filter(is_written) {
        chunk.copy_from_slice(&pattern(tag, page)[..chunk.len()]);
    }
}

fn expect_pattern(address: usize, bytes: usize, tag: u64) {
    // SAFETY: the caller's block is live and has so many usable bytes.
    let block = unsafe { slice::from_raw_parts(address as *const u8, bytes) };
    for (page, chunk) in block.chunks(PAGE).enumerate().filter(is_written) {
        let damaged = chunk != &pattern(tag, page)[..chunk.len()];
        assert!(
            !damaged,
            "block at {address:#x} of {bytes} bytes is damaged in page {page}"
        );
    }
}

/// Time as the simulated system tells it.
pub fn now(world: &World) -> u64 {
    world.sim().clock()
}

//! The model with real threads: rounds of a script in which each thread plays its part at its own pace.
//!
//! ```text
//!   script --split at forks and foreign breaks--> rounds
//!   round:   thread 0: ops ...   thread 1: ops ...   thread 2: ops ...     at the same time
//!            each keeps its own blocks, and leaves every third one where any of them may free it
//!   between: nobody runs; live blocks lie apart, and `validate` finds nothing
//! ```
//!
//! Which thread comes first is the processor's choice: a failure may need several runs to show again. Thread
//! sanitizer reads these runs too.

use super::{expect_pattern, write_pattern, Memory, Op};
use slabside_core::allocator::Allocator;
use slabside_core::tls::ThreadCache;
use slabside_sim::{Sim, SimConfig};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;

/// Threads at one time.
pub const PLAYERS: usize = 3;
/// The most bytes that a thread keeps live.
const LIVE_MOST: usize = 8 << 20;

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: usize,
    usable: usize,
    tag: u64,
}

/// What all threads share.
struct Table {
    allocator: Box<Allocator<Sim>>,
    /// Blocks that any thread may free.
    left: Mutex<Vec<Block>>,
    tags: AtomicU64,
    refused: AtomicUsize,
}

/// One thread's own: it lives on when the round's real thread has ended.
struct Player {
    /// Boxed: its heap names it by address.
    local: Box<ThreadCache>,
    /// Those of threads that have ended, which a heap may still name.
    forgotten: Vec<Box<ThreadCache>>,
    own: Vec<Block>,
    live: usize,
}

// SAFETY: a player is used by one thread at a time, and rounds are joined.
unsafe impl Send for Player {}

/// An allocator under test by several threads.
pub struct Parallel {
    table: Table,
    players: Vec<Player>,
    memory: Memory,
}

impl Parallel {
    /// Threads on the system that `config` makes.
    pub fn new(config: SimConfig, memory: Memory) -> Parallel {
        let config = SimConfig {
            marks_forks: true,
            ..config
        };
        Parallel {
            table: Table {
                allocator: Box::new(Allocator::new(Sim::new(config))),
                left: Mutex::new(Vec::new()),
                tags: AtomicU64::new(0),
                refused: AtomicUsize::new(0),
            },
            players: (0..PLAYERS).map(|_| Player::new()).collect(),
            memory,
        }
    }

    /// The simulated system.
    pub fn sim(&self) -> &Sim {
        &self.table.allocator.backend.os
    }

    /// Plays a script, in rounds.
    pub fn play(&mut self, script: impl IntoIterator<Item = Op>) {
        let mut parts: Vec<Vec<Op>> = vec![Vec::new(); PLAYERS];
        for op in script {
            match op {
                Op::Fork(thread) => {
                    self.round(&mut parts);
                    self.fork(thread % PLAYERS);
                }
                Op::Foreign(bytes) => {
                    self.round(&mut parts);
                    self.sim().foreign_sbrk(bytes as isize);
                }
                Op::ForeignBack => self.round(&mut parts),
                _ => parts[thread_of(op) % PLAYERS].push(op),
            }
        }
        self.round(&mut parts);
    }

    /// Frees everything, ends every thread, and expects nothing to be left.
    pub fn finish(&mut self) {
        let all = |thread| Op::Free {
            thread,
            pick: 0,
            count: usize::MAX,
            stride: 1,
        };
        let mut parts: Vec<_> = (0..PLAYERS).map(|thread| vec![all(thread)]).collect();
        self.round(&mut parts);
        let table = &self.table;
        while table.free_left(&self.players[0].local) {}
        let allocator = &table.allocator;
        // A late thread reaches the shared heap. One that never allocated would get a heap of its own.
        allocator.free(
            &*self.players[0].local,
            allocator.malloc(&*self.players[0].local, 1),
        );
        for player in &self.players {
            allocator.exit_thread(&player.local);
        }
        allocator.reclaim(&self.players[0].local);
        self.check();
        let stats = slabside_core::stats::stats(allocator, &ThreadCache::new());
        let left = (stats.live, stats.slabs, stats.spans, stats.large);
        assert_eq!(left, (0, 0, 0, 0), "{stats:?}");
    }

    /// Requests that were refused. None if there is memory enough.
    pub fn refused(&self) -> usize {
        self.table.refused.load(Relaxed)
    }

    fn round(&mut self, parts: &mut [Vec<Op>]) {
        if parts.iter().all(Vec::is_empty) {
            return;
        }
        let table = &self.table;
        thread::scope(|scope| {
            let threads: Vec<_> = (self.players.iter_mut().zip(parts.iter_mut()))
                .map(|(player, part)| {
                    let part = std::mem::take(part);
                    scope.spawn(move || part.into_iter().for_each(|op| player.step(table, op)))
                })
                .collect();
            // Each is joined by pthread_join: thread sanitizer does not see how a scope waits.
            for thread in threads {
                thread.join().expect("a thread that finds nothing amiss");
            }
        });
        self.check();
    }

    fn check(&self) {
        assert_eq!(
            self.table.allocator.validate(&ThreadCache::new()),
            0,
            "broken invariants"
        );
        let left = self.table.left();
        let mut all: Vec<Block> = left.clone();
        all.extend(self.players.iter().flat_map(|player| &player.own));
        all.sort_by_key(|block| block.address);
        for pair in all.windows(2) {
            let end = pair[0].address + pair[0].usable;
            assert!(end <= pair[1].address, "{pair:?} overlap");
        }
        if self.memory == Memory::Ample {
            assert_eq!(self.refused(), 0, "refused where there is memory");
        }
    }

    /// The process goes on as the fork child of one of its threads.
    fn fork(&mut self, thread: usize) {
        for (_, player) in self
            .players
            .iter_mut()
            .enumerate()
            .filter(|(n, _)| *n != thread)
        {
            player.be_born();
        }
        let local = &self.players[thread].local;
        let allocator = &self.table.allocator;
        if allocator.backend.os.fork() && thread.is_multiple_of(2) {
            assert_eq!(allocator.validate(local), 0); // By _Fork, which runs no handlers.
        } else {
            allocator.repair_after_fork(local);
        }
        self.check();
    }
}

fn thread_of(op: Op) -> usize {
    match op {
        Op::Malloc { thread, .. }
        | Op::Calloc { thread, .. }
        | Op::Aligned { thread, .. }
        | Op::Realloc { thread, .. }
        | Op::Free { thread, .. }
        | Op::Exit(thread)
        | Op::Birth(thread)
        | Op::Fork(thread)
        | Op::Reclaim(thread) => thread,
        Op::Clock(_) | Op::Foreign(_) | Op::ForeignBack => 0,
    }
}

impl Table {
    /// By tries alone: thread sanitizer does not see how std waits.
    fn left(&self) -> MutexGuard<'_, Vec<Block>> {
        loop {
            match self.left.try_lock() {
                Ok(left) => return left,
                Err(TryLockError::WouldBlock) => thread::yield_now(),
                Err(TryLockError::Poisoned(_)) => panic!("another thread found something amiss"),
            }
        }
    }

    /// Frees the block left longest, if there is one.
    fn free_left(&self, local: &ThreadCache) -> bool {
        let mut left = self.left();
        if left.is_empty() {
            return false;
        }
        let block = left.swap_remove(0);
        drop(left);
        self.free(local, block);
        true
    }

    fn free(&self, local: &ThreadCache, block: Block) {
        expect_pattern(block.address, block.usable, block.tag);
        self.allocator.free(local, block.address as *mut u8);
    }
}

impl Player {
    fn new() -> Player {
        Player {
            local: Box::new(ThreadCache::new()),
            forgotten: Vec::new(),
            own: Vec::new(),
            live: 0,
        }
    }

    fn be_born(&mut self) {
        let gone = std::mem::replace(&mut self.local, Box::new(ThreadCache::new()));
        self.forgotten.push(gone);
    }

    fn step(&mut self, table: &Table, op: Op) {
        let allocator = &table.allocator;
        match op {
            Op::Malloc { size, count, .. } => (0..count).for_each(|_| {
                if self.live + size <= LIVE_MOST {
                    self.enter(table, allocator.malloc(&*self.local, size), size);
                }
            }),
            Op::Calloc { size, .. } if self.live + size <= LIVE_MOST => {
                self.enter(table, allocator.calloc(&*self.local, 1, size), size);
            }
            Op::Aligned { size, shift, .. } if self.live + size.max(1 << shift) <= LIVE_MOST => {
                self.enter(
                    table,
                    allocator.aligned(&self.local, size, 1 << shift),
                    size,
                );
            }
            Op::Realloc { pick, size, .. } if self.live + size <= LIVE_MOST => {
                self.realloc(table, pick, size);
            }
            Op::Free { pick, count, .. } => {
                for i in 0..count {
                    // Every other one is anybody's.
                    let freed = i % 2 == pick % 2 && table.free_left(&self.local);
                    if !freed && !self.free(table, pick + i) {
                        break;
                    }
                }
            }
            Op::Exit(_) => allocator.exit_thread(&self.local),
            Op::Birth(_) => {
                allocator.exit_thread(&self.local);
                self.be_born();
            }
            Op::Clock(ms) => allocator.backend.os.advance_clock(ms),
            Op::Reclaim(_) => allocator.reclaim(&self.local),
            _ => {}
        }
    }

    fn free(&mut self, table: &Table, pick: usize) -> bool {
        if self.own.is_empty() {
            return false;
        }
        let block = self.own.swap_remove(pick % self.own.len());
        self.live -= block.usable;
        table.free(&self.local, block);
        true
    }

    fn realloc(&mut self, table: &Table, pick: usize, size: usize) {
        if self.own.is_empty() {
            return;
        }
        let old = self.own.swap_remove(pick % self.own.len());
        self.live -= old.usable;
        let moved = table
            .allocator
            .realloc(&self.local, old.address as *mut u8, size);
        if moved.is_null() {
            table.refused.fetch_add(1, Relaxed);
            expect_pattern(old.address, old.usable, old.tag);
            self.live += old.usable;
            return self.own.push(old);
        }
        expect_pattern(moved as usize, old.usable.min(size), old.tag);
        self.enter(table, moved, size);
    }

    fn enter(&mut self, table: &Table, block: *mut u8, size: usize) {
        if block.is_null() {
            table.refused.fetch_add(1, Relaxed);
            return;
        }
        let usable = table.allocator.usable_size(&self.local, block);
        assert!(usable >= size, "{usable} bytes usable of {size}");
        let tag = 1 + table.tags.fetch_add(1, Relaxed);
        let address = block as usize;
        write_pattern(address, usable, tag);
        let block = Block {
            address,
            usable,
            tag,
        };
        if tag.is_multiple_of(3) {
            table.left().push(block);
        } else {
            self.live += usable;
            self.own.push(block);
        }
    }
}

//! The samples of the heap profile: which blocks are some that were chosen, and the stacks of who asked for them.
//!
//! ```text
//!   lists, by slab and word    samples, 4 KiB each
//!   | 0 | 7 | 0 | 3 | ...      | number | block | size, interval | registers | stack as it was ...
//!         `---------> 7 --next--> 12 --next--> 0
//! ```
//!
//! free knows nothing of samples. A sample whose slot is live in its slab's bitmap is live. It ends when its slot is
//! handed out again, or its slab is released. A large block's sample ends with the block.
//!
//! Of the stack the raw bytes are kept, and unwound by who reads them from outside: nothing is loaded, no lock of the
//! dynamic linker's is taken and nothing is allocated. A sample that ended keeps its place for a while ([`SPARE`]), for a
//! reader who wants all that were taken.
//!
//! One lock guards the lists and the places. Nothing else is locked under it, and it is never held over a system call:
//! who opens memory for more places holds another one, which is taken before.

use crate::arch::{self, registers, REGISTERS};
use crate::meta::{Area, Meta, Supply, PROFILE_SHIFT, SAMPLE_BYTES, SAMPLE_LISTS_SHIFT};
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::options::PROFILE_MOST;
use crate::os::Os;
use crate::owner::{Owner, RELEASED};
use crate::slab::{SlabPtr, SlabTable, SAMPLED};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::units::{align_down, SlabId, Slot, PAGE, PAGE_SHIFT, PAIR_WORDS};
use core::cell::UnsafeCell;
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::fence;

/// Samples that have ended keep their places while fewer than so many have.
pub const SPARE: u32 = 256;
/// The most samples in a second: with more, the interval is doubled.
pub const MOST_A_SECOND: u32 = 10_000;
/// How often the interval may be doubled.
const MOST_DOUBLED: u32 = 30;
/// The most bytes of stack in a sample.
pub const STACK_BYTES: usize = SAMPLE_BYTES - crate::layout::sample::STACK;
/// What a block's address is combined with, to know a copy of the stack by.
const MARK: u64 = 0x5bd1_e995_9d1b_54a3;
/// The bits of the header's word that are the interval.
const INTERVAL: u64 = (1 << PROFILE_SHIFT) - 1;

/// A sample. A reader outside finds a whole one where `number` is not 0, and the same before and after it read.
#[repr(C)]
pub struct Sample {
    /// Samples are numbered in the order in which they were taken, from 1 on. 0 means none, or one that is being
    /// written.
    pub number: AtomicU64,
    /// Address of its block.
    pub address: AtomicUsize,
    /// Bytes of the block when it was taken.
    pub size: AtomicU64,
    /// The interval that it was drawn with, in bytes.
    pub interval: AtomicU64,
    /// Milliseconds of the monotonic clock when it was taken.
    pub time: AtomicU64,
    /// Owner word of the heap that handed the block out.
    pub owner: AtomicU64,
    /// The profile that it belongs to: how often one was begun.
    pub begun: AtomicU32,
    /// Non-zero once it has ended.
    pub ended: AtomicU32,
    /// Number of its slab's header. 0 means that it is a large block.
    pub slab: AtomicU32,
    /// Number of the slot.
    pub slot: AtomicU32,
    /// The next one in its list, or of those that ended. 0 means none.
    next: AtomicU32,
    /// Bytes of stack behind the stack pointer that were kept.
    pub stack_bytes: AtomicU32,
    /// The registers, as [`registers`] tells them.
    pub registers: [AtomicUsize; REGISTERS],
    _unused: [u64; 7],
    /// The stack from the stack pointer on.
    pub stack: UnsafeCell<[u8; STACK_BYTES]>,
}

static_assertions::const_assert_eq!(core::mem::size_of::<Sample>(), SAMPLE_BYTES);
const _: () = {
    use crate::layout::sample as layout;
    use core::mem::offset_of;
    static_assertions::const_assert_eq!(offset_of!(Sample, number), layout::NUMBER);
    static_assertions::const_assert_eq!(offset_of!(Sample, address), layout::ADDRESS);
    static_assertions::const_assert_eq!(offset_of!(Sample, size), layout::SIZE);
    static_assertions::const_assert_eq!(offset_of!(Sample, interval), layout::INTERVAL);
    static_assertions::const_assert_eq!(offset_of!(Sample, time), layout::TIME);
    static_assertions::const_assert_eq!(offset_of!(Sample, owner), layout::OWNER);
    static_assertions::const_assert_eq!(offset_of!(Sample, begun), layout::BEGUN);
    static_assertions::const_assert_eq!(offset_of!(Sample, ended), layout::ENDED);
    static_assertions::const_assert_eq!(offset_of!(Sample, slab), layout::SLAB);
    static_assertions::const_assert_eq!(offset_of!(Sample, stack_bytes), layout::STACK_BYTES);
    static_assertions::const_assert_eq!(offset_of!(Sample, registers), layout::REGISTERS);
    static_assertions::const_assert_eq!(offset_of!(Sample, stack), layout::STACK);
};

/// Where a sampled block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this slot of this slab.
    Slot(SlabId, Slot),
    /// It is a large block.
    Large,
}

/// A sample that is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Where the block lies.
    pub place: Place,
    /// Its address.
    pub address: usize,
    /// Its bytes.
    pub size: usize,
    /// The interval that it was drawn with.
    pub interval: u64,
    /// Owner word of the heap that hands it out.
    pub owner: Owner,
}

/// Bytes of the areas that are open.
#[derive(Clone, Copy)]
struct Opened {
    places: usize,
    lists: usize,
}

struct Inner {
    opened: Opened,
    /// The number behind the last place used. The first stands for none.
    made: u32,
    /// Places of samples that have ended: the one that did longest ago, the last one, and how many.
    first: u32,
    last: u32,
    ended: u32,
    /// The profile that the samples belong to.
    begun: u32,
    /// When the present second began, in milliseconds, and the samples since.
    second: u64,
    in_second: u32,
    /// How often the interval is doubled for their sake.
    doubled: u32,
}

/// The samples of the process.
pub struct Profile {
    inner: Mutex<Inner>,
    /// Held while memory is opened.
    opening: Mutex<()>,
    /// Samples in the lists: none is to be looked for while it is 0.
    listed: AtomicU32,
}

/// The list in which the samples of a word of a slab are.
fn list_of_word(slab: SlabId, word: usize) -> usize {
    hash(u64::from(slab.0) * PAIR_WORDS as u64 + word as u64)
}

/// The list in which the sample of the large block at `address` is.
fn list_of_large(address: usize) -> usize {
    hash(!((address >> PAGE_SHIFT) as u64))
}

/// Fibonacci hashing (Knuth, TAOCP 3, 6.4).
fn hash(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SAMPLE_LISTS_SHIFT)) as usize
}

impl Sample {
    fn list(&self) -> usize {
        match self.slab.load(Relaxed) {
            0 => list_of_large(self.address.load(Relaxed)),
            slab => list_of_word(SlabId(slab), self.slot().word()),
        }
    }

    /// The slot that it is, if it is one.
    #[inline]
    pub fn slot(&self) -> Slot {
        Slot::new(self.slot.load(Relaxed) as usize)
    }

    /// Whether it is one of the slots `bits` of a word of a slab.
    fn is_among(&self, slab: SlabId, word: usize, bits: u64) -> bool {
        let slot = self.slot();
        self.slab.load(Relaxed) == slab.0 && slot.word() == word && bits & slot.bit() != 0
    }

    fn is_large_at(&self, address: usize) -> bool {
        self.slab.load(Relaxed) == 0 && self.address.load(Relaxed) == address
    }
}

impl Profile {
    /// No samples.
    pub const fn new(locks: &mut Registry) -> Profile {
        let inner = Inner {
            opened: Opened {
                places: 0,
                lists: 0,
            },
            made: 1,
            first: 0,
            last: 0,
            ended: 0,
            begun: 0,
            second: 0,
            in_second: 0,
            doubled: 0,
        };
        Profile {
            inner: Mutex::new(locks, inner),
            opening: Mutex::new(locks, ()),
            listed: AtomicU32::new(0),
        }
    }

    /// Takes samples from now on every `interval` bytes on average, 0: none. The interval before. The heaps learn of it
    /// in time.
    pub fn set(&self, meta: &Meta, interval: usize) -> usize {
        let word = &meta.header().profile;
        let interval = interval.min(PROFILE_MOST) as u64;
        let mut before = word.load(Relaxed);
        loop {
            let begins = before & INTERVAL == 0 && interval != 0;
            let begun = (before >> PROFILE_SHIFT) + u64::from(begins);
            let now = begun << PROFILE_SHIFT | interval;
            match word.compare_exchange(before, now, AcqRel, Relaxed) {
                Ok(_) => {
                    if begins {
                        meta.header().samples_doubled.store(0, Relaxed);
                    }
                    return (before & INTERVAL) as usize;
                }
                Err(other) => before = other,
            }
        }
    }

    /// The interval at present, in bytes. 0 means no samples are taken.
    #[inline]
    pub fn interval(&self, meta: &Meta) -> u64 {
        let header = meta.header();
        let interval = header.profile.load(Relaxed) & INTERVAL;
        let doubled = header.samples_doubled.load(Relaxed).min(MOST_DOUBLED);
        if interval > PROFILE_MOST as u64 >> doubled {
            return PROFILE_MOST as u64; // it would not be exact, or no number of bytes at all
        }
        interval << doubled
    }

    /// The sample numbered by its place.
    fn at<'a>(&self, meta: &'a Meta, index: u32) -> &'a Sample {
        let start = meta.start::<u8>(Area::Samples);
        // SAFETY: `index` was made, so its memory is open; zero is a valid sample; never unmapped.
        unsafe {
            start
                .byte_add(index as usize * SAMPLE_BYTES)
                .cast::<Sample>()
                .as_ref()
        }
    }

    /// The first sample of a list. Some sample is listed.
    fn head<'a>(&self, meta: &'a Meta, list: usize) -> &'a AtomicU32 {
        let start = meta.start::<AtomicU32>(Area::SampleIndex);
        // SAFETY: opened before the first sample was listed. `list` is one of as many as the area has.
        unsafe { start.add(list).as_ref() }
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.inner.as_lock());
        visit(self.opening.as_lock());
    }

    // ---- taking samples -------------------------------------------------------------------------

    /// Takes a sample. Where there is no place for it, it is counted as lost.
    #[inline(never)]
    pub fn take<O: Os>(&self, supply: Supply<O>, taken: &Taken) {
        let registers = registers();
        // Its address lies at or above the stack pointer, which is this function's.
        let mark = AtomicU64::new(taken.address as u64 ^ MARK);
        let Some(index) = self.find_place(supply) else {
            supply.meta.header().samples_lost.fetch_add(1, Relaxed);
            return;
        };
        let sample = self.at(supply.meta, index);
        sample.number.store(0, Relaxed);
        fence(Release);
        let (slab, slot) = match taken.place {
            Place::Slot(slab, slot) => (slab.0, slot),
            Place::Large => (0, Slot::FIRST),
        };
        sample.address.store(taken.address, Relaxed);
        sample.size.store(taken.size as u64, Relaxed);
        sample.interval.store(taken.interval, Relaxed);
        sample.time.store(supply.os.clock(), Relaxed);
        sample.owner.store(taken.owner.word(), Relaxed);
        let begun = supply.meta.header().profile.load(Relaxed) >> PROFILE_SHIFT;
        sample.begun.store(begun as u32, Relaxed);
        sample.slab.store(slab, Relaxed);
        sample.slot.store(slot.index() as u32, Relaxed);
        for (to, from) in sample.registers.iter().zip(registers) {
            to.store(from, Relaxed);
        }
        // SAFETY: `find_place` gave the place to this thread alone until it is listed, and it has room for the stack.
        let bytes = unsafe {
            copy_stack(
                supply.os,
                supply.meta,
                registers[1],
                sample.stack.get().cast(),
                black_box(&mark),
            )
        };
        sample.stack_bytes.store(bytes as u32, Relaxed);
        sample.ended.store(0, Relaxed);
        self.list(supply.meta, index, sample);
    }

    /// A place for one more sample.
    fn find_place<O: Os>(&self, supply: Supply<O>) -> Option<u32> {
        self.begin_sample(supply.meta, supply.os.clock());
        loop {
            {
                let inner = &mut *self.inner.lock();
                let ended = inner.ended >= SPARE;
                let place = ended.then(|| self.reuse(supply.meta, inner)).flatten();
                if let Some(place) = place.or_else(|| inner.take_place(supply.meta)) {
                    return Some(place);
                }
            }
            if !self.open_place(supply) {
                return self.reuse(supply.meta, &mut self.inner.lock());
            }
        }
    }

    /// One more sample is to be taken: how often the interval is doubled from now on. Where it is the first of another
    /// profile, those of the one before end.
    fn begin_sample(&self, meta: &Meta, now: u64) {
        let inner = &mut *self.inner.lock();
        let begun = (meta.header().profile.load(Relaxed) >> PROFILE_SHIFT) as u32;
        if inner.begun != begun {
            inner.begun = begun;
            (inner.doubled, inner.in_second) = (0, 0);
            self.end_all(meta, inner);
        }
        inner.pace(now);
        let doubled = (inner.doubled + self.crowding(meta)).min(MOST_DOUBLED);
        meta.header().samples_doubled.store(doubled, Relaxed);
    }

    /// How often the interval is to be doubled since places run out: once where a half of them is taken, twice where three
    /// quarters are, and so on.
    fn crowding(&self, meta: &Meta) -> u32 {
        let places = meta.plan().samples as u32;
        let free = places.saturating_sub(self.listed.load(Relaxed) + SPARE.min(places / 4));
        (places / free.max(1)).max(1).ilog2()
    }

    /// The place of the sample that ended longest ago.
    fn reuse(&self, meta: &Meta, inner: &mut Inner) -> Option<u32> {
        if inner.ended == 0 {
            return None;
        }
        let index = inner.first;
        inner.first = self.at(meta, index).next.load(Relaxed);
        inner.ended -= 1;
        Some(index)
    }

    /// Opens memory for one more place, and the lists, unless another thread has just done so.
    fn open_place<O: Os>(&self, supply: Supply<O>) -> bool {
        let _opening = self.opening.lock();
        let (mut opened, end) = {
            let inner = self.inner.lock();
            (inner.opened, inner.end_of_next())
        };
        let (os, meta) = (supply.os, supply.meta);
        let lists = meta.extent(Area::SampleIndex).bytes;
        let done = meta.open_to(os, Area::SampleIndex, &mut opened.lists, lists)
            && meta.open_to(os, Area::Samples, &mut opened.places, end);
        self.inner.lock().opened = opened;
        done
    }

    /// Whether nobody holds the lock of the lists and the places, which is never held over a system call.
    pub fn lists_lock_is_free(&self) -> bool {
        !self.inner.as_lock().is_held()
    }

    /// Puts a sample into its list, and gives it its number.
    fn list(&self, meta: &Meta, index: u32, sample: &Sample) {
        let _inner = self.inner.lock();
        let number = meta.header().samples_taken.fetch_add(1, Relaxed) + 1;
        sample.number.store(number, Release);
        let head = self.head(meta, sample.list());
        sample.next.store(head.load(Relaxed), Relaxed);
        head.store(index, Release);
        self.listed.fetch_add(1, Relaxed);
    }

    // ---- their end ------------------------------------------------------------------------------

    /// Whether any of the slots `bits` of a word of `slab` is a sample. It may be told so where another thread is at work
    /// on the lists: then the long way finds out. Asked by the slab's owner, who alone makes samples in it.
    #[inline]
    pub fn holds(&self, meta: &Meta, slab: SlabPtr, word: usize, bits: u64) -> bool {
        self.listed.load(Relaxed) != 0 && self.is_listed(meta, slab.id(), word, bits)
    }

    /// Whether any slot of `slab` is a sample. By its owner, by the long way.
    pub fn holds_any(&self, meta: &Meta, slab: SlabPtr) -> bool {
        if self.listed.load(Relaxed) == 0 {
            return false;
        }
        let _inner = self.inner.lock();
        (0..slab.words()).any(|word| {
            self.in_list(meta, list_of_word(slab.id(), word))
                .any(|(_, sample)| sample.is_among(slab.id(), word, u64::MAX))
        })
    }

    fn is_listed(&self, meta: &Meta, slab: SlabId, word: usize, bits: u64) -> bool {
        let list = list_of_word(slab, word);
        if self.head(meta, list).load(Relaxed) == 0 {
            return false;
        }
        // Not waited for: in a fork child that was not told yet a thread may hold it that is gone.
        let Some(_inner) = self.inner.try_lock() else {
            return true;
        };
        self.in_list(meta, list)
            .any(|(_, sample)| sample.is_among(slab, word, bits))
    }

    /// The samples of a list, under the lock.
    fn in_list<'a>(
        &'a self,
        meta: &'a Meta,
        list: usize,
    ) -> impl Iterator<Item = (u32, &'a Sample)> {
        let first = self.head(meta, list).load(Relaxed);
        let named = move |index| (index != 0).then(|| (index, self.at(meta, index)));
        core::iter::successors(named(first), move |(_, sample)| {
            named(sample.next.load(Relaxed))
        })
    }

    /// The slots `bits` of a word of `slab` are handed out again: samples among them end.
    pub fn end(&self, meta: &Meta, slab: SlabPtr, word: usize, bits: u64) {
        if self.listed.load(Relaxed) != 0 {
            self.end_listed(meta, list_of_word(slab.id(), word), |sample| {
                sample.is_among(slab.id(), word, bits)
            });
        }
    }

    /// The slab is released: all samples in it end.
    #[inline]
    pub fn end_slab(&self, meta: &Meta, slab: SlabPtr) {
        if self.listed.load(Relaxed) != 0 {
            for word in 0..slab.words() {
                self.end(meta, slab, word, u64::MAX);
            }
        }
    }

    /// No large block lives at `address`, or another one: its sample ends.
    #[inline]
    pub fn end_large(&self, meta: &Meta, address: usize) {
        self.end_large_up_to(meta, address, u64::MAX);
    }

    /// The same where a block has left `address` already: a sample that another thread has taken there since stays. `taken`
    /// is what [`Profile::taken`] said before.
    #[inline]
    pub fn end_large_up_to(&self, meta: &Meta, address: usize, taken: u64) {
        if self.listed.load(Relaxed) != 0 {
            self.end_listed(meta, list_of_large(address), |sample| {
                sample.is_large_at(address) && sample.number.load(Relaxed) <= taken
            });
        }
    }

    /// Whether some sample may end.
    #[inline]
    pub fn lists_some(&self) -> bool {
        self.listed.load(Relaxed) != 0
    }

    /// Whether no sample is to be taken and none may end.
    #[inline]
    pub fn is_idle(&self, meta: &Meta) -> bool {
        let interval = meta.header().profile.load(Relaxed) & INTERVAL;
        interval == 0 && self.listed.load(Relaxed) == 0
    }

    /// How many samples were taken so far: the number of the last one.
    #[inline]
    pub fn taken(&self, meta: &Meta) -> u64 {
        meta.header().samples_taken.load(Relaxed)
    }

    /// Ends the samples of a list that are meant.
    fn end_listed(&self, meta: &Meta, list: usize, is_meant: impl Fn(&Sample) -> bool) {
        if self.head(meta, list).load(Acquire) == 0 {
            return;
        }
        let inner = &mut *self.inner.lock();
        let mut link = self.head(meta, list);
        loop {
            let index = link.load(Relaxed);
            if index == 0 {
                return;
            }
            let sample = self.at(meta, index);
            if is_meant(sample) {
                link.store(sample.next.load(Relaxed), Relaxed);
                self.listed.fetch_sub(1, Relaxed);
                self.put_away(meta, inner, index);
            } else {
                link = &sample.next;
            }
        }
    }

    /// Notes that the sample at `index`, in no list, has ended.
    fn put_away(&self, meta: &Meta, inner: &mut Inner, index: u32) {
        let sample = self.at(meta, index);
        sample.ended.store(1, Relaxed);
        sample.next.store(0, Relaxed);
        if inner.ended == 0 {
            inner.first = index;
        } else {
            self.at(meta, inner.last).next.store(index, Relaxed);
        }
        inner.last = index;
        inner.ended += 1;
    }

    /// Another profile begins: the samples of the one before end. Heaps did not look for them in between.
    fn end_all(&self, meta: &Meta, inner: &mut Inner) {
        if inner.opened.lists == 0 {
            return;
        }
        for list in 0..1 << SAMPLE_LISTS_SHIFT {
            let head = self.head(meta, list);
            while head.load(Relaxed) != 0 {
                let index = head.load(Relaxed);
                head.store(self.at(meta, index).next.load(Relaxed), Relaxed);
                self.put_away(meta, inner, index);
            }
        }
        self.listed.store(0, Relaxed);
    }

    // ---- fork, and checking ---------------------------------------------------------------------

    /// In a fork child, after the locks were made free: lists all samples anew that are whole and have not ended. A thread
    /// that is gone may have been about to end some of a slab that it had let go of.
    pub fn rebuild(&self, meta: &Meta, table: SlabTable) {
        let inner = &mut *self.inner.lock();
        if inner.opened.lists == 0 {
            return;
        }
        // A thread that is gone may have made the last one and not said so.
        inner.made = inner.made.max(meta.header().samples_made.load(Relaxed));
        for list in 0..1 << SAMPLE_LISTS_SHIFT {
            self.head(meta, list).store(0, Relaxed);
        }
        (inner.ended, inner.first, inner.last) = (0, 0, 0);
        let mut listed = 0;
        for index in 1..inner.made {
            let sample = self.at(meta, index);
            let is_whole = sample.number.load(Relaxed) != 0 && sample.ended.load(Relaxed) == 0;
            if !is_whole || !is_at_its_place(sample, table) {
                self.put_away(meta, inner, index);
                continue;
            }
            let head = self.head(meta, sample.list());
            sample.next.store(head.load(Relaxed), Relaxed);
            head.store(index, Relaxed);
            listed += 1;
        }
        self.listed.store(listed, Relaxed);
    }

    /// Shows the samples that have not ended, while nobody is at work: their blocks may have been freed.
    pub fn each_listed(&self, meta: &Meta, mut visit: impl FnMut(&Sample)) {
        let made = self.inner.lock().made;
        for index in 1..made {
            let sample = self.at(meta, index);
            if sample.number.load(Relaxed) != 0 && sample.ended.load(Relaxed) == 0 {
                visit(sample);
            }
        }
    }

    /// Number of samples that are not as they should be, while nobody is at work.
    pub fn validate(&self, meta: &Meta, table: SlabTable) -> usize {
        let inner = self.inner.lock();
        if inner.opened.lists == 0 {
            return usize::from(self.listed.load(Relaxed) != 0);
        }
        let taken = meta.header().samples_taken.load(Relaxed);
        let (mut wrong, mut listed) = (0, 0);
        for index in 1..inner.made {
            let sample = self.at(meta, index);
            if sample.ended.load(Relaxed) != 0 {
                continue;
            }
            listed += 1;
            let numbered = (1..=taken).contains(&sample.number.load(Relaxed));
            let mut list = self.in_list(meta, sample.list());
            let is_found = list.any(|(at, _)| at == index);
            wrong += usize::from(!numbered || !is_found || !is_at_its_place(sample, table));
        }
        wrong += usize::from(listed != self.listed.load(Relaxed));
        wrong + usize::from(listed + self.count_ended(meta, &inner) + 1 != inner.made)
    }

    fn count_ended(&self, meta: &Meta, inner: &Guard<'_, Inner>) -> u32 {
        let mut index = inner.first;
        for count in 0..inner.ended {
            if index == 0 || self.at(meta, index).ended.load(Relaxed) == 0 {
                return count;
            }
            index = self.at(meta, index).next.load(Relaxed);
        }
        inner.ended
    }
}

/// Whether the slot of `sample`, if it has one, lies where it says in a slab that was not released.
fn is_at_its_place(sample: &Sample, table: SlabTable) -> bool {
    let id = SlabId(sample.slab.load(Relaxed));
    if !id.is_some() {
        return true;
    }
    let (slab, slot) = (table.get(id), sample.slot());
    slab.owner.load(Relaxed) != RELEASED
        && slab.has(SAMPLED)
        && slab.holds(slot)
        && sample.address.load(Relaxed) == slab.address(slot)
}

impl Inner {
    /// Bytes of the places up to the end of the first one that was never used.
    fn end_of_next(&self) -> usize {
        (self.made as usize + 1) * SAMPLE_BYTES
    }

    /// A place that was never used, if one is open.
    fn take_place(&mut self, meta: &Meta) -> Option<u32> {
        let lists = meta.extent(Area::SampleIndex).bytes;
        if self.opened.lists < lists || self.opened.places < self.end_of_next() {
            return None;
        }
        let index = self.made;
        self.made += 1;
        meta.header().samples_made.store(self.made, Relaxed);
        Some(index)
    }

    /// One more sample: where there are too many in a second the interval is doubled, where there are few it is halved.
    fn pace(&mut self, now: u64) {
        if now.saturating_sub(self.second) >= 1000 {
            if self.in_second < MOST_A_SECOND / 4 {
                self.doubled = self.doubled.saturating_sub(1);
            }
            (self.second, self.in_second) = (now, 0);
        }
        self.in_second += 1;
        if self.in_second > MOST_A_SECOND {
            self.doubled = (self.doubled + 1).min(MOST_DOUBLED);
            (self.second, self.in_second) = (now, 0);
        }
    }
}

/// Copies the calling thread's stack from `from` on, as far as there is any: how many bytes. `mark` is a word of it.
///
/// # Safety
/// [`STACK_BYTES`] bytes at `to` are the caller's. `from` is the stack pointer of a function that has not returned, or 0.
unsafe fn copy_stack<O: Os>(
    os: &O,
    meta: &Meta,
    from: usize,
    to: *mut u8,
    mark: &AtomicU64,
) -> usize {
    if from == 0 {
        return 0;
    }
    let process = meta.header().pid.load(Relaxed);
    // SAFETY: the caller owns the bytes at `to`, and guarantees that there are as many.
    let copied = unsafe { os.copy_own(process, from, to, STACK_BYTES) };
    let offset = (ptr::from_ref(mark) as usize).wrapping_sub(from);
    // In a fork child that was told nothing the number is the parent's, and so is what was read.
    let is_ours = offset < copied.saturating_sub(8) && {
        // SAFETY: the word lies within the bytes that were copied to `to` just now.
        let word = unsafe { to.add(offset).cast::<u64>().read_unaligned() };
        word == mark.load(Relaxed)
    };
    if is_ours {
        return copied;
    }
    // The page of the stack pointer is there in any case.
    let bytes = (align_down(from, PAGE) + PAGE - from).min(STACK_BYTES);
    // SAFETY: on the page of the stack that the caller's frame lies on. `to` has as many bytes.
    unsafe { arch::copy_stack(from, to, bytes) };
    bytes
}

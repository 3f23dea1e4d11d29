//! The heap profile: samples that the allocator took, with the stacks of who allocated, and sums made of them.
//!
//! A block of `size` bytes was sampled with a probability of `1 - exp(-size / interval)`, so a sample stands for the
//! inverse of that. Live blocks being counted exactly by class, the samples of each class are scaled to its exact sum.
//! Where more is live than the samples of a class can stand for, it was allocated before the profile began.

use crate::model::Heap;
use crate::region::{Profile as Stated, Region};
use crate::source::{Source, Span};
use crate::symbols::{is_allocators, LIBRARY};
use crate::unwind::{short, Frame, Unwinder};
use crate::{Error, Result};
use nix::sys::uio::{process_vm_writev, RemoteIoVec};
use nix::unistd::Pid;
use slabside::layout::{offset, sample as field};
use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;

/// Standard errors by which a sum of samples may differ from the exact one before another reason is looked for.
const ERRORS: f64 = 5.0;

/// A class of blocks whose exact sum is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Slots of so many bytes.
    Slots(u64),
    /// Spans.
    Spans,
    /// Large blocks.
    Large,
}

/// A sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its number: samples are numbered in the order in which they were taken.
    pub number: u64,
    /// Address of the block.
    pub address: u64,
    /// Bytes of the block when it was allocated.
    pub size: u64,
    /// The interval that it was drawn with.
    pub interval: u64,
    /// Milliseconds of the monotonic clock when it was taken.
    pub time: u64,
    /// The class of the block and its bytes now, if it is live.
    pub live: Option<(Class, u64)>,
    /// Registers, in the layout's order.
    pub registers: [u64; 8],
    /// The stack from the stack pointer on.
    pub stack: Vec<u8>,
}

impl Sample {
    /// How many blocks of its size it stands for.
    pub fn weight(&self) -> f64 {
        let part = self.size as f64 / self.interval as f64;
        -1.0 / (-part).exp_m1()
    }
}

/// The samples of the present profile of `heap`, those that have ended among them as far as they are still there, by
/// number. One that was written anew while it was read is left out.
pub fn samples(source: &dyn Source, heap: &Heap) -> Vec<Sample> {
    let stated = &heap.region.profile;
    let mut found = Vec::new();
    let mut bytes = vec![0; field::BYTES];
    for index in 1..stated.made {
        let at = stated.samples.start + index * field::BYTES as u64;
        if !source.read(at, &mut bytes) {
            continue;
        }
        let number = source.word(at + field::NUMBER as u64);
        let sample = parse(heap, stated, &bytes);
        found.extend(sample.filter(|sample| Some(sample.number) == number));
    }
    found.sort_by_key(|sample| sample.number);
    found
}

fn parse(heap: &Heap, stated: &Stated, bytes: &[u8]) -> Option<Sample> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let number = word(field::NUMBER).filter(|&number| number != 0)?;
    let (address, size) = (word(field::ADDRESS)?, word(field::SIZE)?);
    let interval = word(field::INTERVAL)?;
    if half(field::BEGUN)? != stated.begun || size == 0 || interval == 0 {
        return None;
    }
    let end = field::STACK + half(field::STACK_BYTES)? as usize;
    let mut registers = [0; 8];
    for (index, register) in registers.iter_mut().enumerate() {
        *register = word(field::REGISTERS + 8 * index)?;
    }
    let live = if half(field::ENDED)? == 0 {
        live(heap, address)
    } else {
        None
    };
    Some(Sample {
        number,
        address,
        size,
        interval,
        time: word(field::TIME)?,
        live,
        registers,
        stack: bytes.get(field::STACK..end)?.to_vec(),
    })
}

/// The class and the bytes of the live block that begins at `address`.
fn live(heap: &Heap, address: u64) -> Option<(Class, u64)> {
    if let Some(slab) = heap.slab_at(address).filter(|slab| !slab.is_kept()) {
        let slot = slab.slot_at(address);
        let begins = slot < slab.slots && slab.address(slot) == address;
        let class = class_of(slab.is_span, slab.size);
        let is_live = begins && heap.bits(slab).is_live(slot as usize);
        return is_live.then_some((class, slab.size));
    }
    let large = heap.large_at(address)?;
    let begins = !large.stray && large.span.start == address;
    begins.then(|| (Class::Large, large.span.bytes()))
}

fn class_of(is_span: bool, size: u64) -> Class {
    if is_span {
        Class::Spans
    } else {
        Class::Slots(size)
    }
}

/// What is live in each class: blocks and bytes.
fn exact(heap: &Heap) -> BTreeMap<Class, (f64, f64)> {
    let mut sums: BTreeMap<Class, (f64, f64)> = BTreeMap::new();
    let mut add = |class, count: u64, bytes: u64| {
        let sum = sums.entry(class).or_default();
        *sum = (sum.0 + count as f64, sum.1 + bytes as f64);
    };
    for slab in heap.slabs.iter().filter(|slab| slab.live > 0) {
        let live = u64::from(slab.live);
        add(class_of(slab.is_span, slab.size), live, live * slab.size);
    }
    for large in heap.large.iter().filter(|large| !large.stray) {
        add(Class::Large, 1, large.span.bytes());
    }
    sums
}

/// Which samples are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is live, scaled to the exact sums.
    Live,
    /// What was allocated after the sample of this number, live or not. Scaled to so many bytes.
    Allocated {
        /// The last sample before.
        after: u64,
        /// The bytes that were handed out since, as the allocator counted them.
        bytes: u64,
    },
    /// What was allocated after the sample of this number, and is live.
    Grown {
        /// The last sample before.
        after: u64,
    },
}

/// A stack and what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The functions, innermost first. Those of the allocator are left out.
    pub stack: Vec<Frame>,
    /// Blocks.
    pub count: f64,
    /// Bytes.
    pub bytes: f64,
    /// How many samples there are.
    pub samples: u64,
}

/// Sums by stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The stacks, those of the most bytes first.
    pub rows: Vec<Row>,
    /// All blocks.
    pub count: f64,
    /// All bytes.
    pub bytes: f64,
    /// How many samples there are.
    pub samples: u64,
}

/// Blocks, bytes, samples.
type Sum = (f64, f64, u64);

/// What a class's samples stand for before they are scaled, and the variance of that, in bytes.
#[derive(Default)]
struct Estimate {
    count: f64,
    bytes: f64,
    variance: f64,
}

/// The sums by stack of `samples`, which are of `heap`.
pub fn sums(
    source: &dyn Source,
    heap: &Heap,
    samples: &[Sample],
    kind: Kind,
    unwinder: &mut Unwinder,
) -> Sums {
    let mut stacks: HashMap<Vec<Frame>, Sum> = HashMap::new();
    let mut estimates: BTreeMap<Class, Estimate> = BTreeMap::new();
    let chosen: Vec<(&Sample, Class, f64)> = samples
        .iter()
        .filter_map(|sample| choose(sample, kind))
        .collect();
    for (sample, class, bytes) in &chosen {
        let estimate = estimates.entry(*class).or_default();
        let weight = sample.weight();
        estimate.count += weight;
        estimate.bytes += weight * bytes;
        // Of a sum of values divided by their probabilities: value^2 (1 - p) / p^2 for each sample.
        estimate.variance += bytes * bytes * weight * (weight - 1.0);
    }
    let scales = match kind {
        Kind::Live => scale_live(heap, &mut estimates, &mut stacks),
        Kind::Allocated { bytes, .. } => scale_all(&estimates, bytes as f64),
        Kind::Grown { .. } => HashMap::new(),
    };
    let mut known: HashMap<Vec<u64>, Vec<Frame>> = HashMap::new();
    for (sample, class, bytes) in chosen {
        let calls = unwinder.calls(&sample.registers, &sample.stack);
        let stack = known
            .entry(calls)
            .or_insert_with_key(|calls| named(source, calls, unwinder));
        let (count_scale, byte_scale) = scales.get(&class).copied().unwrap_or((1.0, 1.0));
        let weight = sample.weight();
        let sum = stacks.entry(stack.clone()).or_default();
        sum.0 += weight * count_scale;
        sum.1 += weight * bytes * byte_scale;
        sum.2 += 1;
    }
    let mut all = Sums::default();
    for (stack, (count, bytes, samples)) in stacks {
        all.count += count;
        all.bytes += bytes;
        all.samples += samples;
        all.rows.push(Row {
            stack,
            count,
            bytes,
            samples,
        });
    }
    all.rows.sort_by(|a, b| {
        b.bytes
            .total_cmp(&a.bytes)
            .then_with(|| names(a).cmp(&names(b)))
    });
    all
}

fn names(row: &Row) -> Vec<&str> {
    row.stack.iter().map(|frame| &*frame.function).collect()
}

/// The class and the bytes that a sample counts with, if it is one of those that are meant.
fn choose(sample: &Sample, kind: Kind) -> Option<(&Sample, Class, f64)> {
    let is_after = |after| sample.number > after;
    let (class, bytes) = match kind {
        Kind::Live => sample.live?,
        Kind::Grown { after } => sample.live.filter(|_| is_after(after))?,
        Kind::Allocated { after, .. } => is_after(after).then_some((Class::Large, sample.size))?,
    };
    Some((sample, class, bytes as f64))
}

/// By how much counts and bytes of each class are multiplied, so that the sums are the exact ones. What no sample stands
/// for is put aside in `stacks`.
fn scale_live(
    heap: &Heap,
    estimates: &mut BTreeMap<Class, Estimate>,
    stacks: &mut HashMap<Vec<Frame>, Sum>,
) -> HashMap<Class, (f64, f64)> {
    let exact = exact(heap);
    let interval = heap.region.profile.interval.max(1) as f64;
    let mut scales = HashMap::new();
    for (class, &(count, bytes)) in &exact {
        let estimate = estimates.remove(class).unwrap_or_default();
        let error = ERRORS * (estimate.variance + bytes * interval).sqrt();
        if estimate.count > 0.0 && (bytes - estimate.bytes) <= error {
            scales.insert(*class, (count / estimate.count, bytes / estimate.bytes));
            continue;
        }
        let what = match estimate.count > 0.0 || bytes > error {
            true => "(allocated before the profile began)",
            false => "(too few to be sampled)",
        };
        let frame = Frame {
            function: what.into(),
            ..Frame::default()
        };
        let sum = stacks.entry(vec![frame]).or_default();
        sum.0 += (count - estimate.count).max(0.0);
        sum.1 += bytes - estimate.bytes;
    }
    scales
}

/// The same of all together, to `bytes`, where they can stand for as much.
fn scale_all(estimates: &BTreeMap<Class, Estimate>, bytes: f64) -> HashMap<Class, (f64, f64)> {
    let sum: f64 = estimates.values().map(|estimate| estimate.bytes).sum();
    let variance: f64 = estimates.values().map(|estimate| estimate.variance).sum();
    if sum <= 0.0 || (bytes - sum).abs() > ERRORS * variance.sqrt() {
        return HashMap::new();
    }
    let scale = bytes / sum;
    estimates
        .keys()
        .map(|class| (*class, (scale, scale)))
        .collect()
}

/// The most functions of a stack: what files state of inlined calls may be anything.
const FRAMES: usize = 512;

/// The functions of a stack, without the allocator's own.
fn named(source: &dyn Source, calls: &[u64], unwinder: &mut Unwinder) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for &call in calls {
        all.extend_from_slice(unwinder.frames(source, call));
    }
    all.truncate(FRAMES);
    let inner = all.iter().take_while(|frame| is_ours(frame)).count();
    let mut stack = all.split_off(inner);
    if stack.is_empty() {
        stack.push(Frame {
            function: "(unknown)".into(),
            ..Frame::default()
        });
    }
    stack
}

/// Whether a function is the allocator's, or only stands between it and the program.
fn is_ours(frame: &Frame) -> bool {
    is_allocators(&frame.function) || short(&frame.module).starts_with(LIBRARY)
}

/// Has the process `pid` take a profile with a sample every `interval` bytes from now on, or none where that is 0. The
/// interval before.
pub fn switch(source: &dyn Source, region: &Region, pid: u32, interval: u64) -> Result<u64> {
    let name = source.name();
    let not_known = || Error::System {
        name: name.clone(),
        what: "cannot switch its heap profile",
        cause: std::io::Error::other("its slabside has none"),
    };
    if region.profile.samples.bytes() == 0 {
        return Err(not_known());
    }
    let at = region.base + offset::PROFILE as u64;
    let before = source.word(at).ok_or_else(not_known)?;
    let mask = (1u64 << field::PROFILE_SHIFT) - 1;
    let interval = interval.min(mask);
    let begins = before & mask == 0 && interval != 0;
    let begun = (before >> field::PROFILE_SHIFT) + u64::from(begins);
    let word = (begun << field::PROFILE_SHIFT | interval & mask).to_le_bytes();
    let remote = RemoteIoVec {
        base: at as usize,
        len: word.len(),
    };
    process_vm_writev(Pid::from_raw(pid as i32), &[IoSlice::new(&word)], &[remote]).map_err(
        |error| Error::System {
            name: source.name(),
            what: "cannot switch its heap profile",
            cause: error.into(),
        },
    )?;
    Ok(before & mask)
}

/// Where the samples of `region` lie.
pub fn place(region: &Region) -> Span {
    region.profile.samples
}

//! The heap profile: samples that the allocator took, with the stacks of who allocated, and sums made of them.
//!
//! A block of `size` bytes was sampled with a probability of `1 - exp(-size / interval)`, so a sample stands for the
//! inverse of that. Live blocks being counted exactly by class, the samples of each class are scaled to its exact sum.
//! Where more is live than the samples of a class can stand for, it was allocated before the profile began, or after it
//! was switched off.

use crate::model::Heap;
use crate::region::{Profile as Stated, Region};
use crate::source::{Source, Span};
use crate::symbols::{is_allocators, LIBRARY};
use crate::unwind::{short, Call, Frame, Stack, Unwinder};
use crate::{Error, Result};
use rustc_hash::FxHashMap;
use slabside_base::layout::{offset, sample as field};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Standard errors by which a sum of samples may differ from the exact one before another reason is looked for.
const ERRORS: f64 = 5.0;
/// The most by which sums are multiplied for samples that were missed: what half of all were may stand for the rest.
const SCALE_MOST: f64 = 2.0;

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
    /// Whether it has ended: another block may lie where its block did.
    pub ended: bool,
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
    let mut found = read(source, &heap.region.profile, 0);
    for sample in found.iter_mut().filter(|sample| !sample.ended) {
        sample.live = live(heap, sample.address);
    }
    found
}

/// The samples that `stated` tells of and whose numbers are above `after`, by number. Of their blocks nothing is known.
fn read(source: &dyn Source, stated: &Stated, after: u64) -> Vec<Sample> {
    let mut found = Vec::new();
    let mut bytes = vec![0; field::BYTES];
    for index in 1..stated.made {
        let at = stated.samples.start + index * field::BYTES as u64;
        let number = || source.word(at + field::NUMBER as u64);
        if number().is_none_or(|number| number <= after) || !source.read(at, &mut bytes) {
            continue;
        }
        let sample = parse(stated, &bytes);
        found.extend(sample.filter(|sample| Some(sample.number) == number()));
    }
    found.sort_by_key(|sample| sample.number);
    found
}

/// The samples of `region` that have not ended, by their blocks' addresses: of live blocks, and of such as were freed and
/// not handed out again. Empty where no profile was taken.
pub fn by_address(source: &dyn Source, region: &Region) -> HashMap<u64, Sample> {
    let region = region.again(source);
    let all = region.map_or(Vec::new(), |region| read(source, &region.profile, 0));
    let lasting = all.into_iter().filter(|sample| !sample.ended);
    lasting.map(|sample| (sample.address, sample)).collect()
}

fn parse(stated: &Stated, bytes: &[u8]) -> Option<Sample> {
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
    Some(Sample {
        number,
        address,
        size,
        interval,
        time: word(field::TIME)?,
        ended: half(field::ENDED)? != 0,
        live: None,
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
    pub stack: Stack,
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
/// What each stack stands for.
type Stacks = FxHashMap<Stack, Sum>;

/// What a class's samples stand for before they are scaled, and the variance of that, in bytes.
#[derive(Default)]
struct Estimate {
    count: f64,
    bytes: f64,
    variance: f64,
}

impl Estimate {
    fn add(&mut self, weight: f64, bytes: f64) {
        self.count += weight;
        self.bytes += weight * bytes;
        // Of a sum of values divided by their probabilities: value^2 (1 - p) / p^2 for each sample.
        self.variance += bytes * bytes * weight * (weight - 1.0);
    }
}

/// The sums by stack of `samples`, which are of `heap`.
pub fn sums(heap: &Heap, samples: &[Sample], kind: Kind, unwinder: &mut Unwinder) -> Sums {
    let mut stacks = Stacks::default();
    let mut estimates: BTreeMap<Class, Estimate> = BTreeMap::new();
    let chosen: Vec<(&Sample, Class, f64)> = samples
        .iter()
        .filter_map(|sample| choose(sample, kind))
        .collect();
    for (sample, class, bytes) in &chosen {
        let estimate = estimates.entry(*class).or_default();
        estimate.add(sample.weight(), *bytes);
    }
    let scales = match kind {
        Kind::Live => scale_live(heap, &mut estimates, &mut stacks),
        Kind::Grown { .. } => HashMap::new(),
    };
    for (sample, class, bytes) in chosen {
        let stack = unwinder.stack(sample);
        let (count_scale, byte_scale) = scales.get(&class).copied().unwrap_or((1.0, 1.0));
        let weight = sample.weight();
        let sum = stacks.entry(stack).or_default();
        sum.0 += weight * count_scale;
        sum.1 += weight * bytes * byte_scale;
        sum.2 += 1;
    }
    summed(stacks)
}

/// The sums of all `stacks`.
fn summed(stacks: Stacks) -> Sums {
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
    let (class, bytes) = match kind {
        Kind::Live => sample.live?,
        Kind::Grown { after } => sample.live.filter(|_| sample.number > after)?,
    };
    Some((sample, class, bytes as f64))
}

/// By how much counts and bytes of each class are multiplied, so that the sums are the exact ones. What no sample stands
/// for is put aside in `stacks`.
fn scale_live(
    heap: &Heap,
    estimates: &mut BTreeMap<Class, Estimate>,
    stacks: &mut Stacks,
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
            true => "(allocated while no profile was taken)",
            false => TOO_FEW,
        };
        let sum = stacks.entry(apart(what)).or_default();
        sum.0 += (count - estimate.count).max(0.0);
        sum.1 += bytes - estimate.bytes;
    }
    scales
}

/// In the place of the functions of what no sample stands for.
fn apart(what: &str) -> Stack {
    let frame = Frame {
        function: what.into(),
        ..Frame::default()
    };
    Stack::from([frame])
}

/// What was allocated while a process was watched, live or not, by stack. Grows with each look: samples that end soon are
/// written over by others.
#[derive(Default)]
pub struct Watched {
    /// Where the region lies, when it was made, and which of its profiles it is.
    of: (u64, u64, u32),
    /// Samples up to this number are not looked for any more.
    floor: u64,
    /// How many were taken at the last look, and before the first.
    taken: u64,
    begin: u64,
    /// The numbers above `floor` that were seen.
    seen: HashSet<u64>,
    /// By calls, as the unwinder counts what they are of.
    stacks: FxHashMap<Vec<Call>, Sum>,
    estimate: Estimate,
}

impl Watched {
    /// Nothing yet. What was allocated before counts too, as far as its samples are there.
    pub fn new() -> Watched {
        Watched::default()
    }

    /// Nothing yet. What was allocated before the sample numbered by `region` now does not count.
    pub fn from_now(region: &Region) -> Watched {
        let taken = region.profile.taken;
        Watched {
            of: identity(region),
            floor: taken,
            taken,
            begin: taken,
            ..Watched::default()
        }
    }

    /// Whether samples were taken since the last look at `region`, as it is now.
    pub fn is_behind(&self, region: &Region) -> bool {
        self.of != identity(region) || self.taken != region.profile.taken
    }

    /// Adds the samples that `region`, as it is now, has and had not before. Those of another program, or of a profile
    /// before, are forgotten. `unwinder` is the same at each look, and knows what is mapped now.
    pub fn look(&mut self, source: &dyn Source, region: &Region, unwinder: &mut Unwinder) {
        if self.of != identity(region) {
            *self = Watched {
                of: identity(region),
                ..Watched::default()
            };
        }
        for sample in read(source, &region.profile, self.floor) {
            if self.seen.insert(sample.number) {
                let (weight, bytes) = (sample.weight(), sample.size as f64);
                self.estimate.add(weight, bytes);
                // Their names take long to find, and samples end meanwhile.
                let sum = self.stacks.entry(unwinder.calls(&sample)).or_default();
                *sum = (sum.0 + weight, sum.1 + weight * bytes, sum.2 + 1);
            }
        }
        // One that was just about to be numbered is found by the next look.
        self.floor = self.taken;
        self.taken = region.profile.taken;
        let floor = self.floor;
        self.seen.retain(|&number| number > floor);
    }

    /// How many samples were written over before they were seen.
    pub fn missed(&self) -> u64 {
        let seen: u64 = self.stacks.values().map(|sum| sum.2).sum();
        self.taken.saturating_sub(self.begin).saturating_sub(seen)
    }

    /// The sums, scaled to the `bytes` that the allocator counted meanwhile, where the samples, with those that were missed,
    /// can stand for as many. What those that were seen cannot stand for is put aside. `unwinder` is that of the looks.
    pub fn sums(&self, bytes: Option<u64>, unwinder: &mut Unwinder) -> Sums {
        let (scale, rest) = self.scale(bytes);
        let mut stacks = Stacks::default();
        for (calls, &(count, bytes, samples)) in &self.stacks {
            let sum = stacks.entry(unwinder.functions(calls)).or_default();
            sum.0 += count * scale;
            sum.1 += bytes * scale;
            sum.2 += samples;
        }
        if rest >= 1.0 {
            let blocks = rest * self.estimate.count / self.estimate.bytes;
            let name = match self.missed() {
                0 => TOO_FEW,
                _ => UNSEEN,
            };
            stacks.insert(apart(name), (blocks, rest, 0));
        }
        summed(stacks)
    }

    /// By how much counts and bytes are multiplied, and the bytes that are put aside.
    fn scale(&self, bytes: Option<u64>) -> (f64, f64) {
        let Estimate {
            bytes: sum,
            variance,
            ..
        } = self.estimate;
        let exact = bytes.map(|bytes| bytes as f64);
        let Some(exact) = exact.filter(|_| sum > 0.0) else {
            return (1.0, 0.0);
        };
        if (exact - sum).abs() <= ERRORS * variance.sqrt() {
            return self.scale_to(exact);
        }
        if self.missed() == 0 || exact < sum {
            return (1.0, 0.0);
        }
        self.scale_to(exact)
    }

    /// The same for `exact` bytes.
    fn scale_to(&self, exact: f64) -> (f64, f64) {
        let scale = (exact / self.estimate.bytes).min(SCALE_MOST);
        (scale, exact - scale * self.estimate.bytes)
    }
}

fn identity(region: &Region) -> (u64, u64, u32) {
    (region.base, region.started, region.profile.begun)
}

/// In the place of the functions of what too few samples stand for.
const TOO_FEW: &str = "(too few to be sampled)";
/// In the place of the functions of samples that ended before they were seen.
const UNSEEN: &str = "(ended before it was seen)";

/// The most functions of a stack: what files state of inlined calls may be anything.
const FRAMES: usize = 512;

/// The functions of the stack with the calls `calls`, without the allocator's own.
pub(crate) fn named(calls: &[Call], unwinder: &mut Unwinder) -> Vec<Frame> {
    let mut stack: Vec<Frame> = Vec::new();
    for &call in calls {
        let frames = unwinder.frames(call);
        // What is inlined into a function of the allocator's is too, whatever its name.
        if !stack.is_empty() || !frames.last().is_some_and(is_ours) {
            stack.extend_from_slice(&frames);
        }
    }
    stack.truncate(FRAMES);
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
/// interval before. `region` was found in it.
pub fn switch(source: &dyn Source, region: &Region, pid: u32, interval: u64) -> Result<u64> {
    let failed = |cause| Error::System {
        name: source.name(),
        what: "cannot switch its heap profile",
        cause,
    };
    let not_known = || failed(std::io::Error::other("its slabside has none"));
    if region.profile.samples.bytes() == 0 {
        return Err(not_known());
    }
    // The open file stays that of the process which has the number now, whoever gets the number later.
    let mut options = File::options();
    let memory = options
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .map_err(failed)?;
    let same = region.again_in(&memory);
    let same = same.filter(|same| (same.pid, same.started) == (region.pid, region.started));
    let before = same.ok_or_else(not_known)?.profile;
    let begins = before.interval == 0 && interval != 0;
    let begun = u64::from(before.begun) + u64::from(begins);
    let mask = (1u64 << field::PROFILE_SHIFT) - 1;
    let word = begun << field::PROFILE_SHIFT | interval.min(mask);
    let at = region.base + offset::PROFILE as u64;
    memory
        .write_all_at(&word.to_le_bytes(), at)
        .map_err(failed)?;
    Ok(before.interval)
}

/// Where the samples of `region` lie.
pub fn place(region: &Region) -> Span {
    region.profile.samples
}

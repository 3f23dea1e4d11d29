//! Blocks that the program has lost: live, and no pointer leads to them.
//!
//! ```text
//!   first pass    metadata, contents and roots are copied; what is not reached is a candidate
//!   more passes   what still has the same address, size and contents, and to which still nothing leads, stays one
//!   proof         the same once more while the process stands still: what stays is lost
//! ```
//!
//! Lost memory does not change: the passes need not stop the process. But where pointers move from one place that was
//! not read yet to one that was, a block may look lost again and again. So a pass alone proves nothing. A process that
//! stands still, a core file or a snapshot of one needs one pass.

use crate::contents::words;
use crate::mark::{Bits, Copy, Index, Marker, Number, Pointers, Sieve};
use crate::model::{Buffers, Heap, Hold};
use crate::profile::{by_address, Sample};
use crate::region::{self, Region};
use crate::roots::Roots;
use crate::source::{Source, Span, Target};
use crate::types::{Type, Types, HEAD};
use crate::unwind::{Frame, Stack, Unwinder};
use crate::{Error, Result};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::{FxHashMap, FxHasher};
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::{Duration, Instant};

/// The most passes where their number is not given.
const PASSES_MOST: u32 = 8;
/// So few candidates make the proof no longer: it reads all live blocks, however many are asked for.
const FEW: u64 = 100_000;
/// With more of them the proof takes longer than a search of all.
const MANY: u64 = 2_000_000;
/// Pauses between passes that look for what stays lost.
const PAUSES: u32 = 10;
/// For how long a process goes on before it is stopped once more: so that each of its threads gets a processor, where
/// others want it too.
const LET_RUN: Duration = Duration::from_millis(100);
/// The longest wait for all threads to stop before the first pass.
const REGISTERS_MOST: Duration = Duration::from_millis(50);
/// Bytes that are looked at at once for zeros.
const PIECE: usize = 4096;

/// How much the process may be held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: there are candidates only.
    None,
    /// At the end, for as long as it takes to look for pointers to the candidates.
    Short,
    /// For as long as it takes to copy all: one pass tells.
    Whole,
}

/// How it is searched.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// How many passes. None means that it goes on until they find nothing more to leave out, or the proof takes no longer
    /// for what is left.
    pub passes: Option<u32>,
    /// What is proved.
    pub proof: Proof,
    /// Over how long the passes are spread.
    pub track: Option<Duration>,
    /// Whether it is told apart which blocks are held by pointers into their middle alone.
    pub kinds: bool,
}

/// Blocks of one size and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Their type.
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// Bytes of one.
    pub size: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// The address of one.
    pub example: u64,
    /// Who allocated those of them that are samples of the heap profile. The most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<Sampled>,
    /// What only they lead to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<Group>,
}

/// A stack, and how many blocks were sampled with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sampled {
    /// How many.
    pub samples: u64,
    /// The functions, innermost first.
    pub frames: Vec<Frame>,
}

impl Group {
    /// Blocks and bytes with all below.
    pub fn sum(&self) -> (u64, u64) {
        let below = self.below.iter();
        below.fold((self.count, self.bytes), |sum, group| {
            (sum.0 + group.count, sum.1 + group.bytes)
        })
    }
}

/// Which blocks are not told: given the type and the stack, innermost first and empty where it is not known.
pub type Suppressed<'a> = &'a dyn Fn(&str, &[Frame]) -> bool;

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Live blocks by how they are held, as memcheck(1) tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// By pointers to the start of each block.
    pub still: Sum,
    /// By a pointer into the middle of one.
    pub possibly: Sum,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Lost blocks to which no lost block leads, with what is lost through them. Those of the most bytes first.
    pub lost: Vec<Group>,
    /// Blocks that are not told, and what they lead to.
    pub suppressed: Sum,
    /// How many blocks looked lost before the proof.
    pub candidates: u64,
    /// Whether it is proved that they are lost.
    pub proved: bool,
    /// Passes.
    pub passes: u32,
    /// Bytes that could not be read and may hold pointers.
    pub unscanned: u64,
    /// For how long the process was stopped.
    pub held: Option<Duration>,
    /// Of blocks that are not lost.
    pub reachable: Option<Reachable>,
}

/// A block that may be lost.
#[derive(Clone, Copy)]
struct Suspect {
    span: Span,
    contents: u64,
}

/// What one pass saw.
struct Pass {
    /// Whether the process stood still.
    still: bool,
    /// Whether a thread stood still within the allocator.
    within: bool,
    index: Index,
    left: Bits,
    copy: Copy,
    unscanned: u64,
}

/// Searches `target`. Of several heaps what is lost of the one numbered `heap`, or of all, but for what is `suppressed`. A
/// process goes on afterwards.
pub fn search(
    target: &mut Target,
    heap: Option<usize>,
    how: &Search,
    suppressed: Option<Suppressed<'_>>,
) -> Result<Found> {
    let regions = region::find(&**target)?;
    target.needs_contents()?;
    if let Some(wanted) = heap.filter(|&wanted| wanted >= regions.len()) {
        return Err(Error::NoSuchHeap {
            name: target.name(),
            count: regions.len(),
            wanted,
        });
    }
    let mut search = Searching {
        regions,
        wanted: heap,
        suppressed,
        types: Types::new(),
        passes: 0,
        buffers: Vec::new(),
        reachable: None,
    };
    let found = search.run(target, how);
    target.release();
    let mut found = found?;
    found.held = target.stood_for();
    Ok(found)
}

struct Searching<'a> {
    regions: Vec<Region>,
    /// The heap that is asked for. None means all.
    wanted: Option<usize>,
    suppressed: Option<Suppressed<'a>>,
    types: Types,
    passes: u32,
    buffers: Vec<Buffers>,
    reachable: Option<Reachable>,
}

impl Searching<'_> {
    fn run(&mut self, target: &mut Target, how: &Search) -> Result<Found> {
        // What is read of files is read before a process stands still.
        Roots::of(&**target, &[], self.types.symbols());
        if !target.is_moving() || how.proof == Proof::Whole {
            let pass = self.whole(target, how)?;
            let candidates = pass.left.count();
            let pass = self.confirmed(target, pass);
            return Ok(self.tell(&**target, &pass, candidates));
        }
        if how.proof == Proof::Short {
            // A pointer that leads to all else may lie in a register for as long as the program runs. A process that
            // cannot be stopped the proof tells of, where it is needed.
            target.see_registers(REGISTERS_MOST);
        }
        let pass = self.passes(target, how)?;
        let candidates = pass.left.count();
        if how.proof == Proof::None || candidates == 0 {
            return Ok(self.tell(&**target, &pass, candidates));
        }
        let pass = match candidates {
            ..=MANY => {
                let suspects = suspects(&pass);
                drop(pass);
                self.again(target, &suspects, true)?
            }
            _ => {
                drop(pass);
                let proof = Proof::Whole;
                self.whole(target, &Search { proof, ..*how })?
            }
        };
        target.release();
        let pass = self.confirmed(target, pass);
        Ok(self.tell(&**target, &pass, candidates))
    }

    /// What still nothing leads to when the process goes on. A thread that was stopped within malloc has no pointer yet
    /// to the block that it is about to get, and one within free none any more. If there was such a thread, the process
    /// is stopped once more: while it runs, a block that is freed and allocated again and again may look lost each time.
    fn confirmed(&mut self, target: &mut Target, pass: Pass) -> Pass {
        target.release();
        let within = pass.within && target.is_moving();
        let begin = Instant::now();
        let mut pass = self.once_more(target, pass, false);
        if within && pass.left.count() > 0 {
            // A thread that waits for a processor stands where it stood.
            std::thread::sleep(LET_RUN.saturating_sub(begin.elapsed()));
            pass = self.once_more(target, pass, true);
        }
        target.release();
        pass
    }

    /// What of `pass` still nothing leads to in another one, of a process that stands still with `stop`.
    fn once_more(&mut self, target: &mut Target, pass: Pass, stop: bool) -> Pass {
        if !target.is_moving() || pass.left.count() == 0 {
            return pass;
        }
        let suspects = suspects(&pass);
        let later = target
            .renew()
            .and_then(|()| self.again(target, &suspects, stop));
        match later {
            Ok(later) => Pass {
                still: pass.still && (later.still || !stop),
                unscanned: pass.unscanned,
                ..later
            },
            // It has ended, say: what was lost stays so.
            Err(_) => pass,
        }
    }

    /// Passes over a process that goes on.
    fn passes(&mut self, target: &mut Target, how: &Search) -> Result<Pass> {
        let begin = Instant::now();
        let mut pass = self.whole(target, how)?;
        loop {
            let left = pass.left.count();
            let few = how.proof == Proof::Short && left <= FEW;
            let done = match (how.track, how.passes) {
                (Some(track), _) => begin.elapsed() >= track,
                (None, Some(passes)) => self.passes >= passes,
                (None, None) => few || self.passes >= PASSES_MOST,
            };
            if left == 0 || done {
                return Ok(pass);
            }
            let suspects = suspects(&pass);
            drop(pass);
            if let Some(track) = how.track {
                let rest = track.saturating_sub(begin.elapsed());
                std::thread::sleep(rest.min(track / PAUSES));
            }
            target.renew()?;
            pass = self.again(target, &suspects, false)?;
            if how.track.is_none() && how.passes.is_none() && pass.left.count() == left {
                return Ok(pass);
            }
        }
    }

    /// The heaps as they are now. With `stop` the process stands still from now on.
    fn heaps(&mut self, target: &mut Target, stop: bool) -> Result<Vec<Heap>> {
        if stop || !target.is_moving() {
            return Heap::of_stopped(target, &self.regions, &mut self.buffers, Hold::Yes);
        }
        let mut heaps = Vec::new();
        for region in &self.regions {
            let mut kept = self.buffers.pop().unwrap_or_default();
            heaps.push(Heap::of(&**target, region.clone(), &mut kept)?);
        }
        Ok(heaps)
    }

    /// A pass that looks for all that is reached.
    fn whole(&mut self, target: &mut Target, how: &Search) -> Result<Pass> {
        self.passes += 1;
        let heaps = self.heaps(target, how.proof == Proof::Whole)?;
        let index = Index::of(&heaps);
        let copy = Copy::of(&**target, &heaps);
        let roots = Roots::of(&**target, &heaps, self.types.symbols());
        let mut marker = Marker::new(&index, &copy, Pointers::All);
        let unscanned = roots.each_word(&**target, |value, _| marker.word(value));
        let mut starts = Marker::new(&index, &copy, Pointers::ToStart);
        if how.kinds {
            roots.each_word(&**target, |value, _| starts.word(value));
        }
        let still = heaps.iter().all(|heap| heap.stopped);
        let within = still && roots.within(&**target, &heaps);
        target.release();
        let reached = marker.finish();
        if how.kinds {
            self.reachable = Some(reachable(&index, &reached, &starts.finish()));
        }
        let left = index.live().without(&reached);
        still_there(&**target)?;
        Ok(Pass {
            still,
            within,
            index,
            left,
            unscanned: unscanned + copy.failed(),
            copy,
        })
    }

    /// A pass that looks for what leads to `suspects`.
    fn again(&mut self, target: &mut Target, suspects: &[Suspect], stop: bool) -> Result<Pass> {
        self.passes += 1;
        let heaps = self.heaps(target, stop)?;
        let index = Index::of(&heaps);
        let mut asked = index.live().without(index.live());
        let mut contents = Vec::with_capacity(suspects.len());
        for suspect in suspects {
            let number = index.find(suspect.span.start);
            if let Some(number) = number.filter(|&number| index.span(number) == suspect.span) {
                asked.set(number);
                contents.push((number, suspect.contents));
            }
        }
        contents.sort_unstable();
        let roots = Roots::of(&**target, &heaps, self.types.symbols());
        let mut sieve = Sieve::new(&index, asked);
        let mut unscanned = sieve.look_through(&**target, &heaps);
        unscanned += roots.each_word(&**target, |value, _| sieve.word(value));
        let same = |number: Number, copy: &Copy| {
            let now = (number, hash(copy, index.span(number)));
            contents.binary_search(&now).is_ok()
        };
        sieve.compare(|number, copy| !same(number, copy));
        let (left, copy) = sieve.finish();
        still_there(&**target)?;
        let still = heaps.iter().all(|heap| heap.stopped);
        Ok(Pass {
            still,
            within: still && roots.within(&**target, &heaps),
            index,
            left,
            copy,
            unscanned,
        })
    }

    // ---- what is told ---------------------------------------------------------------------------

    fn tell(&mut self, source: &dyn Source, pass: &Pass, candidates: u64) -> Found {
        let (lost, suppressed) = self.groups(source, pass);
        Found {
            lost,
            suppressed,
            candidates,
            // Where nothing looks lost nothing has to be proved.
            proved: candidates == 0
                || pass.still && pass.unscanned == 0 && source.knows_registers(),
            passes: self.passes,
            unscanned: pass.unscanned,
            held: None,
            reachable: self.reachable,
        }
    }

    /// What is left, by type: blocks that no other leads to, and below them what they lead to. And what is suppressed.
    fn groups(&mut self, source: &dyn Source, pass: &Pass) -> (Vec<Group>, Sum) {
        let wanted = |&number: &Number| {
            let heap = pass.index.heap(number);
            self.wanted.is_none_or(|wanted| wanted == heap)
        };
        let numbers: Vec<Number> = pass.left.each().filter(wanted).collect();
        let stacks = self.stacks(source, pass);
        let (graph, pairs) = self.graph(source, pass, &numbers);
        let mut block = |(at, number): (usize, &Number)| {
            let span = pass.index.span(*number);
            let known = pairs.get(&at).copied();
            Block {
                span,
                kind: known.unwrap_or_else(|| self.type_of(source, pass, span)),
                stack: stacks.get(number),
            }
        };
        let blocks: Vec<Block<'_>> = numbers.iter().enumerate().map(&mut block).collect();
        let out = self.suppressed_of(&blocks, &graph);
        let left_out = blocks.iter().zip(&out).filter(|(_, &out)| out);
        let left_out = left_out.fold(Sum::default(), |sum, (block, _)| Sum {
            count: sum.count + 1,
            bytes: sum.bytes + block.span.bytes(),
        });
        (self.by_type(&blocks, &first_of(&graph), &out), left_out)
    }

    /// Which blocks are suppressed, or led to by one that is.
    fn suppressed_of(&self, blocks: &[Block<'_>], graph: &DiGraph<(), ()>) -> Vec<bool> {
        let mut out = vec![false; blocks.len()];
        let Some(suppressed) = self.suppressed else {
            return out;
        };
        let is_out = |block: &Block<'_>| {
            let stack = block.stack.map_or(&[][..], |stack| &stack[..]);
            suppressed(self.types.name(block.kind), stack)
        };
        let mut waiting: Vec<usize> = (0..blocks.len())
            .filter(|&at| is_out(&blocks[at]))
            .collect();
        while let Some(at) = waiting.pop() {
            if !std::mem::replace(&mut out[at], true) {
                let next = graph.neighbors(NodeIndex::new(at));
                waiting.extend(next.map(NodeIndex::index));
            }
        }
        out
    }

    /// The blocks that are not `out`, each below its `first`: one that is not out has one that is not.
    fn by_type(&self, blocks: &[Block<'_>], first: &[usize], out: &[bool]) -> Vec<Group> {
        let mut below: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut groups: BTreeMap<(&str, u64), (Gathered, Vec<usize>)> = BTreeMap::new();
        let told = || (0..blocks.len()).filter(|&at| !out[at]);
        for at in told().filter(|&at| first[at] != at) {
            below.entry(first[at]).or_default().push(at);
        }
        let key = |block: &Block<'_>| (self.types.name(block.kind), block.span.bytes());
        for at in told().filter(|&at| first[at] == at) {
            let (group, under) = groups.entry(key(&blocks[at])).or_default();
            group.add(&blocks[at]);
            under.extend(below.get(&at).into_iter().flatten());
        }
        let groups = groups.into_iter();
        let mut all: Vec<Group> = groups
            .map(|((what, size), (whole, under))| {
                let mut kinds: BTreeMap<(&str, u64), Gathered> = BTreeMap::new();
                for at in under {
                    let kind = kinds.entry(key(&blocks[at])).or_default();
                    kind.add(&blocks[at]);
                }
                let kinds = kinds.into_iter();
                let mut below: Vec<Group> = kinds
                    .map(|((what, size), kind)| kind.group(what, size, Vec::new()))
                    .collect();
                below.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
                whole.group(what, size, below)
            })
            .collect();
        all.sort_by_key(|group| std::cmp::Reverse(group.sum().1));
        all
    }

    /// Who allocated those of the blocks left that are samples.
    fn stacks(&self, source: &dyn Source, pass: &Pass) -> FxHashMap<Number, Stack> {
        let all = self.regions.iter();
        let all = all.flat_map(|region| by_address(source, region).into_values());
        let lost: Vec<(Number, Sample)> = all
            .filter_map(|sample| {
                let number = pass.index.find(sample.address)?;
                let begins = pass.index.span(number).start == sample.address;
                (begins && pass.left.has(number)).then_some((number, sample))
            })
            .collect();
        if lost.is_empty() {
            return FxHashMap::default();
        }
        let mut unwinder = Unwinder::new(source);
        let lost = lost.into_iter();
        lost.map(|(number, sample)| (number, unwinder.stack(&sample)))
            .collect()
    }

    /// Which of `numbers` lead to which, by place, and the types that pairs of words in them show of others.
    fn graph(
        &mut self,
        source: &dyn Source,
        pass: &Pass,
        numbers: &[Number],
    ) -> (DiGraph<(), ()>, BTreeMap<usize, Type>) {
        let mut graph = DiGraph::with_capacity(numbers.len(), numbers.len());
        numbers.iter().for_each(|_| {
            graph.add_node(());
        });
        let mut pairs = BTreeMap::new();
        let types = &mut self.types;
        for (from, &number) in numbers.iter().enumerate() {
            let mut last = None;
            pass.copy.each(pass.index.span(number), |_, bytes| {
                for value in words(bytes) {
                    let found = pass.index.find(value).filter(|&to| pass.left.has(to));
                    let to = found.and_then(|to| numbers.binary_search(&to).ok());
                    if let Some(to) = to.filter(|&to| to != from) {
                        graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
                    } else if let Some(to) = last.filter(|_| value & 7 == 0 && value != 0) {
                        if let Some((known, _)) = types.behind(source, value) {
                            pairs.insert(to, known);
                        }
                    }
                    last = to;
                }
            });
        }
        (graph, pairs)
    }

    fn type_of(&mut self, source: &dyn Source, pass: &Pass, span: Span) -> Type {
        let head = pass.copy.head(span, HEAD);
        self.types.of(source, &pass.index, &head)
    }
}

/// A lost block.
struct Block<'a> {
    span: Span,
    kind: Type,
    /// Who allocated it, if it was sampled.
    stack: Option<&'a Stack>,
}

/// Blocks of a type and size.
#[derive(Default)]
struct Gathered<'a> {
    count: u64,
    example: u64,
    stacks: FxHashMap<&'a Stack, u64>,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, block: &Block<'a>) {
        if self.count == 0 {
            self.example = block.span.start;
        }
        self.count += 1;
        if let Some(stack) = block.stack {
            *self.stacks.entry(stack).or_default() += 1;
        }
    }

    /// As it is told.
    fn group(self, what: &str, size: u64, below: Vec<Group>) -> Group {
        let stacks = self.stacks.into_iter();
        let mut stacks: Vec<Sampled> = stacks
            .map(|(stack, samples)| Sampled {
                samples,
                frames: stack.to_vec(),
            })
            .collect();
        stacks.sort_by(|a, b| (b.samples, &a.frames).cmp(&(a.samples, &b.frames)));
        Group {
            what: what.into(),
            count: self.count,
            size,
            bytes: self.count * size,
            example: self.example,
            stacks,
            below,
        }
    }
}

/// For each node the one that it is told below: itself, if nothing but a cycle that it is the first of leads to it.
fn first_of(graph: &DiGraph<(), ()>) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut first = vec![NONE; graph.node_count()];
    // What leads to a component comes before it.
    for component in kosaraju_scc(graph).into_iter().rev() {
        let known = component.iter().map(|node| first[node.index()]);
        let known = known.filter(|&one| one != NONE).min();
        let own = component.iter().map(|node| node.index()).min();
        let top = known.or(own).unwrap_or(NONE);
        for node in component {
            first[node.index()] = top;
            for next in graph.neighbors(node) {
                let next = &mut first[next.index()];
                if *next == NONE {
                    *next = top;
                }
            }
        }
    }
    first
}

fn reachable(index: &Index, reached: &Bits, by_start: &Bits) -> Reachable {
    let sum = |bits: &Bits| {
        bits.each().fold(Sum::default(), |sum, number| Sum {
            count: sum.count + 1,
            bytes: sum.bytes + index.span(number).bytes(),
        })
    };
    Reachable {
        still: sum(by_start),
        possibly: sum(&reached.without(by_start)),
    }
}

/// What is read of a process that ends meanwhile is nothing, and says nothing.
fn still_there(source: &dyn Source) -> Result<()> {
    match source.is_gone() {
        true => Err(Error::Ended {
            name: source.name(),
        }),
        false => Ok(()),
    }
}

fn suspects(pass: &Pass) -> Vec<Suspect> {
    let all = pass.left.each().map(|number| {
        let span = pass.index.span(number);
        let contents = hash(&pass.copy, span);
        Suspect { span, contents }
    });
    all.collect()
}

/// A number for the contents of `span`. What is not there counts as zero.
fn hash(copy: &Copy, span: Span) -> u64 {
    let mut hasher = FxHasher::default();
    copy.each(span, |start, bytes| {
        for (at, piece) in (start..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
            if piece.iter().any(|&byte| byte != 0) {
                hasher.write_u64(at);
                hasher.write(piece);
            }
        }
    });
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(u32, u32)]) -> DiGraph<(), ()> {
        let mut graph = DiGraph::new();
        (0..nodes).for_each(|_| {
            graph.add_node(());
        });
        graph.extend_with_edges(edges);
        graph
    }

    #[test]
    fn cycles_come_once_and_what_hangs_on_them_below() {
        assert_eq!(first_of(&graph(3, &[])), [0, 1, 2]);
        assert_eq!(first_of(&graph(3, &[(2, 0), (2, 1)])), [2, 2, 2]);
        assert_eq!(
            first_of(&graph(4, &[(0, 1), (1, 2), (2, 1), (3, 1)])).len(),
            4
        );
        assert_eq!(first_of(&graph(3, &[(0, 1), (1, 2), (2, 0)])), [0, 0, 0]);
        // A chain that is longer than any stack.
        let edges: Vec<(u32, u32)> = (0..200_000).map(|node| (node + 1, node)).collect();
        assert!(first_of(&graph(200_001, &edges))
            .iter()
            .all(|&first| first == 200_000));
    }

    #[test]
    fn each_block_is_told_once_though_two_lead_to_it() {
        let first = first_of(&graph(4, &[(0, 2), (1, 2), (2, 3), (3, 2)]));
        assert_eq!((first[0], first[1]), (0, 1));
        assert!(first[2] == first[3] && first[2] < 2);
    }
}

//! Which pages are free, and where the first run of free pages is that is long enough.
//!
//! Pages come in groups of 8,192 (32 MiB). A group has two bitmaps, and for each 64 pages the length of the longest
//! free run that begins there. A tree of maxima over the groups, 64 wide, makes the search cost the same in a heap of 1
//! MiB and of 4 TiB. The search is address-ordered first fit, so that the heap's end empties. A run does not cross a
//! group's end.
//!
//! ```text
//!   tree    level 2      [ 31 ]                                     maxima over 64 below
//!           level 1      [ 31 | 4 | 0 ... ]
//!           level 0      [ 4 | 31 | 0 ... | 4 ... ]                 one a group: its longest run
//!   group                free bits, dirty bits, runs (one a word)
//! ```
//!
//! Knows page numbers only. No lock, no system call, no addresses. The caller holds the page lock.

use crate::bitmap::{first_run, longest_run};
use crate::meta::{GROUP_BYTES, GROUP_USED};
use crate::units::{PageNo, GROUP_PAGES, WORD_PAGES};
use bitvec::prelude::{BitSlice, Lsb0};
use core::ops::Range;
use core::ptr::NonNull;
use static_assertions::const_assert;

/// Bitmap words in a group.
const GROUP_WORDS: usize = GROUP_PAGES / WORD_PAGES;

/// The bitmaps of one group. All zero: no page is free.
#[repr(C)]
struct Group {
    free: [u64; GROUP_WORDS],
    dirty: [u64; GROUP_WORDS],
    /// Longest run that begins in each word.
    runs: [u8; GROUP_WORDS],
}

const_assert!(core::mem::size_of::<Group>() <= GROUP_USED && GROUP_USED <= GROUP_BYTES);

type Bits = BitSlice<u64, Lsb0>;

/// Width of the tree: children of a node.
const WIDTH: usize = 64;
/// The most levels of the tree: enough for 64^4 groups.
const LEVELS: usize = 4;

/// The free pages of the whole page-number space.
pub struct Runs {
    /// The first group, which may lie apart.
    first: NonNull<u8>,
    groups: NonNull<u8>,
    tree: NonNull<u8>,
    /// Where each level begins in the tree, lowest level first. The highest one comes first in memory.
    levels: [usize; LEVELS],
    /// Nodes of each level.
    widths: [usize; LEVELS],
    depth: usize,
    /// Free pages that may hold something other than zero.
    dirty_free: usize,
    /// Free pages.
    free: usize,
}

impl Runs {
    /// Nothing at all.
    pub const fn none() -> Runs {
        Runs {
            first: NonNull::dangling(),
            groups: NonNull::dangling(),
            tree: NonNull::dangling(),
            levels: [0; LEVELS],
            widths: [0; LEVELS],
            depth: 0,
            dirty_free: 0,
            free: 0,
        }
    }

    /// # Safety
    /// `groups` has room for `count` groups of `GROUP_BYTES`, of which the first lies at `first`, and `tree` for
    /// the levels above them, zero where open. Groups are opened before pages in them are freed, with the tree's
    /// bytes over them.
    pub unsafe fn new(
        first: NonNull<u8>,
        groups: NonNull<u8>,
        tree: NonNull<u8>,
        count: usize,
    ) -> Runs {
        let mut runs = Runs {
            first,
            groups,
            tree,
            ..Runs::none()
        };
        let mut nodes = count;
        loop {
            runs.widths[runs.depth] = nodes;
            runs.depth += 1;
            if nodes <= WIDTH || runs.depth == LEVELS {
                break;
            }
            nodes = nodes.div_ceil(WIDTH);
        }
        let mut start = 0;
        for level in (0..runs.depth).rev() {
            runs.levels[level] = start;
            start += runs.widths[level].next_multiple_of(WIDTH);
        }
        runs
    }

    /// Writes to the tree, which is open and empty: a page that is read first costs a second fault.
    pub fn touch(&mut self) {
        // SAFETY: the first byte of the tree, which is still zero.
        unsafe { self.tree.write_volatile(0) };
    }

    /// Bytes of the tree above its lowest level, and the byte of the lowest level over `group`.
    pub fn tree_byte(&self, group: usize) -> usize {
        self.levels[0] + group
    }

    /// Free pages.
    pub fn free_pages(&self) -> usize {
        self.free
    }

    /// Free pages that may hold something other than zero.
    pub fn dirty_pages(&self) -> usize {
        self.dirty_free
    }

    fn place(&self, index: usize) -> NonNull<Group> {
        if index == 0 {
            return self.first.cast();
        }
        // SAFETY: callers name groups below the count that there is room for.
        unsafe { self.groups.byte_add(index * GROUP_BYTES).cast() }
    }

    fn group(&self, index: usize) -> &Group {
        // SAFETY: callers name groups of open pages (`Runs::new`). Zero is a valid group.
        unsafe { self.place(index).as_ref() }
    }

    fn group_mut(&mut self, index: usize) -> &mut Group {
        // SAFETY: as `group`. The exclusive borrow of `self` stands for the page lock.
        unsafe { self.place(index).as_mut() }
    }

    fn level(&self, level: usize) -> NonNull<u8> {
        // SAFETY: `levels` was laid out within the tree's bytes.
        unsafe { self.tree.add(self.levels[level]) }
    }

    fn node(&self, level: usize, index: usize) -> u8 {
        // SAFETY: `index` is below the level's width. See `first_in` for what is open.
        unsafe { self.level(level).add(index).read() }
    }

    fn set_node(&mut self, level: usize, index: usize, run: u8) {
        // SAFETY: `level` has more than `index` nodes, as in `node`, and `&mut self` keeps others out.
        unsafe { self.level(level).add(index).write(run) }
    }

    /// The first child of the block `block` of `level` with a run of at least `n`. A block whose parent
    /// is not zero is open as a whole: it lies within one OS page.
    fn first_in(&self, level: usize, block: usize, n: u8) -> Option<usize> {
        let from = block * WIDTH;
        let to = (from + WIDTH).min(self.widths[level]);
        (from..to).find(|&index| self.node(level, index) >= n)
    }

    /// The first run of `n` free pages, 1 <= n <= 64.
    pub fn first_fit(&self, n: usize) -> Option<PageNo> {
        let mut block = 0;
        for level in (0..self.depth).rev() {
            block = self.first_in(level, block, n as u8)?;
        }
        let group = self.group(block);
        let word = group.runs.iter().position(|&run| run as usize >= n)?;
        let at = first_run(window(&group.free, word), n as u32)?;
        Some(PageNo(
            (block * GROUP_PAGES + word * WORD_PAGES) as u32 + at,
        ))
    }

    /// Whether `n` pages from `page` on are all free.
    pub fn is_free(&self, page: PageNo, n: usize) -> bool {
        let (group, range) = split(page, n);
        range.end <= GROUP_PAGES && bits(&self.group(group).free)[range].all()
    }

    /// Length of the free run that ends before `page`, down to `least` at most, across groups.
    pub fn free_before(&self, page: PageNo, least: PageNo) -> usize {
        let mut at = page.index();
        while at > least.index() {
            let (group, end) = ((at - 1) / GROUP_PAGES, (at - 1) % GROUP_PAGES + 1);
            let start = end - end.min(at - least.index());
            let run = bits(&self.group(group).free)[start..end].trailing_ones();
            at -= run;
            if run < end - start {
                break;
            }
        }
        page.index() - at
    }

    /// How many free runs there are in `range`, as long as they can be.
    pub fn count_runs(&self, range: Range<PageNo>) -> usize {
        let (mut end, least) = (range.end, range.start);
        let mut runs = 0;
        while end > least {
            let word = (end.index() - 1) / WORD_PAGES;
            let first = (word * WORD_PAGES).max(least.index());
            let free = self.group(word / GROUP_WORDS).free[word % GROUP_WORDS]
                & low_bits(end.index() - word * WORD_PAGES)
                & !low_bits(first - word * WORD_PAGES);
            // A run is counted where it begins.
            runs += (free & !(free << 1)).count_ones() as usize;
            let first = PageNo(first as u32);
            if free >> (first.index() % WORD_PAGES) & 1 != 0
                && first > least
                && self.free_before(first, least) > 0
            {
                runs -= 1;
            }
            end = first;
        }
        runs
    }

    /// Marks `n` free pages from `page` on as used, and as dirty from now on. True if all were zero
    /// pages of the kernel's.
    pub fn take(&mut self, page: PageNo, n: usize) -> bool {
        let mut dirty = 0;
        self.each_group(page, n, |group, range| {
            bits_mut(&mut group.free)[range.clone()].fill(false);
            dirty += bits(&group.dirty)[range.clone()].count_ones();
            bits_mut(&mut group.dirty)[range].fill(true);
        });
        self.free -= n;
        self.dirty_free -= dirty;
        dirty == 0
    }

    /// Marks `n` used pages from `page` on as free. `dirty` tells whether they may hold something.
    pub fn give(&mut self, page: PageNo, n: usize, dirty: Cleanness) {
        self.each_group(page, n, |group, range| {
            bits_mut(&mut group.free)[range.clone()].fill(true);
            bits_mut(&mut group.dirty)[range].fill(dirty == Cleanness::Dirty);
        });
        self.free += n;
        if dirty == Cleanness::Dirty {
            self.dirty_free += n;
        }
    }

    /// The highest run of free dirty pages that lies in `range`, within one group: at most `most` pages.
    pub fn highest_dirty(&self, range: Range<PageNo>, most: usize) -> Option<(PageNo, usize)> {
        let mut end = range.end.index();
        while end > range.start.index() {
            let word = (end - 1) / WORD_PAGES;
            let bits = self.purgeable(word) & low_bits(end - word * WORD_PAGES);
            if bits == 0 {
                end = word * WORD_PAGES;
                continue;
            }
            let last = word * WORD_PAGES + bits.ilog2() as usize;
            let run = self.dirty_run_ending(last, most.min(last + 1 - range.start.index()));
            return (run > 0).then(|| (PageNo((last + 1 - run) as u32), run));
        }
        None
    }

    /// Length of the run of free dirty pages that ends with `last`, within its group.
    fn dirty_run_ending(&self, last: usize, most: usize) -> usize {
        let group = last / GROUP_PAGES * GROUP_PAGES;
        let is_dirty =
            |page: usize| self.purgeable(page / WORD_PAGES) >> (page % WORD_PAGES) & 1 != 0;
        (group..=last)
            .rev()
            .take(most)
            .take_while(|&page| is_dirty(page))
            .count()
    }

    fn purgeable(&self, word: usize) -> u64 {
        let group = self.group(word / GROUP_WORDS);
        group.free[word % GROUP_WORDS] & group.dirty[word % GROUP_WORDS]
    }

    /// Counts nothing as free any more: before [`Runs::restart`] over all windows.
    pub fn reset_counts(&mut self) {
        self.free = 0;
        self.dirty_free = 0;
    }

    /// Marks all of `n` pages from `page` on as free again, whatever the bits say, and keeps the dirty bits. For a fork
    /// child, before the pages of live slabs are taken again.
    pub fn restart(&mut self, page: PageNo, n: usize) {
        let mut dirty = 0;
        self.each_group(page, n, |group, range| {
            bits_mut(&mut group.free)[range.clone()].fill(true);
            dirty += bits(&group.dirty)[range].count_ones();
        });
        self.free += n;
        self.dirty_free += dirty;
    }

    /// Applies `change` to each group's part of `n` pages from `page` on, and refreshes the runs there.
    fn each_group(
        &mut self,
        page: PageNo,
        n: usize,
        mut change: impl FnMut(&mut Group, Range<usize>),
    ) {
        let mut at = page.index();
        let end = at + n;
        while at < end {
            let (index, range) = split(
                PageNo(at as u32),
                (end - at).min(GROUP_PAGES - at % GROUP_PAGES),
            );
            at += range.len();
            let group = self.group_mut(index);
            change(group, range.clone());
            group.refresh(range);
            let longest = group.longest();
            self.raise(index, longest);
        }
    }

    /// Tells the tree that the longest run of `group` is `longest`.
    fn raise(&mut self, group: usize, longest: u8) {
        let (mut index, mut run) = (group, longest);
        for level in 0..self.depth {
            if self.node(level, index) == run {
                return;
            }
            self.set_node(level, index, run);
            let block = index / WIDTH * WIDTH;
            let end = (block + WIDTH).min(self.widths[level]);
            run = (block..end)
                .map(|child| self.node(level, child))
                .max()
                .unwrap_or(0);
            index /= WIDTH;
        }
    }

    /// Number of things that do not agree: counts, runs and tree against the bitmaps.
    pub fn validate(&self, pages: impl Iterator<Item = Range<PageNo>>) -> usize {
        let (mut wrong, mut free, mut dirty) = (0, 0, 0);
        for range in pages {
            for index in range.start.index() / GROUP_PAGES..range.end.index().div_ceil(GROUP_PAGES)
            {
                let group = self.group(index);
                free += bits(&group.free).count_ones();
                let both = group
                    .free
                    .iter()
                    .zip(&group.dirty)
                    .map(|(free, dirty)| (free & dirty).count_ones());
                dirty += both.sum::<u32>() as usize;
                wrong += usize::from(self.node(0, index) != group.longest());
                wrong += (0..GROUP_WORDS)
                    .filter(|&word| group.runs[word] != group.run_of(word))
                    .count();
            }
        }
        wrong + usize::from(free != self.free) + usize::from(dirty != self.dirty_free)
    }
}

/// Whether free pages may hold something other than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanness {
    /// The kernel's zero pages, not touched yet.
    Fresh,
    /// Used before.
    Dirty,
}

impl Group {
    fn run_of(&self, word: usize) -> u8 {
        longest_run(window(&self.free, word)) as u8
    }

    /// Recomputes the runs that a change of pages `range` may have touched: also the word before.
    fn refresh(&mut self, range: Range<usize>) {
        let first = (range.start / WORD_PAGES).saturating_sub(1);
        for word in first..range.end.div_ceil(WORD_PAGES) {
            self.runs[word] = self.run_of(word);
        }
    }

    fn longest(&self) -> u8 {
        self.runs.iter().copied().max().unwrap_or(0)
    }
}

/// `word` and the word after it. Nothing is free after the group.
fn window(free: &[u64; GROUP_WORDS], word: usize) -> u128 {
    let next = free.get(word + 1).copied().unwrap_or(0);
    free[word] as u128 | (next as u128) << WORD_PAGES
}

/// A mask of the lowest `n` <= 64 bits.
fn low_bits(n: usize) -> u64 {
    if n >= 64 {
        u64::MAX
    } else {
        (1 << n) - 1
    }
}

fn split(page: PageNo, n: usize) -> (usize, Range<usize>) {
    let at = page.index() % GROUP_PAGES;
    (page.index() / GROUP_PAGES, at..at + n)
}

fn bits(words: &[u64; GROUP_WORDS]) -> &Bits {
    BitSlice::from_slice(words)
}

fn bits_mut(words: &mut [u64; GROUP_WORDS]) -> &mut Bits {
    BitSlice::from_slice_mut(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Plan;
    use crate::units::PAGE;
    use std::vec;
    use std::vec::Vec;

    /// Room for `groups` groups, all open.
    struct Space(Vec<u64>, Vec<u8>);

    impl Space {
        fn new(groups: usize) -> (Space, Runs) {
            let mut space = Space(
                vec![0; groups * GROUP_BYTES / 8],
                vec![0; 2 * groups + 64 * LEVELS],
            );
            let words = NonNull::new(space.0.as_mut_ptr()).unwrap().cast();
            let tree = NonNull::new(space.1.as_mut_ptr()).unwrap();
            // SAFETY: both vectors are as long as asked and live beside the result.
            let runs = unsafe { Runs::new(words, words, tree, groups) };
            (space, runs)
        }
    }

    #[test]
    fn random_runs_are_found_first_fit_as_by_a_plain_search() {
        let (_space, mut runs) = Space::new(3);
        let pages = 3 * GROUP_PAGES;
        let mut plain = vec![false; pages];
        runs.give(PageNo(0), pages, Cleanness::Fresh);
        plain.fill(true);
        let mut taken: Vec<(PageNo, usize)> = Vec::new();
        let mut state = 12345u64;
        let mut random = move |n: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for round in 0..4000 {
            if random(5) < 3 || taken.is_empty() {
                let n = 1 + random(32);
                let expected = (0..pages).find(|&at| {
                    at + n <= pages
                        && at / GROUP_PAGES == (at + n - 1) / GROUP_PAGES
                        && plain[at..at + n].iter().all(|&f| f)
                });
                let found = runs.first_fit(n);
                assert_eq!(found.map(PageNo::index), expected, "round {round} n {n}");
                if let Some(page) = found {
                    runs.take(page, n);
                    plain[page.index()..page.index() + n].fill(false);
                    taken.push((page, n));
                }
            } else {
                let (page, n) = taken.swap_remove(random(taken.len()));
                runs.give(page, n, Cleanness::Dirty);
                plain[page.index()..page.index() + n].fill(true);
            }
        }
        for range in [
            0..pages,
            77..pages - 5,
            GROUP_PAGES - 100..GROUP_PAGES + 100,
            128..129,
        ] {
            let starts = range
                .clone()
                .filter(|&at| plain[at] && (at == range.start || !plain[at - 1]))
                .count();
            let range = PageNo(range.start as u32)..PageNo(range.end as u32);
            assert_eq!(runs.count_runs(range.clone()), starts, "{range:?}");
        }
        let all = PageNo(0)..PageNo(pages as u32);
        assert_eq!(runs.validate([all].into_iter()), 0);
        assert_eq!(
            runs.free_pages(),
            plain.iter().filter(|&&free| free).count()
        );
    }

    #[test]
    fn freshness_is_kept_a_page() {
        let (_space, mut runs) = Space::new(1);
        runs.give(PageNo(0), 100, Cleanness::Fresh);
        assert!(runs.take(PageNo(0), 10));
        runs.give(PageNo(0), 10, Cleanness::Dirty);
        assert_eq!(runs.dirty_pages(), 10);
        assert!(!runs.take(PageNo(5), 10));
        assert!(runs.take(PageNo(20), 10));
        assert_eq!(runs.dirty_pages(), 5);
    }

    #[test]
    fn the_highest_dirty_run_is_purged_first() {
        let (_space, mut runs) = Space::new(1);
        runs.give(PageNo(0), 400, Cleanness::Fresh);
        runs.take(PageNo(0), 400);
        runs.give(PageNo(10), 5, Cleanness::Dirty);
        runs.give(PageNo(60), 70, Cleanness::Dirty);
        let all = PageNo(0)..PageNo(400);
        assert_eq!(
            runs.highest_dirty(all.clone(), 1000),
            Some((PageNo(60), 70))
        );
        assert_eq!(runs.highest_dirty(all.clone(), 8), Some((PageNo(122), 8)));
        assert_eq!(
            runs.highest_dirty(PageNo(0)..PageNo(60), 1000),
            Some((PageNo(10), 5))
        );
        assert_eq!(runs.highest_dirty(PageNo(15)..PageNo(60), 1000), None);
    }

    #[test]
    fn the_free_run_before_a_page_is_counted_across_groups() {
        let (_space, mut runs) = Space::new(2);
        let pages = 2 * GROUP_PAGES;
        runs.give(PageNo(100), pages - 100, Cleanness::Fresh);
        assert_eq!(
            runs.free_before(PageNo(pages as u32), PageNo(0)),
            pages - 100
        );
        assert_eq!(
            runs.free_before(PageNo(pages as u32), PageNo(5000)),
            pages - 5000
        );
        assert_eq!(runs.free_before(PageNo(100), PageNo(0)), 0);
    }

    /// In 4 TiB and more a run is found, taken and given back wherever it lies, and by its page number alone.
    #[test]
    #[cfg_attr(miri, ignore)] // The room for so many groups is only reserved elsewhere.
    fn the_last_page_of_four_tib_is_found_like_the_first() {
        let groups = Plan::unlimited().groups();
        let pages = groups * GROUP_PAGES;
        assert!(pages >= (4 << 40) / PAGE);
        let (_space, mut runs) = Space::new(groups);
        assert_eq!(runs.first_fit(1), None);
        for (at, n) in [(pages - 64, 64), (pages / 2 + 7, 33), (0, 1)] {
            let at = PageNo(at as u32);
            runs.give(at, n, Cleanness::Fresh);
            assert_eq!(runs.first_fit(n), Some(at));
            assert!(runs.take(at, n));
            assert_ne!(runs.first_fit(1), Some(at));
            runs.give(at, n, Cleanness::Dirty);
            let window = at..PageNo((at.index() + n) as u32);
            assert_eq!(runs.highest_dirty(window, n), Some((at, n)));
        }
        assert_eq!(runs.first_fit(1), Some(PageNo(0)));
        assert_eq!(runs.first_fit(2), Some(PageNo((pages / 2 + 7) as u32)));
        assert_eq!(runs.first_fit(64), Some(PageNo((pages - 64) as u32)));
        assert_eq!((runs.free_pages(), runs.dirty_pages()), (98, 98));
    }
}

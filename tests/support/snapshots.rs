//! Images of metadata regions: taken from a process, kept as a few bytes, damaged, and counted in another way than
//! the library does.
//!
//! ```text
//!   | page u32 | from u16 | n u16 | n bytes | page ...      little-endian; the rest of a page named is zero,
//!                                                           other pages cannot be read
//! ```

use slabside::class::{size_of_class, CLASSES, SPAN};
use slabside::meta::Area;
use slabside::slab::State;
use slabside::snapshot::{read, Broken, Snapshot, READ_MOST};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes in a page of an image.
const PAGE: usize = 4096;
/// Bytes before those of a piece.
const HEAD: usize = 8;
/// Pages whose numbers a window has at least.
const WINDOW: usize = 64 << 10;
/// Zeros in a row that end a piece: fewer cost less than the next one's head.
const GAP: usize = HEAD;

/// Those pages of a region that are known.
#[derive(Clone, Default)]
pub struct Image(BTreeMap<usize, Box<[u8; PAGE]>>);

impl Image {
    /// What any bytes stand for; what is left over is dropped.
    pub fn from_bytes(mut bytes: &[u8]) -> Image {
        let mut image = Image::default();
        while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
            let page = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let from = u16::from_le_bytes([head[4], head[5]]) as usize % PAGE;
            let n = u16::from_le_bytes([head[6], head[7]]) as usize;
            let n = n.min(PAGE - from).min(rest.len());
            image.page(page)[from..from + n].copy_from_slice(&rest[..n]);
            bytes = &rest[n..];
        }
        image
    }

    /// The bytes that stand for it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = |page: usize, from: usize, piece: &[u8]| {
            bytes.extend((page as u32).to_le_bytes());
            bytes.extend((from as u16).to_le_bytes());
            bytes.extend((piece.len() as u16).to_le_bytes());
            bytes.extend(piece);
        };
        for (&page, content) in &self.0 {
            let (mut at, mut pieces) = (0, 0);
            while let Some(skip) = content[at..].iter().position(|&byte| byte != 0) {
                let from = at + skip;
                let zeros = content[from..].windows(GAP).position(|w| w == [0; GAP]);
                at = zeros.map_or(PAGE, |n| from + n);
                piece(page, from, &content[from..at]);
                pieces += 1;
            }
            if pieces == 0 {
                piece(page, 0, &[]);
            }
        }
        bytes
    }

    fn page(&mut self, page: usize) -> &mut [u8; PAGE] {
        self.0.entry(page).or_insert_with(|| Box::new([0; PAGE]))
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len() * PAGE
    }

    /// Changes the byte at `offset` to another one.
    pub fn spoil(&mut self, offset: usize, by: u8) {
        self.page(offset / PAGE)[offset % PAGE] ^= by;
    }

    /// Changes the `pick`-th byte of those that it has to what `change` makes of it.
    pub fn poke(&mut self, pick: usize, change: impl FnOnce(u8) -> u8) {
        let count = self.0.len().max(1);
        if let Some(content) = self.0.values_mut().nth(pick / PAGE % count) {
            let byte = &mut content[pick % PAGE];
            *byte = change(*byte);
        }
    }

    /// Forgets the `pick`-th page.
    pub fn tear(&mut self, pick: usize) {
        let page = self.0.keys().nth(pick % self.0.len().max(1)).copied();
        page.map(|page| self.0.remove(&page));
    }

    /// The byte at `offset`, if it is known.
    pub fn byte(&self, offset: usize) -> Option<u8> {
        let mut byte = [0];
        self.copy(offset, &mut byte).then_some(byte[0])
    }

    fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        let (mut at, mut done) = (offset, 0);
        while done < into.len() {
            let Some(content) = self.0.get(&(at / PAGE)) else {
                return false;
            };
            let n = (PAGE - at % PAGE).min(into.len() - done);
            into[done..done + n].copy_from_slice(&content[at % PAGE..][..n]);
            (at, done) = (at + n, done + n);
        }
        true
    }

    /// Where the header table begins.
    pub fn slabs(&self) -> usize {
        let area = |area: Area| 32 + area as usize * 16;
        match self.word(area(Area::FirstSlabs) + 8, 8) {
            0 => self.word(area(Area::Slabs), 8) as usize,
            _ => self.word(area(Area::FirstSlabs), 8) as usize,
        }
    }

    /// Where the page map begins.
    pub fn map(&self) -> usize {
        self.word(32 + Area::PageMap as usize * 16, 8) as usize
    }

    /// Writes over the `n` bytes of `word` at `offset`.
    pub fn set(&mut self, offset: usize, n: usize, word: u64) {
        for (at, byte) in (offset..).zip(&word.to_le_bytes()[..n]) {
            self.page(at / PAGE)[at % PAGE] = *byte;
        }
    }

    /// The `n` bytes at `offset` as a word.
    pub fn word(&self, offset: usize, n: usize) -> u64 {
        let mut word = [0; 8];
        assert!(self.copy(offset, &mut word[..n]), "{offset:#x}");
        u64::from_le_bytes(word)
    }

    /// What the library reads in it. Panics where it reads more, or more often, than it may.
    pub fn read(&self) -> Result<Snapshot, Broken> {
        let reads = Cell::new(0);
        let found = read(|offset, into| {
            reads.set(reads.get() + 1);
            assert!(into.len() <= READ_MOST && offset < 1 << 47);
            self.copy(offset, into)
        });
        // One of the header; one a window of the page map, and one more a page of it that is there; two a run of
        // entries.
        let most = 1 + (1 << 15) + self.0.len() + 2 * self.len() / 4;
        assert!(reads.get() <= most, "{} reads", reads.get());
        found
    }

    /// The same by way of sets: each number in the page map, wherever it stands, names a header once. For an image
    /// that the library could read.
    fn count(&self) -> Snapshot {
        let bytes = self.word(32 + Area::PageMap as usize * 16 + 8, 8) as usize;
        let mut seen = Snapshot {
            slabs: 0,
            spans: 0,
            live_of: [0; CLASSES + 1],
            pages: 0,
            foreign: 0,
        };
        let mut ids = BTreeSet::new();
        for entry in self.entries(self.map(), bytes / 4) {
            match entry {
                0 => {}
                1 => seen.foreign += 1,
                id => {
                    seen.pages += 1;
                    ids.insert(id);
                }
            }
        }
        for id in ids {
            self.count_slab(self.slabs() + id * 128, &mut seen);
        }
        seen
    }

    /// The entries of the page map at `map`: of each window as far as 1,024 at a time are there.
    fn entries(&self, map: usize, n: usize) -> Vec<usize> {
        let known = self.0.keys().map(|page| page * PAGE);
        let first = |at: usize| at.saturating_sub(map) / 4 / WINDOW * WINDOW;
        let windows: BTreeSet<usize> = known.flat_map(|at| [first(at), first(at + PAGE)]).collect();
        let mut entries = Vec::new();
        for window in windows {
            for start in (window..(window + WINDOW).min(n)).step_by(1024) {
                let mut piece = vec![0; (n - start).min(1024) * 4];
                if !self.copy(map + start * 4, &mut piece) {
                    break;
                }
                let words = piece
                    .chunks_exact(4)
                    .map(|word| word.try_into().expect("four"));
                entries.extend(words.map(|word| u32::from_le_bytes(word) as usize));
            }
        }
        entries
    }

    /// The header at `offset`, by its drawing.
    fn count_slab(&self, offset: usize, seen: &mut Snapshot) {
        let [size, slots, class, state] =
            [(20, 4), (28, 2), (30, 1), (31, 1)].map(|(at, n)| self.word(offset + at, n) as usize);
        if state == State::Kept as usize {
            return;
        }
        let remote = if class == 0 { 128 } else { 64 };
        let bit = |bitmap: usize, slot: usize| {
            self.word(offset + bitmap + slot / 8, 1) >> (slot % 8) & 1 == 1
        };
        let live = (0..slots).filter(|&slot| !bit(32, slot) && !bit(remote, slot));
        assert!(class == SPAN || size == size_of_class(class));
        *(if class == SPAN {
            &mut seen.spans
        } else {
            &mut seen.slabs
        }) += 1;
        seen.live_of[class] += live.count() * size;
    }

    /// Reads it, twice, and counts it the other way: what can be read at all is counted alike.
    pub fn agree(&self) -> Result<Snapshot, Broken> {
        let found = self.read();
        assert_eq!(found, self.read());
        if let Ok(seen) = found {
            assert_eq!(seen, self.count());
            assert!(seen.live() <= seen.pages * PAGE);
            assert!(seen.slabs + seen.spans <= seen.pages);
        }
        found
    }
}

/// Copies those bytes of the process `pid` that lie at `address`; false where one is not there.
pub fn peek(pid: libc::pid_t, address: usize, into: &mut [u8]) -> bool {
    let ours = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let theirs = libc::iovec {
        iov_base: address as *mut _,
        iov_len: into.len(),
    };
    // SAFETY: the kernel writes into `into`, and checks what it reads.
    let copied = unsafe { libc::process_vm_readv(pid, &ours, 1, &theirs, 1, 0) };
    copied == into.len() as isize
}

/// What the region at `base` of the process `pid` says, and an image of all pages that were read for it.
pub fn take(pid: libc::pid_t, base: usize) -> (Result<Snapshot, Broken>, Image) {
    let image = RefCell::new(Image::default());
    let found = read(|offset, into| {
        let there = peek(pid, base + offset, into);
        if there {
            let mut image = image.borrow_mut();
            for page in offset / PAGE..=(offset + into.len() - 1) / PAGE {
                // Whole pages are open.
                assert!(peek(pid, base + page * PAGE, image.page(page)));
            }
        }
        there
    });
    (found, image.into_inner())
}

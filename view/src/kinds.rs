//! What the live blocks are, summed by type and size, and which texts are there more than once.

use crate::contents::{each_batch, each_part, words, Which};
use crate::model::{Heap, Slab};
use crate::source::{Source, Span};
use crate::types::{Type, Types, HEAD};
use rustc_hash::FxHashMap as HashMap;
use serde::Serialize;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

/// The most texts that are remembered to look for doubles. Beyond that the rest is only counted.
const TEXTS_MOST: usize = 1 << 23;
/// Bytes of a text that are kept to be shown.
const SHOWN: usize = 40;

/// Blocks of one size that look alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// What they look like. Empty means their contents are not there.
    pub looks: String,
    /// Bytes of a block. 0 for large blocks, which differ.
    pub size: u64,
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Blocks of text, and those among them that say the same as another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// How many there are.
    pub count: u64,
    /// Bytes of the blocks.
    pub bytes: u64,
    /// How many say what another one says: of ten alike nine.
    pub doubles: u64,
    /// Bytes of those.
    pub double_bytes: u64,
    /// Those that are there more than once, those of the most bytes first.
    pub repeated: Vec<Repeated>,
}

/// A text that is there more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// How often.
    pub count: u64,
    /// Bytes of the blocks.
    pub bytes: u64,
    /// One of the blocks.
    pub example: u64,
    /// Bytes of that one.
    pub size: u64,
    /// How it begins.
    pub text: String,
}

/// All of it.
#[derive(Default)]
pub struct Survey {
    /// Kinds, those of the most bytes first.
    pub kinds: Vec<Kind>,
    /// Texts. None where only their first words are there: those do not tell which say the same.
    pub texts: Option<Texts>,
    /// What is left out: blocks that the program has freed, and that wait in a quarantine.
    pub left_out: LeftOut,
}

/// Blocks that are no longer the program's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The kinds of live blocks, those of the most bytes first. Only what is resident is looked at.
pub fn kinds(source: &dyn Source, heap: &Heap, types: &mut Types) -> Vec<Kind> {
    let mut counted = Counted::default();
    counted.count(source, heap, types, &HashMap::default());
    counted.kinds(types)
}

/// The kinds and texts of the live blocks of `heaps`, and with them which Rust objects are only known by pointers to
/// them. Only what is resident is looked at.
pub fn survey(source: &dyn Source, heaps: &[Heap], types: &mut Types) -> Survey {
    let mut counted = Counted {
        texts: source.has_contents().then(HashMap::default),
        ..Counted::default()
    };
    let pairs = types.has_pairs(source);
    let mut left_out = LeftOut::default();
    for heap in heaps {
        let named = match pairs {
            true => pairs_in(source, heap, types),
            false => HashMap::default(),
        };
        counted.count(source, heap, types, &named);
        for slab in &heap.slabs {
            left_out.count += u64::from(slab.quarantined);
            left_out.bytes += u64::from(slab.quarantined) * slab.size;
        }
    }
    let texts = counted.texts();
    let kinds = counted.kinds(types);
    Survey {
        kinds,
        texts,
        left_out,
    }
}

/// Texts that are alike.
struct Alike {
    count: u64,
    bytes: u64,
    example: u64,
    size: u64,
    text: Box<[u8]>,
}

#[derive(Default)]
struct Counted {
    sums: HashMap<(u64, Type), (u64, u64)>,
    /// By what the text says, as a number. None means that they are not asked for.
    texts: Option<HashMap<u64, Alike>>,
    text_count: u64,
    text_bytes: u64,
}

impl Counted {
    fn add(&mut self, size: u64, known: Type, bytes: u64) {
        let sum = self.sums.entry((size, known)).or_default();
        sum.0 += 1;
        sum.1 += bytes;
    }

    /// Counts the live blocks of `heap`. `named` are types of some of them that pointers to them tell.
    fn count(
        &mut self,
        source: &dyn Source,
        heap: &Heap,
        types: &mut Types,
        named: &HashMap<u64, Type>,
    ) {
        each_batch(source, &heap.slabs, Which::Present, |batch, slabs| {
            for slab in slabs {
                each_slot(heap, slab, |block| {
                    let head = head_of(block);
                    if !batch.has(head) {
                        return self.add(slab.size, Type::UNKNOWN, slab.size);
                    }
                    let known = match named.get(&block.start) {
                        Some(&known) => known,
                        None => types.of(source, heap, batch.bytes(head)),
                    };
                    self.add(slab.size, known, slab.size);
                    self.add_text(types, known, block, batch.bytes(block));
                });
            }
        });
        for block in heap.large.iter().filter(|block| !block.stray) {
            let mut head = [0; HEAD];
            let known = match source.peek(block.span.start, &mut head) {
                true => types.of(source, heap, &head),
                false => Type::UNKNOWN,
            };
            self.add(0, known, block.span.bytes());
        }
    }

    fn add_text(&mut self, types: &Types, known: Type, block: Span, bytes: &[u8]) {
        let (Some(texts), Some(text)) = (&mut self.texts, types.text_in(known, bytes)) else {
            return;
        };
        self.text_count += 1;
        self.text_bytes += block.bytes();
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        let hash = hasher.finish();
        if texts.len() >= TEXTS_MOST && !texts.contains_key(&hash) {
            return;
        }
        let alike = texts.entry(hash).or_insert_with(|| Alike {
            count: 0,
            bytes: 0,
            example: block.start,
            size: block.bytes(),
            text: text[..text.len().min(SHOWN)].into(),
        });
        alike.count += 1;
        alike.bytes += block.bytes();
    }

    fn texts(&mut self) -> Option<Texts> {
        let all = self.texts.take()?;
        let mut texts = Texts {
            count: self.text_count,
            bytes: self.text_bytes,
            ..Texts::default()
        };
        for alike in all.into_values().filter(|alike| alike.count > 1) {
            texts.doubles += alike.count - 1;
            texts.double_bytes += alike.bytes - alike.size;
            texts.repeated.push(Repeated {
                count: alike.count,
                bytes: alike.bytes,
                example: alike.example,
                size: alike.size,
                text: String::from_utf8_lossy(&alike.text).into_owned(),
            });
        }
        let order = |one: &Repeated| (std::cmp::Reverse(one.bytes), one.example);
        texts.repeated.sort_by_key(order);
        Some(texts)
    }

    fn kinds(self, types: &Types) -> Vec<Kind> {
        let mut all: Vec<Kind> = self
            .sums
            .into_iter()
            .map(|((size, known), (count, bytes))| Kind {
                looks: types.name(known).into(),
                size,
                count,
                bytes,
            })
            .collect();
        all.sort_by(|a, b| {
            let order = |kind: &Kind| (std::cmp::Reverse(kind.bytes), kind.size);
            order(a).cmp(&order(b)).then_with(|| a.looks.cmp(&b.looks))
        });
        all
    }
}

/// Calls `visit` with each live block of `slab`.
fn each_slot(heap: &Heap, slab: &Slab, mut visit: impl FnMut(Span)) {
    let bits = heap.bits(slab);
    for slot in (0..slab.slots).filter(|&slot| bits.is_live(slot as usize)) {
        let start = slab.address(slot);
        let end = start + slab.size;
        visit(Span { start, end });
    }
}

fn head_of(block: Span) -> Span {
    Span {
        end: block.end.min(block.start + HEAD as u64),
        ..block
    }
}

/// Types of blocks that a pointer leads to beside which a table of functions stands.
fn pairs_in(source: &dyn Source, heap: &Heap, types: &mut Types) -> HashMap<u64, Type> {
    let constants = Constants::of(source);
    let mut found = HashMap::default();
    let mut look = |bytes: &[u8]| {
        let mut last = 0;
        for word in words(bytes) {
            let pointer = std::mem::replace(&mut last, word);
            if word & 7 != 0 || !constants.holds(word) {
                continue;
            }
            let Some(slab) = heap.slab_at(pointer) else {
                continue;
            };
            let slot = slab.slot_at(pointer);
            if slot >= slab.slots || slab.address(slot) != pointer {
                continue;
            }
            if let Some((known, bytes)) = types.behind(source, word) {
                // Beside the value a block may have counts, and what its class leaves over.
                if bytes <= slab.size && slab.size <= 4 * bytes + 64 {
                    found.insert(pointer, known);
                }
            }
        }
    };
    each_batch(source, &heap.slabs, Which::Present, |batch, slabs| {
        for slab in slabs {
            each_slot(heap, slab, |block| look(batch.bytes(block)));
        }
    });
    for block in heap.large.iter().filter(|block| !block.stray) {
        each_part(source, block.span, Which::Present, |batch, part| {
            look(batch.bytes(part));
        });
    }
    let apart =
        |span: Span| heap.window_at(span.start).is_none() && heap.large_at(span.start).is_none();
    let own = heap.region.span();
    for mapping in source.mappings().iter().filter(|one| one.read && one.write) {
        if apart(mapping.span) && mapping.span.common(own).bytes() == 0 {
            each_part(source, mapping.span, Which::Present, |batch, part| {
                look(batch.bytes(part));
            });
        }
    }
    found
}

/// Where constants of files lie.
struct Constants(Vec<Span>);

impl Constants {
    fn of(source: &dyn Source) -> Constants {
        let all = source.mappings().iter();
        let constant = all.filter(|one| one.read && !one.write && !one.execute);
        let named = constant.filter(|one| one.name.starts_with('/'));
        Constants(named.map(|one| one.span).collect())
    }

    fn holds(&self, address: u64) -> bool {
        let index = self.0.partition_point(|span| span.end <= address);
        self.0.get(index).is_some_and(|span| span.holds(address))
    }
}

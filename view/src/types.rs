//! What a block is: the type of the program's object in it, as its first words tell.
//!
//! ```text
//!   types/*.toml   for each language: where in an object the word lies that leads to its type, and how that is named
//!   else           text, a pointer, a small number, zero
//! ```
//!
//! Of text only that it is text is told.

use crate::model::Heap;
use crate::source::{Source, Span};
use crate::symbols::Symbols;
use rustc_hash::FxHashMap as HashMap;
use serde::Deserialize;
use std::sync::OnceLock;

/// Bytes of a block that are looked at.
pub const HEAD: usize = 48;
/// The fewest bytes that are taken for text.
const TEXT_LEAST: usize = 4;
/// The most bytes of a type's name.
const NAME: u64 = 64;
/// The most bytes and the largest alignment of a value behind a table of functions.
const VALUE_MOST: u64 = 1 << 32;
const ALIGNMENT_MOST: u64 = 1 << 16;

/// The tables that are built in.
const TABLES: [&str; 6] = [
    include_str!("../types/cplusplus.toml"),
    include_str!("../types/objective_c.toml"),
    include_str!("../types/cpython.toml"),
    include_str!("../types/rust.toml"),
    include_str!("../types/sds.toml"),
    include_str!("../types/apart.toml"),
];

/// How a language's objects are told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The language's name.
    #[allow(dead_code)] // For who reads the file.
    language: String,
    /// What has to be there for its objects to be looked for.
    anchor: Option<Anchor>,
    #[serde(default)]
    object: Vec<Object>,
    pair: Option<Pair>,
    #[serde(default)]
    text: Vec<Text>,
    #[serde(default)]
    apart: Vec<Apart>,
}

/// A symbol of a file whose path contains `file`. Of the program's own, where that is empty.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Anchor {
    symbol: String,
    file: String,
}

/// An object one of whose first words leads to its type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    at: Vec<usize>,
    symbol: Option<String>,
    type_of_type: Option<u64>,
    #[serde(default)]
    counted: bool,
    #[serde(default)]
    name_of_type: u64,
    name: String,
}

/// A pointer to a block beside one to a table of functions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    drop: Vec<String>,
    name: String,
}

/// Text behind lengths and flags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    length: Number,
    room: Option<Number>,
    flags: Flags,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Number {
    at: usize,
    bytes: usize,
    /// By how many bits it is shifted.
    #[serde(default)]
    shift: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flags {
    at: usize,
    mask: u8,
    value: u8,
}

/// A program whose objects lie elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Apart {
    file: String,
    note: String,
}

fn tables() -> &'static [Table] {
    static PARSED: OnceLock<Vec<Table>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let all = TABLES.iter();
        // A test reads each of them. One that is no table has nothing to say.
        all.filter_map(|text| toml::from_str(text).ok()).collect()
    })
}

/// What lies where, as far as a type needs it.
pub trait Blocks {
    /// Whether a block, or a slot for one, lies at `address`, and its bytes. None of a large one.
    fn block_at(&self, address: u64) -> Option<Option<u64>>;
}

impl Blocks for Heap {
    fn block_at(&self, address: u64) -> Option<Option<u64>> {
        match self.slab_at(address) {
            Some(slab) => Some(Some(slab.size)),
            None => self.large_at(address).map(|_| None),
        }
    }
}

/// A type, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(u32);

/// What blocks are where no table knows.
const PLAIN: [&str; 8] = [
    "",
    "all zero",
    "text",
    "first word zero",
    "small integer",
    "pointer to a large block",
    "pointer outside the heap",
    "other bytes",
];

impl Type {
    /// Its contents are not there.
    pub const UNKNOWN: Type = Type(0);
    /// Nothing but zeros.
    pub const ZERO: Type = Type(1);
    /// Text.
    pub const TEXT: Type = Type(2);
    const FIRST_ZERO: Type = Type(3);
    const INTEGER: Type = Type(4);
    const TO_LARGE: Type = Type(5);
    const TO_OTHERS: Type = Type(6);
    const OTHER: Type = Type(7);
}

/// The types seen so far of one target.
pub struct Types {
    symbols: Symbols,
    names: Vec<String>,
    numbers: HashMap<String, Type>,
    /// Which types are text that a table knows, and how many bytes lie before it.
    texts: HashMap<Type, usize>,
    /// What a word says, by rule and value.
    words: HashMap<(u32, u64), Option<Type>>,
    /// What a table of functions says, by address.
    values: HashMap<u64, Option<(Type, u64)>>,
    /// Types by the size of the blocks that the first word points to.
    pointers: HashMap<u64, Type>,
    /// Where the anchor of each table lies. 0 means that the target has none.
    anchors: Option<Vec<u64>>,
    files: Files,
}

impl Default for Types {
    fn default() -> Types {
        Types::new()
    }
}

/// The rule of words that are plain pointers.
const POINTER: u32 = u32::MAX;

impl Types {
    /// None yet.
    pub fn new() -> Types {
        let mut types = Types {
            symbols: Symbols::new(),
            names: Vec::new(),
            numbers: HashMap::default(),
            texts: HashMap::default(),
            words: HashMap::default(),
            values: HashMap::default(),
            pointers: HashMap::default(),
            anchors: None,
            files: Files::default(),
        };
        for name in PLAIN {
            types.number(name.into());
        }
        types
    }

    /// The type's name. Empty if contents were not there.
    pub fn name(&self, known: Type) -> &str {
        self.names.get(known.0 as usize).map_or("", String::as_str)
    }

    /// The name of what a block is whose first bytes are `bytes`.
    pub fn looks(&mut self, source: &dyn Source, heap: &Heap, bytes: &[u8]) -> String {
        let found = self.of(source, heap, bytes);
        self.name(found).to_string()
    }

    /// Forgets what words said: the target may have changed since. Names and the files' symbols stay.
    pub fn forget(&mut self) {
        self.words.clear();
        self.values.clear();
        self.anchors = None;
    }

    /// The symbols.
    pub fn symbols(&mut self) -> &mut Symbols {
        &mut self.symbols
    }

    fn number(&mut self, name: String) -> Type {
        let next = Type(self.names.len() as u32);
        let number = *self.numbers.entry(name.clone()).or_insert(next);
        if number == next {
            self.names.push(name);
        }
        number
    }

    /// What a block is whose first bytes, [`HEAD`] of them or all, are `bytes`.
    pub fn of(&mut self, source: &dyn Source, blocks: &dyn Blocks, bytes: &[u8]) -> Type {
        if bytes.iter().all(|&byte| byte == 0) {
            return Type::ZERO;
        }
        if let Some(found) = self.object(source, bytes) {
            return found;
        }
        let word = word_at(bytes, 0);
        let is_address = word >> 47 == 0 && word >= 1 << 32;
        // Before text: of some addresses all bytes are letters.
        match blocks.block_at(word).filter(|_| is_address) {
            Some(Some(size)) => return self.pointer_to(size),
            Some(None) => return Type::TO_LARGE,
            None => {}
        }
        if let Some(found) = self.text(bytes) {
            return found;
        }
        match word {
            0 => Type::FIRST_ZERO,
            _ if word < 1 << 32 => Type::INTEGER,
            _ if !is_address || source.mapping_at(word).is_none() => Type::OTHER,
            _ if !self.files.holds(word) => Type::TO_OTHERS,
            _ => self.pointer_to_file(source, word),
        }
    }

    fn pointer_to(&mut self, size: u64) -> Type {
        if let Some(&known) = self.pointers.get(&size) {
            return known;
        }
        let found = self.number(format!("pointer to a block of {size} bytes"));
        self.pointers.insert(size, found);
        found
    }

    /// A word that points into a file.
    fn pointer_to_file(&mut self, source: &dyn Source, word: u64) -> Type {
        if let Some(known) = self.words.get(&(POINTER, word)) {
            return known.unwrap_or(Type::TO_OTHERS);
        }
        let found = self
            .symbols
            .name(source, word)
            .map(|name| match name.offset {
                0 => format!("pointer to {}", name.text),
                _ => format!("pointer into {}", name.text),
            });
        let found = found.map(|name| self.number(name));
        self.words.insert((POINTER, word), found);
        found.unwrap_or(Type::TO_OTHERS)
    }

    // ---- tables ---------------------------------------------------------------------------------

    /// The type of an object of a language that has a table.
    fn object(&mut self, source: &dyn Source, bytes: &[u8]) -> Option<Type> {
        if self.anchors.is_none() {
            self.find_anchors(source);
            self.files = Files::of(source);
        }
        let mut rule = 0;
        for (index, table) in tables().iter().enumerate() {
            let anchor = self.anchors.as_ref()?.get(index).copied();
            for object in &table.object {
                rule += 1;
                if table.anchor.is_some() && anchor == Some(0) {
                    continue;
                }
                for &at in &object.at {
                    let word = word_at(bytes, at);
                    if word >> 47 != 0 || word & 7 != 0 || !object.may_be(bytes, at) {
                        continue;
                    }
                    if word < 4096 || object.symbol.is_some() && !self.files.holds(word) {
                        continue;
                    }
                    let known = self.words.get(&(rule, word)).copied();
                    let found = known.unwrap_or_else(|| {
                        let anchor = anchor.unwrap_or(0);
                        let found = self.type_of(source, object, anchor, word);
                        self.words.insert((rule, word), found);
                        found
                    });
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// The type that `word` of an object leads to.
    fn type_of(
        &mut self,
        source: &dyn Source,
        object: &Object,
        anchor: u64,
        word: u64,
    ) -> Option<Type> {
        let name = match (&object.symbol, object.type_of_type) {
            (Some(prefix), _) => self.symbols.after(source, word, prefix)?,
            (None, Some(own)) => {
                let above = source.word(word.checked_add(own)?)?;
                let top = |at: u64| source.word(at.checked_add(own)?);
                if above != anchor && top(above)? != anchor {
                    return None;
                }
                name_at(source, source.word(word + object.name_of_type)?)?
            }
            (None, None) => return None,
        };
        Some(self.number(object.name.replace("{}", &name)))
    }

    fn find_anchors(&mut self, source: &dyn Source) {
        let mut address = |table: &Table| {
            let anchor = table.anchor.as_ref()?;
            self.symbols.address(source, &anchor.file, &anchor.symbol)
        };
        let all = tables().iter().map(|table| address(table).unwrap_or(0));
        self.anchors = Some(all.collect());
    }

    /// Text, with nothing before it or what a table knows.
    fn text(&mut self, bytes: &[u8]) -> Option<Type> {
        let length = printable(bytes);
        if length >= TEXT_LEAST && (length == bytes.len() || bytes[length] == 0) {
            return Some(Type::TEXT);
        }
        for text in tables().iter().flat_map(|table| &table.text) {
            if let Some(before) = text.begins_at(bytes) {
                let found = self.number(text.name.clone());
                self.texts.insert(found, before);
                return Some(found);
            }
        }
        None
    }

    /// The text in a block of type `known` with contents `bytes`, if that is text, without what lies before and after
    /// it.
    pub fn text_in<'a>(&self, known: Type, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let before = match known {
            Type::TEXT => 0,
            other => *self.texts.get(&other)?,
        };
        let bytes = bytes.get(before..)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        bytes.get(..end.unwrap_or(bytes.len()))
    }

    /// Whose objects lie apart from the heap: a note for each.
    pub fn notes(source: &dyn Source) -> Vec<&'static str> {
        let aparts = tables().iter().flat_map(|table| &table.apart);
        let here = |file: &str| {
            let mut mapped = source.mappings().iter().filter(|one| one.execute);
            mapped.any(|mapping| mapping.name.contains(file))
        };
        aparts
            .filter(|apart| here(&apart.file))
            .map(|apart| apart.note.as_str())
            .collect()
    }

    /// Whether there is a language here whose objects are known by pairs of words.
    pub fn has_pairs(&mut self, source: &dyn Source) -> bool {
        let tables = tables().iter().filter(|table| table.pair.is_some());
        let mut anchors = tables.filter_map(|table| table.anchor.as_ref());
        let symbols = &mut self.symbols;
        anchors.any(|one| symbols.address(source, &one.file, &one.symbol).is_some())
    }

    /// The type of the value that a table of functions at `word` is for, and its bytes.
    pub fn behind(&mut self, source: &dyn Source, word: u64) -> Option<(Type, u64)> {
        if let Some(known) = self.values.get(&word) {
            return *known;
        }
        let found = self.behind_table(source, word);
        self.values.insert(word, found);
        found
    }

    fn behind_table(&mut self, source: &dyn Source, word: u64) -> Option<(Type, u64)> {
        let constant = source.mapping_at(word)?;
        if constant.execute || constant.write || !constant.name.starts_with('/') {
            return None;
        }
        let mut words = [0; 4];
        for (index, one) in words.iter_mut().enumerate() {
            *one = source.word(word.checked_add(8 * index as u64)?)?;
        }
        let [dropped, bytes, alignment, method] = words;
        let code = |at: u64| source.mapping_at(at).is_some_and(|one| one.execute);
        let possible = (dropped == 0 || code(dropped))
            && code(method)
            && alignment.is_power_of_two()
            && alignment <= ALIGNMENT_MOST
            && bytes.is_multiple_of(alignment)
            && (1..VALUE_MOST).contains(&bytes);
        if !possible {
            return None;
        }
        let pair = tables().iter().find_map(|table| table.pair.as_ref())?;
        let name = self.value_name(source, pair, dropped, method)?;
        Some((self.number(pair.name.replace("{}", &name)), bytes))
    }

    /// The type that a function drops, or else whose method one is.
    fn value_name(
        &mut self,
        source: &dyn Source,
        pair: &Pair,
        dropped: u64,
        method: u64,
    ) -> Option<String> {
        let drop = self.symbols.name(source, dropped);
        let dropped = drop.and_then(|name| {
            let known = pair.drop.iter();
            let mut after = known.filter_map(|before| name.text.split_once(before.as_str()));
            let (_, rest) = after.next()?;
            Some(rest.strip_suffix('>').unwrap_or(rest).to_string())
        });
        if dropped.is_some() {
            return dropped;
        }
        let method = self.symbols.name(source, method)?;
        let (name, _) = method.text.strip_prefix('<')?.split_once(" as ")?;
        Some(name.to_string())
    }
}

impl Object {
    /// Whether the word before that at `at` is a count, where there has to be one.
    fn may_be(&self, bytes: &[u8], at: usize) -> bool {
        let count = || at.checked_sub(8).map_or(0, |before| word_at(bytes, before));
        !self.counted || count() as u32 != 0
    }
}

/// Where files are mapped.
#[derive(Default)]
struct Files(Vec<Span>);

impl Files {
    fn of(source: &dyn Source) -> Files {
        let all = source.mappings().iter();
        let named = all.filter(|one| one.name.starts_with('/') && !one.name.starts_with("/dev/"));
        let mut spans: Vec<Span> = Vec::new();
        for span in named.map(|one| one.span) {
            match spans.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => spans.push(span),
            }
        }
        // What a file does not hold of its variables follows it.
        let behind = |span: &Span| {
            let next = source.mapping_at(span.end);
            next.filter(|next| next.name.is_empty() && next.write)
                .map_or(span.end, |next| next.span.end)
        };
        spans.iter_mut().for_each(|span| span.end = behind(span));
        Files(spans)
    }

    fn holds(&self, address: u64) -> bool {
        let index = self.0.partition_point(|span| span.end <= address);
        self.0.get(index).is_some_and(|span| span.holds(address))
    }
}

impl Text {
    /// How many bytes lie before the text in `bytes`, if it is this kind of text.
    fn begins_at(&self, bytes: &[u8]) -> Option<usize> {
        let flags = bytes.get(self.flags.at)?;
        let length = self.length.of(bytes)?;
        let room = match &self.room {
            Some(room) => room.of(bytes)?,
            None => length,
        };
        if flags & self.flags.mask != self.flags.value || length < TEXT_LEAST || room < length {
            return None;
        }
        let before = self.flags.at + 1;
        let seen = bytes.get(before..)?;
        let shown = length.min(seen.len());
        let ends = seen.get(length).is_none_or(|&byte| byte == 0);
        (ends && shown > 0 && printable(&seen[..shown]) == shown).then_some(before)
    }
}

impl Number {
    fn of(&self, bytes: &[u8]) -> Option<usize> {
        let bytes = bytes.get(self.at..self.at + self.bytes)?;
        let shifted = bytes.iter().rev();
        let number = shifted.fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        Some(number >> self.shift)
    }
}

/// How many of the first bytes are those of text.
fn printable(bytes: &[u8]) -> usize {
    let is_text = |byte: &&u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    bytes.iter().take_while(is_text).count()
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

/// The name that ends in zero at `address`.
fn name_at(source: &dyn Source, address: u64) -> Option<String> {
    let mapping = source.mapping_at(address)?;
    let end = mapping.span.end.min(address + NAME);
    let mut bytes = vec![0; (end - address) as usize];
    if !source.read(address, &mut bytes) {
        return None;
    }
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let begins = |first: &u8| first.is_ascii_alphabetic() || *first == b'_';
    let good =
        bytes[..end].first().is_some_and(begins) && bytes[..end].iter().all(u8::is_ascii_graphic);
    good.then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_is_built_in_can_be_read() {
        for text in TABLES {
            let read: std::result::Result<Table, _> = toml::from_str(text);
            assert!(read.is_ok(), "{read:?}");
        }
        assert_eq!(tables().len(), TABLES.len());
    }

    #[test]
    fn text_may_lie_behind_lengths_and_flags() {
        let mut types = Types::new();
        let mut text = |bytes: &[u8]| {
            let found = types.text(bytes);
            found.map(|found| types.name(found).to_string())
        };
        assert_eq!(text(b"abcd\0\xff").as_deref(), Some("text"));
        assert_eq!(text(b"abc\0\xff"), None, "too short");
        assert_eq!(text(b"\x04\x05\x01abcd\0").as_deref(), Some("sds text"));
        assert_eq!(text(b"\x80key:000000012345\0").as_deref(), Some("sds text"));
        assert_eq!(text(b"\x80key:00000001234\0"), None, "another length");
        assert_eq!(text(b"\x04\x03\x01abcd\0"), None, "longer than its room");
        // Its fifth byte is none of the flags that stand after two lengths of two bytes.
        assert_eq!(text(b"\x04\x05\x01acbde"), None, "no zero after it");
        assert_eq!(
            text(b"\x2c\x01\x2c\x01\x02abcdefgh").as_deref(),
            Some("sds text")
        );
    }
}

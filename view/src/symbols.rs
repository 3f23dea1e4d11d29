//! Names for addresses in the program's own files, and what the first words of a block look like.

use crate::model::Heap;
use crate::source::Source;
use object::{Object, ObjectSegment, ObjectSymbol};
use std::collections::HashMap;

/// The largest file that is read for its symbols, in bytes.
const FILE_MOST: u64 = 1 << 30;
/// The most characters of a name.
const NAME_MOST: usize = 200;

/// The symbols of the files that were asked for.
#[derive(Default)]
pub struct Symbols {
    files: HashMap<String, Option<File>>,
}

struct File {
    /// What is added to a symbol's address.
    bias: u64,
    /// Address, bytes and name, by address.
    symbols: Vec<(u64, u64, String)>,
}

/// A name for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The symbol, made readable.
    pub text: String,
    /// Bytes after its start.
    pub offset: u64,
    /// Whether it is a C++ class's table of virtual functions.
    pub is_vtable: bool,
}

impl Symbols {
    /// None yet.
    pub fn new() -> Symbols {
        Symbols::default()
    }

    /// The symbol that holds `address`.
    pub fn name(&mut self, source: &dyn Source, address: u64) -> Option<Name> {
        let mapping = source.mapping_at(address)?;
        let path = mapping.name.clone();
        if !path.starts_with('/') || path.starts_with("/memfd:") || path.starts_with("/dev/") {
            return None;
        }
        let low = source
            .mappings()
            .iter()
            .filter(|other| other.name == path)
            .map(|other| other.span.start.wrapping_sub(other.offset))
            .min()?;
        let root = source.root();
        let file = self
            .files
            .entry(path.clone())
            .or_insert_with(|| File::read(&format!("{root}{path}"), low))
            .as_ref()?;
        let at = address.wrapping_sub(file.bias);
        let index = file.symbols.partition_point(|symbol| symbol.0 <= at);
        let (start, bytes, name) = file.symbols[..index].last()?;
        (at - start < *bytes).then(|| Name {
            text: readable(name),
            offset: at - start,
            is_vtable: name.starts_with("_ZTV"),
        })
    }
}

impl File {
    fn read(path: &str, low: u64) -> Option<File> {
        let metadata = std::fs::metadata(path).ok()?;
        if !metadata.is_file() || metadata.len() > FILE_MOST {
            return None;
        }
        let data = std::fs::read(path).ok()?;
        let object = object::File::parse(&*data).ok()?;
        let first = object.segments().next()?;
        let bias = match object.kind() {
            object::ObjectKind::Executable => 0,
            _ => low.wrapping_sub(first.address() & !4095),
        };
        let all = object.symbols().chain(object.dynamic_symbols());
        let mut symbols: Vec<(u64, u64, String)> = all
            .filter(|symbol| symbol.size() > 0 && symbol.is_definition())
            .filter_map(|symbol| {
                let name = symbol.name().ok()?.to_string();
                Some((symbol.address(), symbol.size(), name))
            })
            .collect();
        symbols.sort();
        symbols.dedup_by_key(|symbol| symbol.0);
        Some(File { bias, symbols })
    }
}

/// A symbol as its language writes it.
fn readable(symbol: &str) -> String {
    let text = match rustc_demangle::try_demangle(symbol) {
        Ok(name) => format!("{name:#}"),
        Err(_) if symbol.starts_with("_Z") && symbol.len() < 4096 => {
            cpp_demangle::Symbol::new(symbol)
                .ok()
                .and_then(|name| name.demangle().ok())
                .unwrap_or_else(|| symbol.into())
        }
        Err(_) => symbol.into(),
    };
    text.chars().take(NAME_MOST).collect()
}

/// What a block whose first bytes are `bytes` looks like. Of text only that it is text.
pub fn looks_like(source: &dyn Source, heap: &Heap, symbols: &mut Symbols, bytes: &[u8]) -> String {
    let word = bytes
        .get(..8)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    if bytes.iter().all(|&byte| byte == 0) {
        return "all zero".into();
    }
    let text = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        .count();
    if text >= 4 && (text == bytes.len() || bytes[text] == 0) {
        return "text".into();
    }
    if word == 0 {
        return "first word zero".into();
    }
    if word < 1 << 32 {
        return "small integer".into();
    }
    if let Some(slab) = heap.slab_at(word) {
        return format!("pointer to a block of {} bytes", slab.size);
    }
    if heap.large_at(word).is_some() {
        return "pointer to a large block".into();
    }
    if word >> 47 != 0 || source.mapping_at(word).is_none() {
        return "other bytes".into();
    }
    match symbols.name(source, word) {
        Some(name) if name.is_vtable => {
            let class = name
                .text
                .trim_start_matches("{vtable(")
                .trim_end_matches(")}");
            let class = class.trim_start_matches("vtable for ");
            format!("{class} object")
        }
        Some(name) if name.offset == 0 => format!("pointer to {}", name.text),
        Some(name) => format!("pointer to {}+{:#x}", name.text, name.offset),
        None => "pointer outside the heap".into(),
    }
}

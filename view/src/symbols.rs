//! Names for addresses in the program's own files.

use crate::source::{Mapping, Source, Span};
use object::{Object, ObjectSegment, ObjectSymbol};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest file that is read for its symbols, in bytes.
const FILE_MOST: u64 = 1 << 30;
/// The most characters of a name.
const NAME_MOST: usize = 200;

/// How the name of a library begins that brings the allocator.
pub(crate) const LIBRARY: &str = "libslabside";
/// The crates that the allocator is built of.
const CRATES: [&str; 6] = [
    "slabside",
    "slabside_base",
    "slabside_core",
    "slabside_c",
    "slabside_preload",
    "slabside_static",
];
/// Modules of the allocator that no program names: where one stands among the types of a generic function, that is the
/// allocator's too.
const INTERNALS: [&str; 8] = [
    "slabside_core::allocator::",
    "slabside_core::heap::",
    "slabside_base::os::",
    "slabside_core::tls::",
    // As they were named while all was one crate: a core file may be older than this reader.
    "slabside::allocator::",
    "slabside::heap::",
    "slabside::os::",
    "slabside::tls::",
];
/// Functions through which a program calls the allocator.
const ENTRIES: [&str; 21] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "free_sized",
    "free_aligned_sized",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "valloc",
    "pvalloc",
    "operator delete",
    "operator new",
    "__rust_alloc",
    "__rust_realloc",
    "__rust_alloc_zeroed",
    "__rdl_alloc",
    "__rg_alloc",
    "__rg_realloc",
    "__rg_alloc_zeroed",
];

/// Whether a function is the allocator's, or only stands between it and the program. Its name is as it is written in its
/// language.
pub fn is_allocators(function: &str) -> bool {
    // A part of a longer name is another crate's.
    let begins = |at: usize| {
        let before = function[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_' && letter != ':')
    };
    let is_inside = |module: &str| function.match_indices(module).any(|(at, _)| begins(at));
    if INTERNALS.iter().any(|module| is_inside(module)) {
        return true;
    }
    let plain = function.split('(').next().unwrap_or(function);
    let plain = plain.trim_end_matches("[]").trim_start_matches('<');
    match plain.split_once("::") {
        Some(("__rustc", rest)) => rest.starts_with("__r"),
        Some((first, _)) => CRATES.contains(&first),
        None => ENTRIES.contains(&plain) || plain.starts_with("slabside_"),
    }
}

/// The symbols of the files that were asked for.
#[derive(Default)]
pub struct Symbols {
    /// By path, and where the first byte of it is mapped: a file may be mapped more than once.
    files: HashMap<(String, u64), Option<File>>,
}

struct File {
    /// What is added to a symbol's address.
    bias: u64,
    /// The address of its first page, before anything is added.
    first: u64,
    /// Where its segments lie.
    extent: Span,
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
}

impl Symbols {
    /// None yet.
    pub fn new() -> Symbols {
        Symbols::default()
    }

    /// The symbol that holds `address`.
    pub fn name(&mut self, source: &dyn Source, address: u64) -> Option<Name> {
        let (name, offset) = self.mangled(source, address)?;
        let text = readable(name);
        Some(Name { text, offset })
    }

    /// The symbol that holds `address` in the file `mapped`.
    pub(crate) fn name_of(&mut self, mapped: &Mapped<'_>, address: u64) -> Option<Name> {
        let file = self.file(mapped)?;
        let (name, offset) = file.symbol_at(address.wrapping_sub(file.bias))?;
        let text = readable(name);
        Some(Name { text, offset })
    }

    /// The symbol that holds the byte which is mapped `offset` bytes after the first one of the file at `path`.
    pub fn name_in(&mut self, path: &str, offset: u64) -> Option<Name> {
        let read = || File::parse(&contents(path)?, 0);
        let file = self
            .files
            .entry((path.into(), 0))
            .or_insert_with(read)
            .as_ref()?;
        let (name, offset) = file.symbol_at(offset.wrapping_add(file.first))?;
        let text = readable(name);
        Some(Name { text, offset })
    }

    /// What the symbol that holds `address` is about, if its name in the file begins with `prefix`: of C++'s tables the
    /// class, of others what follows.
    pub fn after(&mut self, source: &dyn Source, address: u64, prefix: &str) -> Option<String> {
        let (name, _) = self.mangled(source, address)?;
        let rest = name.strip_prefix(prefix)?;
        if !prefix.starts_with("_Z") {
            return Some(rest.chars().take(NAME_MOST).collect());
        }
        let text = readable(name);
        let class = text.trim_start_matches("{vtable(");
        let class = class.trim_end_matches(")}");
        Some(class.trim_start_matches("vtable for ").to_string())
    }

    /// The address of `symbol` in a file that is mapped, whose path contains `part`. Where `part` is empty, in the
    /// program's own file.
    pub fn address(&mut self, source: &dyn Source, part: &str, symbol: &str) -> Option<u64> {
        let mut loads: Vec<(&str, u64)> = source
            .mappings()
            .iter()
            .filter(|mapping| mapping.name.starts_with('/') && mapping.name.contains(part))
            .map(|mapping| (&*mapping.name, first_byte(source, mapping)))
            .collect();
        loads.dedup();
        if part.is_empty() {
            // It lies below all libraries.
            loads.truncate(1);
        }
        loads.into_iter().find_map(|(path, low)| {
            let file = self.file(&Mapped::of(&source.root(), path, low))?;
            let mut all = file.symbols.iter();
            let found = all.find(|one| one.2 == symbol)?;
            Some(found.0.wrapping_add(file.bias))
        })
    }

    /// Where all of the file that `mapping` is a part of is mapped, and what follows it as zero.
    pub fn extent(&mut self, source: &dyn Source, mapping: &Mapping) -> Option<Span> {
        let low = first_byte(source, mapping);
        self.file(&Mapped::of(&source.root(), &mapping.name, low))
            .map(|file| file.extent)
    }

    /// The name of the symbol that holds `address` as it is in its file, and how many bytes behind its start.
    fn mangled(&mut self, source: &dyn Source, address: u64) -> Option<(&str, u64)> {
        let mapping = source.mapping_at(address)?;
        let low = first_byte(source, mapping);
        let file = self.file(&Mapped::of(&source.root(), &mapping.name, low))?;
        file.symbol_at(address.wrapping_sub(file.bias))
    }

    /// The symbols of the file `mapped`.
    fn file(&mut self, mapped: &Mapped<'_>) -> Option<&File> {
        if !is_file(mapped.path) {
            return None;
        }
        let key = (mapped.name(), mapped.low);
        let read = || File::parse(&mapped.contents()?, mapped.low);
        self.files.entry(key).or_insert_with(read).as_ref()
    }
}

/// A file that a target has mapped.
pub(crate) struct Mapped<'a> {
    /// The folder under which the target sees its files.
    pub root: &'a str,
    /// The same as a part of the target's folder in /proc, if it has one.
    pub known: &'a str,
    /// The file's path there.
    pub path: &'a str,
    /// Where its first byte is mapped.
    pub low: u64,
}

impl<'a> Mapped<'a> {
    fn of(root: &'a str, path: &'a str, low: u64) -> Mapped<'a> {
        Mapped {
            root,
            known: root,
            path,
            low,
        }
    }

    /// The file's path for this process.
    pub fn name(&self) -> String {
        format!("{}{}", self.root, self.path)
    }

    /// What is in it, if it is a file of that kind, and not too large.
    pub fn contents(&self) -> Option<Vec<u8>> {
        if !is_file(self.path) {
            return None;
        }
        contents(&self.name()).or_else(|| contents(self.deleted()?.to_str()?))
    }

    /// Where the file is if it was deleted, as one that was updated: a process keeps it. Root alone may look for a library.
    fn deleted(&self) -> Option<PathBuf> {
        let process = Path::new(self.known.strip_suffix("/root")?);
        let is_it = |link: &Path| fs::read_link(link).is_ok_and(|to| to == Path::new(self.path));
        let begins = |name: &OsStr| {
            let start = name.to_str()?.split('-').next()?;
            u64::from_str_radix(start, 16).ok()
        };
        if !self.path.ends_with(" (deleted)") {
            return None;
        }
        let own = process.join("exe");
        if is_it(&own) {
            return Some(own);
        }
        let parts = fs::read_dir(process.join("map_files")).ok()?.flatten();
        let mut first = parts.filter(|part| begins(&part.file_name()) == Some(self.low));
        first
            .next()
            .map(|part| part.path())
            .filter(|part| is_it(part))
    }
}

impl File {
    /// The name of the symbol that holds the file's address `at`, and how many bytes after its start.
    fn symbol_at(&self, at: u64) -> Option<(&str, u64)> {
        let index = self.symbols.partition_point(|symbol| symbol.0 <= at);
        let (start, bytes, name) = self.symbols[..index].last()?;
        (at - start < *bytes).then_some((name, at - start))
    }

    /// Of the file with the contents `data`, whose first byte is mapped at `low`.
    fn parse(data: &[u8], low: u64) -> Option<File> {
        let object = object::File::parse(data).ok()?;
        let first = first(&object)?;
        let bias = bias(&object, low)?;
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
        let ends = object.segments();
        let end = ends
            .map(|one| one.address().saturating_add(one.size()))
            .max()?;
        let extent = Span {
            start: low,
            end: end.wrapping_add(bias),
        };
        Some(File {
            bias,
            first,
            extent,
            symbols,
        })
    }
}

/// Whether the name of a mapping is that of a file that may have symbols.
pub(crate) fn is_file(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("/memfd:") && !path.starts_with("/dev/")
}

/// The contents of the file `path`, if it is one, and not too large.
pub(crate) fn contents(path: &str) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MOST {
        return None;
    }
    fs::read(path).ok()
}

/// The address at which the first byte of the file is mapped that `mapping` is a part of, or would be. A file may be mapped
/// more than once: each time its parts lie in order.
pub(crate) fn first_byte(source: &dyn Source, mapping: &Mapping) -> u64 {
    let all = source.mappings();
    let index = all.partition_point(|one| one.span.start < mapping.span.start);
    let mut first = mapping;
    for below in all[..index].iter().rev() {
        if first.offset == 0 {
            break;
        }
        if below.name != mapping.name {
            // What was never to be touched, or follows a part as zero, lies between parts.
            if below.name.is_empty() {
                continue;
            }
            break;
        }
        if below.offset > first.offset {
            break;
        }
        first = below;
    }
    first.span.start.wrapping_sub(first.offset)
}

/// The address of a file's first page, before anything is added.
pub(crate) fn first(object: &object::File<'_>) -> Option<u64> {
    Some(object.segments().next()?.address() & !4095)
}

/// What is added to the addresses of a file to have those of the target, where its first byte is mapped at `low`.
pub(crate) fn bias(object: &object::File<'_>, low: u64) -> Option<u64> {
    let first = first(object)?;
    Some(match object.kind() {
        object::ObjectKind::Executable => 0,
        _ => low.wrapping_sub(first),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_allocator_are_told_from_others() {
        for own in [
            "free",
            "malloc",
            "slabside_malloc",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "operator delete[](void*)",
            "slabside_base::os::die",
            "slabside_core::api::c::malloc",
            "slabside::os::die",
            "slabside_static::malloc",
            "<slabside::A as B>::c",
            "__rustc::__rust_alloc",
            "__rg_alloc",
            "call_once<(&slabside_core::tls::ThreadCache, &slabside_core::heap::Heap), u8>",
            "call_once<(&slabside::tls::ThreadCache, &slabside::heap::Heap), u8>",
        ] {
            assert!(is_allocators(own), "{own}");
        }
        for other in [
            "main",
            "free_list",
            "slabside_user::main",
            "my_slabside::heap::grow",
            "Pool::operator new(unsigned long)",
            "__rustc::main",
        ] {
            assert!(!is_allocators(other), "{other}");
        }
    }
}

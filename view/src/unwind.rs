//! From a raw stack to functions and lines: unwinds by the `.eh_frame` of the target's files, and names what it finds by
//! their debug information, or their symbols.

use crate::profile::{named, Sample};
pub use crate::source::short;
use crate::source::{Mapping, Source, Span};
use crate::symbols::{bias, contents, first, first_byte, is_allocators, is_file, Symbols};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder as _};
use gimli::{EndianArcSlice, RunTimeEndian};
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The most frames of a stack.
const FRAMES_MOST: usize = 256;
/// The most characters of a function's name.
const NAME_MOST: usize = 500;

type Reader = EndianArcSlice<RunTimeEndian>;

/// A function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Frame {
    /// The function, made readable; or where it lies, if that is all that is known.
    pub function: String,
    /// The file of its source. Empty means not known.
    pub file: String,
    /// The line in it. 0 means not known.
    pub line: u32,
    /// The program or library that it is in. Empty means none that is loaded now.
    pub module: String,
}

/// Unwinds and names the stacks of one target. By default, of none.
#[derive(Default)]
pub struct Unwinder {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
    /// Where code is, and of which files.
    code: Vec<(Span, String)>,
    /// By path, and where its first byte is mapped.
    lines: HashMap<(String, u64), Option<Lines>>,
    symbols: Symbols,
    names: HashMap<u64, Vec<Frame>>,
    stacks: HashMap<Vec<u64>, Vec<Frame>>,
}

/// A file's debug information.
struct Lines {
    /// What is added to its addresses.
    bias: u64,
    /// The address of its first page, before anything is added.
    first: u64,
    context: addr2line::Context<Reader>,
}

impl Unwinder {
    /// For the files that `source` has mapped now.
    pub fn new(source: &dyn Source) -> Unwinder {
        let code: Vec<&Mapping> = code(source).collect();
        let mut unwinder = UnwinderX86_64::new();
        let mut loads: BTreeMap<(&str, u64), Span> = BTreeMap::new();
        for mapping in &code {
            let low = first_byte(source, mapping);
            let span = loads.entry((&mapping.name, low)).or_insert(mapping.span);
            span.start = span.start.min(mapping.span.start);
            span.end = span.end.max(mapping.span.end);
        }
        for ((path, low), span) in loads {
            if let Some(module) = module(source, path, low, span) {
                unwinder.add_module(module);
            }
        }
        Unwinder {
            unwinder,
            cache: CacheX86_64::new(),
            code: code
                .iter()
                .map(|mapping| (mapping.span, mapping.name.clone()))
                .collect(),
            lines: HashMap::new(),
            symbols: Symbols::new(),
            names: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    /// The same for what `source` has mapped now.
    pub fn renew(&mut self, source: &dyn Source) {
        let now = code(source).map(|mapping| (mapping.span, &mapping.name));
        if !now.eq(self.code.iter().map(|(span, name)| (*span, name))) {
            *self = Unwinder::new(source);
        }
    }

    /// The functions on the stack of `sample`, innermost first, without the allocator's own.
    pub fn stack(&mut self, source: &dyn Source, sample: &Sample) -> Vec<Frame> {
        let calls = self.calls(&sample.registers, &sample.stack);
        if let Some(known) = self.stacks.get(&calls) {
            return known.clone();
        }
        let stack = named(source, &calls, self);
        self.stacks.insert(calls, stack.clone());
        stack
    }

    /// The addresses of the calls on a stack, innermost first: from the registers rip, rsp, rbp and so on as the layout
    /// orders them, and the bytes from rsp on.
    pub fn calls(&mut self, registers: &[u64; 8], stack: &[u8]) -> Vec<u64> {
        let [rip, rsp, rbp, ..] = *registers;
        let mut read = |address: u64| {
            let at = address.checked_sub(rsp).ok_or(())? as usize;
            let word = stack.get(at..).and_then(|rest| rest.get(..8)).ok_or(())?;
            word.try_into().map(u64::from_le_bytes).map_err(|_| ())
        };
        let start = UnwindRegsX86_64::new(rip, rsp, rbp);
        let mut frames = self
            .unwinder
            .iter_frames(rip, start, &mut self.cache, &mut read);
        let mut calls = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let address = frame.address_for_lookup();
            calls.push(address);
            // From a frame without code, or without unwind information, anything may be unwound.
            let is_code = self.code.iter().any(|(span, _)| span.holds(address));
            if !is_code || calls.len() >= FRAMES_MOST {
                break;
            }
        }
        calls
    }

    /// The functions at `address`, innermost first: more than one where calls were inlined.
    pub fn frames(&mut self, source: &dyn Source, address: u64) -> &[Frame] {
        if !self.names.contains_key(&address) {
            let frames = self.name(source, address);
            self.names.insert(address, frames);
        }
        &self.names[&address]
    }

    /// The functions at the byte which is mapped `offset` bytes after the first one of the file at `path`, innermost first.
    /// None where they have no names.
    pub fn frames_in(&mut self, path: &str, offset: u64) -> Vec<Frame> {
        let read = || Lines::read(&contents(path)?, 0);
        let lines = self.lines.entry((path.into(), 0)).or_insert_with(read);
        let mut frames = lines
            .as_ref()
            .map_or_else(Vec::new, |lines| lines.at_offset(offset));
        let symbol = self.symbols.name_in(path, offset);
        if frames.is_empty() {
            frames.extend(symbol.is_some().then(Frame::default));
        }
        if let (Some(outer), Some(symbol)) = (frames.last_mut(), symbol) {
            outer.call(symbol.text);
        }
        frames.retain(|frame| !frame.function.is_empty());
        frames
    }

    fn name(&mut self, source: &dyn Source, address: u64) -> Vec<Frame> {
        let Some(mapping) = source.mapping_at(address).filter(|mapping| mapping.execute) else {
            return vec![Frame {
                function: "(no code there now)".into(),
                ..Frame::default()
            }];
        };
        let path = mapping.name.clone();
        let low = first_byte(source, mapping);
        let lines = self
            .lines
            .entry((path.clone(), low))
            .or_insert_with(|| Lines::of(source, &path, low));
        let mut frames = lines
            .as_ref()
            .map_or_else(Vec::new, |lines| lines.at(address));
        let symbol = self.symbols.name(source, address);
        if frames.is_empty() {
            frames.push(Frame::default());
        }
        if let (Some(outer), Some(symbol)) = (frames.last_mut(), symbol) {
            outer.call(symbol.text);
        }
        for frame in &mut frames {
            frame.module.clone_from(&path);
            if frame.function.is_empty() {
                let offset = address - mapping.span.start + mapping.offset;
                frame.function = format!("{}+{offset:#x}", short(&path));
            }
        }
        frames
    }
}

impl Frame {
    /// Names it by its symbol, if it has no name, or that tells that it is the allocator's.
    fn call(&mut self, symbol: String) {
        if self.function.is_empty() || is_allocators(&symbol) {
            self.function = symbol;
        }
    }
}

fn code(source: &dyn Source) -> impl Iterator<Item = &Mapping> {
    source.mappings().iter().filter(|mapping| mapping.execute)
}

/// The file `path` as the target sees it.
fn read(source: &dyn Source, path: &str) -> Option<Vec<u8>> {
    let there = is_file(path).then(|| format!("{}{path}", source.root()))?;
    contents(&there)
}

/// A file's unwind information. Of the vdso none.
fn module(source: &dyn Source, path: &str, low: u64, span: Span) -> Option<Module<Vec<u8>>> {
    let data = read(source, path)?;
    let object = object::File::parse(&*data).ok()?;
    let bias = bias(&object, low)?;
    let section = |name: &str| object.section_by_name(name);
    let place =
        |name: &str| section(name).map(|found| found.address()..found.address() + found.size());
    let bytes = |name: &str| section(name).and_then(|found| found.data().ok().map(<[u8]>::to_vec));
    bytes(".eh_frame")?;
    Some(Module::new(
        path.into(),
        span.start..span.end,
        bias,
        ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: place(".text"),
            text: bytes(".text"),
            got_svma: place(".got"),
            eh_frame_svma: place(".eh_frame"),
            eh_frame: bytes(".eh_frame"),
            eh_frame_hdr_svma: place(".eh_frame_hdr"),
            eh_frame_hdr: bytes(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        },
    ))
}

impl Lines {
    fn of(source: &dyn Source, path: &str, low: u64) -> Option<Lines> {
        Lines::read(&read(source, path)?, low)
    }

    /// Of the file with the contents `data`, whose first byte is mapped at `low`.
    fn read(data: &[u8], low: u64) -> Option<Lines> {
        let object = object::File::parse(data).ok()?;
        let bias = bias(&object, low)?;
        let first = first(&object)?;
        object.section_by_name(".debug_info")?;
        let load = |id: gimli::SectionId| -> Result<Reader, gimli::Error> {
            let bytes = object
                .section_by_name(id.name())
                .and_then(|section| section.data().ok())
                .unwrap_or_default();
            Ok(EndianArcSlice::new(Arc::from(bytes), RunTimeEndian::Little))
        };
        let dwarf = gimli::Dwarf::load(load).ok()?;
        let context = addr2line::Context::from_dwarf(dwarf).ok()?;
        Some(Lines {
            bias,
            first,
            context,
        })
    }

    /// The functions at the byte that is mapped `offset` bytes after the file's first one.
    fn at_offset(&self, offset: u64) -> Vec<Frame> {
        self.at(offset.wrapping_add(self.first).wrapping_add(self.bias))
    }

    /// The functions at `address`, innermost first, as far as they are told.
    fn at(&self, address: u64) -> Vec<Frame> {
        let at = address.wrapping_sub(self.bias);
        let mut frames = Vec::new();
        let Ok(mut found) = self.context.find_frames(at).skip_all_loads() else {
            return frames;
        };
        while let Ok(Some(frame)) = found.next() {
            let function = frame
                .function
                .and_then(|name| Some(name.demangle().ok()?.into_owned()));
            let (file, line) = frame.location.map_or((String::new(), 0), |location| {
                (
                    location.file.unwrap_or_default().into(),
                    location.line.unwrap_or(0),
                )
            });
            frames.push(Frame {
                function: function
                    .unwrap_or_default()
                    .chars()
                    .take(NAME_MOST)
                    .collect(),
                file,
                line,
                module: String::new(),
            });
            if frames.len() >= FRAMES_MOST {
                break;
            }
        }
        frames
    }
}

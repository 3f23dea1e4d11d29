//! From a raw stack to functions and lines: unwinds by the `.eh_frame` of the target's files, and names what it finds by
//! their debug information, or their symbols.
//!
//! ```text
//!   sample --> calls    while the code is mapped: an address, and the file that it was of
//!   calls  --> stack    at any time later: functions, files, lines
//! ```

use crate::profile::{named, Sample};
pub use crate::source::short;
use crate::source::{Mapping, Source, Span};
use crate::symbols::{bias, contents, first, first_byte, is_allocators, Mapped, Symbols};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder as _};
use gimli::{EndianArcSlice, RunTimeEndian};
use nix::libc::O_PATH;
use object::{Object, ObjectSection};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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

/// The functions of a stack, innermost first.
pub type Stack = Arc<[Frame]>;

/// A call on a stack: its address, and what code was there when the stack was unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    address: u64,
    /// The number of the [`Load`]. None: no code was there.
    load: Option<u32>,
}

/// A file that was mapped as code once, or other such memory.
struct Load {
    /// Where the target saw its files then.
    root: Arc<Root>,
    path: String,
    /// Where its first byte is mapped.
    low: u64,
}

impl Load {
    /// What `ask` says of its file.
    fn file<T>(&self, ask: impl FnOnce(&Mapped<'_>) -> T) -> T {
        ask(&Mapped {
            root: &self.root.name(),
            known: &self.root.path,
            path: &self.path,
            low: self.low,
        })
    }
}

/// Unwinds and names the stacks of one target. By default, of none.
#[derive(Default)]
pub struct Unwinder {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
    root: Arc<Root>,
    /// Where code is now, by address, and of which load.
    code: Vec<(Span, u32)>,
    /// What was ever mapped: a call keeps its name when its code is gone.
    loads: Vec<Load>,
    /// The number of each that was mapped while the target had this root.
    numbers: FxHashMap<(String, u64), u32>,
    /// Where those are that are mapped now, and whether they have unwind information.
    modules: BTreeMap<u32, (Span, bool)>,
    /// By path, and where its first byte is mapped.
    lines: FxHashMap<(String, u64), Option<Lines>>,
    symbols: Symbols,
    names: FxHashMap<Call, Stack>,
    stacks: FxHashMap<Vec<Call>, Stack>,
}

/// The folder under which a target sees its files. It stays open when the target has ended.
#[derive(Default)]
struct Root {
    path: String,
    open: Option<File>,
    identity: Option<Identity>,
}

/// Which folder it is, and how the target sees the file systems in it: device, number, mount namespace.
type Identity = (u64, u64, Option<PathBuf>);

impl Root {
    fn of(path: String) -> Root {
        let mut options = File::options();
        let identity = Root::identity(&path);
        let open = options.read(true).custom_flags(O_PATH).open(&path);
        Root {
            open: open.ok().filter(|_| !path.is_empty()),
            path,
            identity,
        }
    }

    /// What is at `path` now. None: nothing, or the target has ended.
    fn identity(path: &str) -> Option<Identity> {
        let folder = fs::metadata(path).ok()?;
        let mounts = Path::new(path).with_file_name("ns").join("mnt");
        Some((folder.dev(), folder.ino(), fs::read_link(mounts).ok()))
    }

    /// Whether the target, which sees its files at `path`, has this root still, as far as can be told. A process may get
    /// another one (pivot_root(2), setns(2)) without another path.
    fn is_of(&self, path: &str) -> bool {
        let now = Root::identity(path);
        self.path == path && (now.is_none() || now == self.identity)
    }

    /// Its name for this process.
    fn name(&self) -> String {
        match &self.open {
            Some(open) => format!("/proc/self/fd/{}", open.as_raw_fd()),
            None => self.path.clone(),
        }
    }
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
        let mut unwinder = Unwinder::default();
        unwinder.renew(source);
        unwinder
    }

    /// The same for what `source` has mapped now. Only what is new is read.
    pub fn renew(&mut self, source: &dyn Source) {
        let root = source.root();
        let same = self.root.is_of(&root);
        if !same {
            self.root = Root::of(root).into();
            // A file of the same path is another one. What was mapped before is still found under the root of before.
            self.numbers.clear();
        }
        let now = code(source).map(|mapping| (mapping.span, &*mapping.name));
        let known = self.code.iter();
        if same && now.eq(known.map(|&(span, load)| (span, &*self.loads[load as usize].path))) {
            return;
        }
        self.code.clear();
        let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
        for mapping in code(source) {
            let load = self.load(&mapping.name, first_byte(source, mapping));
            self.code.push((mapping.span, load));
            let span = spans.entry(load).or_insert(mapping.span);
            span.start = span.start.min(mapping.span.start);
            span.end = span.end.max(mapping.span.end);
        }
        self.take_modules(&spans);
    }

    /// The number of what is mapped of `path`, with its first byte at `low`.
    fn load(&mut self, path: &str, low: u64) -> u32 {
        let next = self.loads.len() as u32;
        let number = *self.numbers.entry((path.into(), low)).or_insert(next);
        if number == next {
            let (root, path) = (self.root.clone(), path.into());
            self.loads.push(Load { root, path, low });
        }
        number
    }

    /// Has the unwinder know what is mapped at `spans`, by load.
    fn take_modules(&mut self, spans: &BTreeMap<u32, Span>) {
        let unwinder = &mut self.unwinder;
        self.modules.retain(|load, &mut (span, known)| {
            let stays = spans.get(load) == Some(&span);
            if !stays && known {
                unwinder.remove_module(span.start);
            }
            stays
        });
        for (&load, &span) in spans {
            if self.modules.contains_key(&load) {
                continue;
            }
            let load_of = &self.loads[load as usize];
            let module = load_of.file(|mapped| module(mapped, span));
            self.modules.insert(load, (span, module.is_some()));
            module
                .into_iter()
                .for_each(|one| self.unwinder.add_module(one));
        }
    }

    /// The functions on the stack of `sample`, innermost first, without the allocator's own.
    pub fn stack(&mut self, sample: &Sample) -> Stack {
        let calls = self.calls(sample);
        self.functions(&calls)
    }

    /// The functions of a stack with these calls, without the allocator's own.
    pub fn functions(&mut self, calls: &[Call]) -> Stack {
        if let Some(known) = self.stacks.get(calls) {
            return known.clone();
        }
        let stack: Stack = named(calls, self).into();
        self.stacks.insert(calls.to_vec(), stack.clone());
        stack
    }

    /// The calls on the stack of `sample`, innermost first.
    pub fn calls(&mut self, sample: &Sample) -> Vec<Call> {
        let [rip, rsp, rbp, ..] = sample.registers;
        let mut read = |address: u64| {
            let at = address.checked_sub(rsp).ok_or(())? as usize;
            let word = sample
                .stack
                .get(at..)
                .and_then(|rest| rest.get(..8))
                .ok_or(())?;
            word.try_into().map(u64::from_le_bytes).map_err(|_| ())
        };
        let start = UnwindRegsX86_64::new(rip, rsp, rbp);
        let mut frames = self
            .unwinder
            .iter_frames(rip, start, &mut self.cache, &mut read);
        let mut calls = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let address = frame.address_for_lookup();
            let at = self.code.partition_point(|(span, _)| span.end <= address);
            let code = self.code.get(at).filter(|(span, _)| span.holds(address));
            let load = code.map(|&(_, load)| load);
            calls.push(Call { address, load });
            // From a frame without code, or without unwind information, anything may be unwound.
            if load.is_none() || calls.len() >= FRAMES_MOST {
                break;
            }
        }
        calls
    }

    /// The functions of a call, innermost first: more than one where calls were inlined.
    pub(crate) fn frames(&mut self, call: Call) -> Stack {
        if let Some(known) = self.names.get(&call) {
            return known.clone();
        }
        let frames: Stack = self.name(call).into();
        self.names.insert(call, frames.clone());
        frames
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

    fn name(&mut self, call: Call) -> Vec<Frame> {
        let load = call.load.and_then(|load| self.loads.get(load as usize));
        let Some(load @ Load { path, low, .. }) = load else {
            return vec![Frame {
                function: "(no code there now)".into(),
                ..Frame::default()
            }];
        };
        let (lines, symbols) = (&mut self.lines, &mut self.symbols);
        let (mut frames, symbol) = load.file(|mapped| {
            let read = || Lines::read(&mapped.contents()?, mapped.low);
            let lines = lines
                .entry((mapped.name(), mapped.low))
                .or_insert_with(read);
            let frames = lines
                .as_ref()
                .map_or_else(Vec::new, |lines| lines.at(call.address));
            (frames, symbols.name_of(mapped, call.address))
        });
        if frames.is_empty() {
            frames.push(Frame::default());
        }
        if let (Some(outer), Some(symbol)) = (frames.last_mut(), symbol) {
            outer.call(symbol.text);
        }
        for frame in &mut frames {
            frame.module.clone_from(path);
            if frame.function.is_empty() {
                let offset = call.address.wrapping_sub(*low);
                frame.function = format!("{}+{offset:#x}", short(path));
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

/// The unwind information of the file `mapped`, which is mapped at `span`. Of the vdso none.
fn module(mapped: &Mapped<'_>, span: Span) -> Option<Module<Vec<u8>>> {
    let data = mapped.contents()?;
    let object = object::File::parse(&*data).ok()?;
    let bias = bias(&object, mapped.low)?;
    let section = |name: &str| object.section_by_name(name);
    let place =
        |name: &str| section(name).map(|found| found.address()..found.address() + found.size());
    let bytes = |name: &str| section(name).and_then(|found| found.data().ok().map(<[u8]>::to_vec));
    bytes(".eh_frame")?;
    Some(Module::new(
        mapped.path.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{About, Thread};
    use crate::Error;
    use std::os::unix::fs::symlink;

    /// A target that sees its files at the path.
    struct Rooted(PathBuf, [Mapping; 1]);

    impl Source for Rooted {
        fn read(&self, _: u64, _: &mut [u8]) -> bool {
            false
        }

        fn mappings(&self) -> &[Mapping] {
            &self.1
        }

        fn present(&self, _: Span, _: &mut dyn FnMut(Span)) {}

        fn about(&self) -> About {
            About::default()
        }

        fn threads(&self) -> Vec<Thread> {
            Vec::new()
        }

        fn name(&self) -> String {
            "rooted".into()
        }

        fn is_moving(&self) -> bool {
            true
        }

        fn no_heap(&self) -> Error {
            Error::Ended { name: self.name() }
        }

        fn root(&self) -> String {
            self.0.display().to_string()
        }
    }

    /// A program that gets another root maps a file of the same path at the same place.
    #[test]
    fn each_file_is_read_under_the_root_that_it_was_mapped_under() {
        let folder = std::env::temp_dir().join(format!("slabside-roots-{}", std::process::id()));
        for name in ["one", "other"] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("program"), name).unwrap();
        }
        let path = folder.join("root");
        symlink(folder.join("one"), &path).unwrap();
        let mapping = Mapping {
            span: Span {
                start: 4096,
                end: 8192,
            },
            read: true,
            write: false,
            execute: true,
            shared: false,
            offset: 0,
            name: "/program".into(),
        };
        let target = Rooted(path.clone(), [mapping]);
        let mut unwinder = Unwinder::new(&target);
        unwinder.renew(&target);
        assert_eq!(unwinder.loads.len(), 1);
        fs::remove_file(&path).unwrap();
        unwinder.renew(&target);
        assert_eq!(
            unwinder.loads.len(),
            1,
            "a target that has ended keeps its root"
        );
        symlink(folder.join("other"), &path).unwrap();
        unwinder.renew(&target);
        let loads = unwinder.loads.iter();
        let read: Vec<_> = loads
            .map(|load| load.file(|mapped| mapped.contents()))
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read, [Some(b"one".to_vec()), Some(b"other".to_vec())]);
        assert_eq!(unwinder.code[0].1, 1, "what is mapped now is the other");
    }
}

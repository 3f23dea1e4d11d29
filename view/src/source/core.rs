//! A core file: segments of memory, and notes of threads, registers, the signal, and which files were mapped.

use super::{visit_within, About, Mapping, Source, Span, Thread, ADDRESSES};
use crate::contents::words;
use crate::{Error, Result};
use object::elf::{
    FileHeader64, NT_AUXV, NT_FILE, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO, NT_X86_XSTATE, PF_R,
    PF_W, PF_X, PT_LOAD, PT_NOTE,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::ReadCache;
use object::Endianness;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The most segments and threads that are looked at.
const SEGMENTS: usize = 1 << 20;
const THREADS: usize = 1 << 16;
/// The most bytes of notes: a thread's take some 3 KiB.
const NOTES: u64 = 512 << 20;
/// Names of the general registers in a thread's note.
#[cfg(target_arch = "aarch64")]
const REGISTERS: [&str; 33] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
    "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27",
    "x28", "x29", "x30", "sp", "pc",
];
/// Names of the general registers in a thread's note.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 22] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "", "rip", "", "", "rsp", "", "fs_base",
];
/// Where they begin in it, in bytes.
const REGISTERS_AT: usize = 112;

/// A core file.
pub struct Core {
    file: File,
    name: String,
    mappings: Vec<Mapping>,
    /// Segments with contents, by address, and where those lie in the file.
    segments: Vec<(Span, u64)>,
    /// The same without the places.
    present: Vec<Span>,
    threads: Vec<Thread>,
    about: About,
    /// An address on the main thread's stack. 0 means not known.
    on_stack: u64,
    /// Bytes of segments that lie behind the file's end.
    cut: u64,
}

impl Core {
    /// Opens `path`, which has to be an ELF core file of this kind of machine.
    pub fn open(path: &Path) -> Result<Core> {
        let name = path.display().to_string();
        let file = open(path)?;
        let wrong = |what: &str| Error::File {
            name: name.clone(),
            what: what.into(),
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let cache = ReadCache::new(file.try_clone().map_err(|cause| Error::System {
            name: name.clone(),
            what: "cannot read it",
            cause,
        })?);
        let header = FileHeader64::<Endianness>::parse(&cache)
            .map_err(|_| wrong("neither a core file nor a snapshot of slabside"))?;
        let endian = header
            .endian()
            .map_err(|_| wrong("not of this kind of machine"))?;
        if header.e_type.get(endian) != object::elf::ET_CORE {
            return Err(wrong("an ELF file, but no core file"));
        }
        let headers = header
            .program_headers(endian, &cache)
            .map_err(|_| wrong("the core file is cut short"))?;
        let mut core = Core {
            file,
            name,
            mappings: Vec::new(),
            segments: Vec::new(),
            present: Vec::new(),
            threads: Vec::new(),
            about: About::default(),
            on_stack: 0,
            cut: 0,
        };
        let all = || headers.iter().take(SEGMENTS);
        for segment in all().filter(|one| one.p_type(endian) == PT_LOAD) {
            core.segment(segment, endian, length);
        }
        // The kernel writes notes first, and gdb last. They name what is mapped.
        let notes = all().filter(|one| one.p_type(endian) == PT_NOTE);
        for segment in notes.filter(|one| one.p_filesz(endian) <= NOTES) {
            let Ok(Some(mut notes)) = segment.notes(endian, &cache) else {
                continue;
            };
            while let Ok(Some(note)) = notes.next() {
                core.note(note.n_type(endian), note.desc());
            }
        }
        core.mappings.sort_by_key(|mapping| mapping.span);
        core.name_stack();
        core.segments.sort();
        // What overlaps was made to deceive, and is not read.
        core.segments
            .dedup_by(|next, before| next.0.start < before.0.end);
        core.present = core.segments.iter().map(|segment| segment.0).collect();
        core.about.resident = Some(core.present.iter().map(|span| span.bytes()).sum());
        Ok(core)
    }

    fn segment(
        &mut self,
        segment: &object::elf::ProgramHeader64<Endianness>,
        endian: Endianness,
        length: u64,
    ) {
        let (start, bytes) = (segment.p_vaddr(endian), segment.p_memsz(endian));
        let Some(end) = start.checked_add(bytes).filter(|&end| end <= ADDRESSES) else {
            return;
        };
        let flags = segment.p_flags(endian);
        self.mappings.push(Mapping {
            span: Span { start, end },
            read: flags.contains(PF_R),
            write: flags.contains(PF_W),
            execute: flags.contains(PF_X),
            shared: false,
            offset: 0,
            name: String::new(),
        });
        let at = segment.p_offset(endian);
        let whole = segment.p_filesz(endian).min(bytes);
        let held = whole.min(length.saturating_sub(at));
        self.cut = self.cut.saturating_add(whole - held);
        if held > 0 {
            let span = Span {
                start,
                end: start + held,
            };
            self.segments.push((span, at));
        }
    }

    fn note(&mut self, kind: object::elf::NoteType, bytes: &[u8]) {
        match kind {
            NT_PRSTATUS if self.threads.len() < THREADS => {
                let registers = REGISTERS.iter().enumerate();
                self.threads.push(Thread {
                    tid: word32(bytes, 32),
                    registers: registers
                        .filter(|(_, name)| !name.is_empty())
                        .map(|(index, name)| {
                            (name.to_string(), word64(bytes, REGISTERS_AT + 8 * index))
                        })
                        .collect(),
                    ..Thread::default()
                });
                if let Some(last) = self.threads.last_mut() {
                    let stack = last.register("rsp").or_else(|| last.register("sp"));
                    last.stack = stack.unwrap_or(0);
                }
            }
            NT_X86_XSTATE => {
                // It follows the thread's other registers.
                if let Some(last) = self.threads.last_mut() {
                    last.vectors = words_of(bytes);
                }
            }
            NT_AUXV => {
                let mut pairs = bytes.chunks_exact(16);
                let random = pairs.find(|pair| word64(pair, 0) == nix::libc::AT_RANDOM);
                self.on_stack = random.map_or(0, |pair| word64(pair, 8));
            }
            NT_PRPSINFO => {
                self.about.pid = word32(bytes, 24);
                let name = bytes.get(40..56).unwrap_or(&[]);
                let end = name.iter().position(|&byte| byte == 0);
                let name = &name[..end.unwrap_or(name.len())];
                self.about.program = String::from_utf8_lossy(name).into_owned();
            }
            NT_SIGINFO => {
                self.about.signal = Some(word32(bytes, 0));
                let faults = [
                    nix::libc::SIGSEGV,
                    nix::libc::SIGBUS,
                    nix::libc::SIGILL,
                    nix::libc::SIGFPE,
                ];
                let (signal, code) = (word32(bytes, 0) as i32, word32(bytes, 8) as i32);
                if faults.contains(&signal) && names_address(code) {
                    self.about.fault = Some(word64(bytes, 16));
                }
            }
            NT_FILE => self.files(bytes),
            _ => {}
        }
    }

    /// Which mappings are of which file. Segments of files whose contents are not in the core are there too.
    fn files(&mut self, bytes: &[u8]) {
        let count = (word64(bytes, 0) as usize).min(bytes.len() / 24);
        let page = word64(bytes, 8);
        let mut names = bytes
            .get(16 + count * 24..)
            .unwrap_or(&[])
            .split(|&byte| byte == 0);
        for index in 0..count {
            let at = 16 + index * 24;
            let (start, end) = (word64(bytes, at), word64(bytes, at + 8));
            let Some(name) = names.next() else { return };
            let mapping = self
                .mappings
                .iter_mut()
                .find(|mapping| mapping.span.start == start && mapping.span.end == end);
            if let Some(mapping) = mapping {
                mapping.name = String::from_utf8_lossy(name).into_owned();
                mapping.offset = word64(bytes, at + 16).wrapping_mul(page);
            }
        }
    }
}

/// Whether a signal of a fault has the address that was touched, by its `si_code`. Sent by a process (0 or below), it has
/// none. Nor has the processor told one of an address beyond those that there can be (`SI_KERNEL`).
fn names_address(code: i32) -> bool {
    code > 0 && code != nix::libc::SI_KERNEL
}

impl Core {
    /// The main thread's stack is the mapping that what the kernel put on it lies in.
    fn name_stack(&mut self) {
        let at = self.on_stack;
        let mut all = self.mappings.iter_mut();
        let stack = all.find(|one| one.span.holds(at) && one.name.is_empty());
        if let Some(stack) = stack.filter(|_| at != 0) {
            stack.name = "[stack]".into();
        }
    }
}

/// The words of `bytes` that are not zero.
pub(super) fn words_of(bytes: &[u8]) -> Vec<u64> {
    words(bytes).filter(|&word| word != 0).collect()
}

/// The file at `path`, or what is told to whoever asked for it.
pub(super) fn open(path: &Path) -> Result<File> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Error::Missing {
            name: name.clone(),
            why: "there is no such file, and it is no process number".into(),
        },
        std::io::ErrorKind::PermissionDenied => Error::NotPermitted {
            name: name.clone(),
            why: "the file's mode".into(),
            advice: "run as its owner or as root",
        },
        _ => Error::System {
            name: name.clone(),
            what: "cannot open it",
            cause,
        },
    })?;
    if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::File {
            name,
            what: "not a file".into(),
        });
    }
    Ok(file)
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

impl Source for Core {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let (mut at, mut done) = (address, 0);
        while done < into.len() {
            let index = self.segments.partition_point(|segment| segment.0.end <= at);
            let Some(&(span, place)) = self.segments.get(index).filter(|one| one.0.holds(at))
            else {
                return false;
            };
            let n = (span.end - at).min((into.len() - done) as u64) as usize;
            let part = &mut into[done..done + n];
            if self
                .file
                .read_exact_at(part, place + (at - span.start))
                .is_err()
            {
                return false;
            }
            (at, done) = (at + n as u64, done + n);
        }
        true
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        visit_within(&self.present, within, visit);
    }

    fn lacks(&self, within: Span) -> u64 {
        let mut all = within.bytes();
        self.present(within, &mut |part| all -= part.bytes());
        all
    }

    fn cut(&self) -> u64 {
        self.cut
    }

    fn about(&self) -> About {
        self.about.clone()
    }

    fn threads(&self) -> Vec<Thread> {
        self.threads.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_moving(&self) -> bool {
        false
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata {
            name: self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_a_process_or_the_kernel_sent_names_no_address() {
        const MAPERR: i32 = 1;
        assert!(names_address(MAPERR));
        assert!(!names_address(nix::libc::SI_KERNEL));
        assert!(!names_address(nix::libc::SI_USER));
        assert!(!names_address(nix::libc::SI_TKILL));
    }
}

//! The page of counters that is shared with the program, in a file that lives in memory only. Or many pages, of which
//! each process takes one.
//!
//! ```text
//!   runner   memfd, mapped shared ---- SLABSIDE_COUNTERS=/proc/RUNNER/fd/N ----> program
//!   child    writes its number into `pid`, then exec
//!   library  opens the file, checks magic, version and pid, maps it and counts there
//! ```
//!
//! In the page they begin at OFFSET, where the library's own page has them too. The rest is the library's. The figures
//! stay readable whether the program exits, execs, is killed or closes its descriptors.

use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use rustix::mm::{mmap, MapFlags, ProtFlags};
use slabside_base::counters::{Counters, Each, MAGIC, MAGIC_EACH, OFFSET, VERSION};
use slabside_base::units::PAGE;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::mem::align_of;
use std::os::fd::AsRawFd;
use std::process;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

const _: () = assert!(OFFSET.is_multiple_of(align_of::<Counters>()));
const _: () = assert!(OFFSET.is_multiple_of(align_of::<Each>()));

/// Pages for processes: those that nobody takes cost no memory.
const PAGES: usize = 1 << 16;

/// A page of counters that another process can open.
pub struct Page {
    /// Keeps the path under `/proc` valid.
    file: File,
    /// The page, mapped for as long as this process lives.
    counters: &'static Counters,
}

impl Page {
    /// A page with all counters zero, that belongs to no process yet.
    pub fn create() -> Result<Page> {
        let file = memory_file(PAGE)?;
        let counters = map::<Counters>(&file, 0)?;
        counters.magic.store(MAGIC, Relaxed);
        counters.version.store(VERSION, Relaxed);
        Ok(Page { file, counters })
    }

    /// The path by which other processes of the same user open the page.
    pub fn path(&self) -> OsString {
        path(&self.file)
    }

    /// The counters themselves.
    pub fn counters(&self) -> &'static Counters {
        self.counters
    }
}

/// A file to which the library adds its reports of misuse, beside standard error.
pub struct Reports(File);

/// Bytes of reports that are read at most.
const REPORTS_MOST: u64 = 16 << 20;

impl Reports {
    /// An empty one.
    pub fn create() -> Result<Reports> {
        let name = "slabside reports";
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file: File = memfd_create(name, flags)?.into();
        // The library writes to a file that is sealed so, and to no other one.
        fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK)?;
        Ok(Reports(file))
    }

    /// The path by which other processes of the same user open it.
    pub fn path(&self) -> OsString {
        path(&self.0)
    }

    /// What was reported so far.
    pub fn text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        file.take(REPORTS_MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Pages of which each process of a tree takes one.
pub struct Pages {
    /// Keeps the path under `/proc` valid.
    file: File,
    /// What comes before the pages.
    each: &'static Each,
}

impl Pages {
    /// Pages that nobody has taken yet.
    pub fn create() -> Result<Pages> {
        let file = memory_file((PAGES + 1) * PAGE)?;
        let each = map::<Each>(&file, 0)?;
        each.magic.store(MAGIC_EACH, Relaxed);
        each.version.store(VERSION, Relaxed);
        Ok(Pages { file, each })
    }

    /// The path by which other processes of the same user open the file.
    pub fn path(&self) -> OsString {
        path(&self.file)
    }

    /// The pages that were taken, in that order.
    pub fn taken(&self) -> Result<Vec<&'static Counters>> {
        let taken = self.each.taken.load(Relaxed) as usize;
        let numbers = 1..=taken.min(PAGES);
        numbers.map(|number| map(&self.file, number)).collect()
    }

    /// Processes for which there was no page left.
    pub fn left_out(&self) -> usize {
        (self.each.taken.load(Relaxed) as usize).saturating_sub(PAGES)
    }
}

fn path(file: &File) -> OsString {
    format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()).into()
}

/// Makes the page the calling process's own. Async-signal-safe: one call of getpid and one store.
pub fn claim(counters: &Counters) {
    counters.pid.store(process::id(), Relaxed);
}

/// A file of `bytes` zeros, of fixed size: a program that shrank it would otherwise make our reads fault.
fn memory_file(bytes: usize) -> Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(c"slabside-counters", flags)?);
    file.set_len(bytes as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// What can lie at OFFSET in a page: all fields are atomics, for which every bit pattern is valid and which other
/// processes may change.
trait InPage: 'static {}
impl InPage for Counters {}
impl InPage for Each {}

fn map<T: InPage>(file: &File, number: usize) -> Result<&'static T> {
    const { assert!(OFFSET + size_of::<T>() <= PAGE) };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let at = (number * PAGE) as u64;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
    let page = unsafe { mmap(ptr::null_mut(), PAGE, access, MapFlags::SHARED, file, at)? };
    // SAFETY: OFFSET lies within the mapping, is a multiple of the alignment, and leaves room for `T` (asserted). The
    // mapping is never unmapped and its file, which has that page, cannot shrink (`memory_file`).
    Ok(unsafe { &*page.byte_add(OFFSET).cast::<T>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::mem::offset_of;

    #[test]
    fn a_new_page_is_marked_and_can_be_opened_by_its_path() {
        let page = Page::create().unwrap();
        claim(page.counters());
        let bytes = fs::read(page.path()).unwrap();
        assert_eq!(bytes.len(), PAGE);
        assert_eq!(bytes[OFFSET..OFFSET + 8], MAGIC.to_ne_bytes());
        let pid = OFFSET + offset_of!(Counters, pid);
        assert_eq!(bytes[pid..pid + 4], process::id().to_ne_bytes());
    }

    #[test]
    fn nobody_can_shrink_the_page_under_us() {
        let page = Page::create().unwrap();
        let file = fs::OpenOptions::new()
            .write(true)
            .open(page.path())
            .unwrap();
        assert!(file.set_len(0).is_err());
    }
}

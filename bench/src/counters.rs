//! What slabside tells of itself: the page of counters that it keeps in a file it is handed, laid out as
//! `slabside_base::counters` says. The programs that measure do not link slabside, so the four numbers they need stand here
//! again. Where they do not fit, slabside does not attach and the figure stays zero.

use std::ffi::CString;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::{id, Command};

const VARIABLE: &str = "SLABSIDE_COUNTERS";
const PAGE: libc::off_t = 4096;
const OFFSET: libc::off_t = 1024;
const MAGIC: u64 = u64::from_le_bytes(*b"slabsctr");
const VERSION: u64 = 1;
/// Where in the counters the bytes of metadata stand.
const METADATA: libc::off_t = 80;

/// A file in memory that stays open over exec, with a page of counters for this process.
fn page() -> Result<libc::c_int, Error> {
    let head = [MAGIC, VERSION | (id() as u64) << 32];
    // SAFETY: the name ends in a nul. The descriptor is our own, and `head` has 16 bytes.
    let (file, sized, written) = unsafe {
        let file = libc::memfd_create(c"counters".as_ptr(), 0);
        let sized = libc::ftruncate(file, PAGE);
        (
            file,
            sized,
            libc::pwrite(file, head.as_ptr().cast(), 16, OFFSET),
        )
    };
    if sized == 0 && written == 16 {
        Ok(file)
    } else {
        Err(Error::last_os_error())
    }
}

/// Starts this program once more, with a page of counters for the allocator. The second time it does nothing. The
/// process stays the same, so the page belongs to it.
pub fn hand_over() -> Result<(), Error> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", page()?);
    let arguments = std::env::args_os().skip(1);
    Err(Command::new("/proc/self/exe")
        .args(arguments)
        .env(VARIABLE, path)
        .exec())
}

/// Bytes of metadata that the allocator has opened. Zero where it is not slabside.
pub fn metadata() -> usize {
    let path = std::env::var(VARIABLE)
        .ok()
        .and_then(|path| CString::new(path).ok());
    let mut bytes = 0u64;
    if let Some(path) = path {
        // SAFETY: the path ends in a nul. `bytes` has eight bytes, and the descriptor is our own.
        unsafe {
            let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            libc::pread(file, (&raw mut bytes).cast(), 8, OFFSET + METADATA);
            libc::close(file);
        }
    }
    bytes as usize
}

//! Which resident pages nobody touches for a while, by the kernel's tracking of idle pages.
//!
//! ```text
//!   pagemap: address -> frame --> page_idle/bitmap: a bit a frame, set here, cleared by whoever touches the page
//! ```
//!
//! Nothing in the process is changed: that a page was touched the kernel notes beside it. It wants root, and a kernel
//! with CONFIG_IDLE_PAGE_TRACKING.

use crate::source::{Source, Span};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the kernel keeps the bits.
const BITMAP: &str = "/sys/kernel/mm/page_idle/bitmap";
/// Bytes of a page, as the pagemap counts.
const PAGE: u64 = 4096;
/// Of an entry of the pagemap: that the page is resident, and its frame.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// Bytes of `spans` in the process `pid` that are resident, and those of them that nobody touched while `wait` ran.
pub fn idle(source: &dyn Source, pid: u32, spans: &[Span], wait: impl FnOnce()) -> Result<Idle> {
    let failed = |what| {
        move |cause| Error::System {
            name: source.name(),
            what,
            cause,
        }
    };
    let bitmap = File::options().read(true).write(true).open(BITMAP);
    let bitmap = bitmap.map_err(failed(
        "cannot tell idle pages: that takes root and a kernel with CONFIG_IDLE_PAGE_TRACKING",
    ))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"));
    let pagemap = pagemap.map_err(failed("cannot read its pagemap"))?;
    measure(&pagemap, &bitmap, spans, wait).map_err(failed("cannot tell idle pages"))
}

/// What was found of resident pages, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Idle {
    /// Resident.
    pub resident: u64,
    /// Not touched meanwhile.
    pub idle: u64,
}

fn measure(pagemap: &File, bitmap: &File, spans: &[Span], wait: impl FnOnce()) -> io::Result<Idle> {
    let frames = frames(pagemap, spans)?;
    for (word, bits) in &frames {
        // Bits that are zero change nothing.
        bitmap.write_all_at(&bits.to_ne_bytes(), word * 8)?;
    }
    wait();
    let mut found = Idle::default();
    for (word, bits) in &frames {
        let mut now = [0; 8];
        bitmap.read_exact_at(&mut now, word * 8)?;
        let still = u64::from_ne_bytes(now) & bits;
        found.resident += u64::from(bits.count_ones()) * PAGE;
        found.idle += u64::from(still.count_ones()) * PAGE;
    }
    Ok(found)
}

/// The frames of resident pages: bits of the bitmap's words, by their numbers.
fn frames(pagemap: &File, spans: &[Span]) -> io::Result<BTreeMap<u64, u64>> {
    let mut frames = BTreeMap::new();
    for span in spans {
        for page in span.start / PAGE..span.end.div_ceil(PAGE) {
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, page * 8)?;
            let entry = u64::from_ne_bytes(entry);
            let frame = entry & FRAME;
            if entry & PRESENT != 0 && frame != 0 {
                *frames.entry(frame / 64).or_default() |= 1 << (frame % 64);
            }
        }
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two files stand for the kernel's: three pages, of which one is absent and one is touched.
    #[test]
    fn pages_that_are_touched_meanwhile_are_not_idle() {
        let (pagemap, bitmap) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for (page, entry) in [(16u64, PRESENT | 70), (17, 71), (18, PRESENT | 130)] {
            pagemap
                .write_all_at(&entry.to_ne_bytes(), page * 8)
                .unwrap();
        }
        bitmap.set_len(64).unwrap();
        let span = Span {
            start: 16 * PAGE,
            end: 19 * PAGE,
        };
        let touch = || bitmap.write_all_at(&0u64.to_ne_bytes(), 2 * 8).unwrap();
        let found = measure(&pagemap, &bitmap, &[span], touch).unwrap();
        let (resident, idle) = (2 * PAGE, PAGE);
        assert_eq!(found, Idle { resident, idle });
    }
}

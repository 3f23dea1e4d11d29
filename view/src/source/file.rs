//! A snapshot file: a target's metadata, mappings, threads and residency, and contents where they were asked for.
//!
//! ```text
//!   "slabsnap" | version u32 | zstd: | bytes u32, JSON: what is known | address u64, bytes u64, contents | ... |
//! ```
//!
//! Nothing in a file is believed: lengths are compared with what is left, and no more is unpacked than `MOST`.

use super::{visit_within, About, Mapping, Source, Span, Thread};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// The first bytes of a snapshot file.
const MAGIC: &[u8; 8] = b"slabsnap";
/// Version of the container.
const VERSION: u32 = 1;
/// The most bytes that a file is unpacked to.
const MOST: u64 = 64 << 30;
/// The most bytes of what is known.
const HEAD_MOST: u32 = 256 << 20;
/// Bytes unpacked at once: a file that promises more than it holds costs no memory.
const STEP: usize = 1 << 20;
/// How hard zstd tries.
const LEVEL: i32 = 3;

/// What [`Head::contents`] says where no data of the program are in the file.
pub const NONE: &str = "none";
/// Where the first words of each live block are.
pub const HEADS: &str = "heads";
/// Where all are that were resident.
pub const ALL: &str = "all";

/// What a snapshot knows beside contents.
#[derive(Serialize, Deserialize)]
pub struct Head {
    /// Name and version of this form.
    pub schema: String,
    /// Seconds since 1970 when it was taken.
    pub time: u64,
    /// Which contents are there: `none`, `heads` or `all`.
    pub contents: String,
    /// The target.
    pub about: About,
    /// Whether it stood still.
    pub stopped: bool,
    /// The target's mappings.
    pub mappings: Vec<Mapping>,
    /// What of the heap was resident.
    pub present: Vec<Span>,
    /// The target's threads.
    pub threads: Vec<Thread>,
}

/// Name and version of [`Head`].
pub const SCHEMA: &str = "slabside.snapshot/1";

/// A snapshot file, unpacked.
pub struct Snapshot {
    name: String,
    head: Head,
    pieces: Vec<(u64, Vec<u8>)>,
}

/// Whether the file at `path` begins as a snapshot does.
pub(super) fn is_snapshot(path: &Path) -> Result<bool> {
    let mut magic = [0; 8];
    let read = super::core::open(path)?.read_exact(&mut magic);
    Ok(read.is_ok() && magic == *MAGIC)
}

impl Snapshot {
    /// Opens and unpacks `path`.
    pub fn open(path: &Path) -> Result<Snapshot> {
        let name = path.display().to_string();
        let file = super::core::open(path)?;
        Snapshot::read(&name, BufReader::new(file))
    }

    /// Unpacks what `from` holds.
    pub fn read(name: &str, mut from: impl Read) -> Result<Snapshot> {
        let broken = |what: &str| Error::File {
            name: name.into(),
            what: format!("a broken snapshot: {what}"),
        };
        let mut start = [0; 12];
        from.read_exact(&mut start)
            .map_err(|_| broken("cut short"))?;
        if start[..8] != *MAGIC {
            return Err(broken("it does not begin as one"));
        }
        let version = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
        if version != VERSION {
            return Err(Error::File {
                name: name.into(),
                what: format!("a snapshot of version {version}, this command reads {VERSION}"),
            });
        }
        let unpacked =
            zstd::stream::read::Decoder::new(from).map_err(|_| broken("not packed by zstd"))?;
        let mut unpacked = unpacked.take(MOST);
        let mut length = [0; 4];
        unpacked
            .read_exact(&mut length)
            .map_err(|_| broken("cut short"))?;
        let length = u32::from_le_bytes(length);
        if length > HEAD_MOST {
            return Err(broken("its head is too long"));
        }
        let text = exactly(&mut unpacked, length.into()).ok_or_else(|| broken("cut short"))?;
        let mut head: Head = serde_json::from_slice(&text).map_err(|_| broken("its head"))?;
        if head.schema != SCHEMA {
            return Err(broken("its head has another schema"));
        }
        head.mappings.sort_by_key(|mapping| mapping.span);
        head.present.sort();
        head.present
            .dedup_by(|next, before| next.start < before.end);
        let mut pieces = Vec::new();
        loop {
            let mut start = [0; 16];
            match unpacked.read(&mut start[..1]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return Err(broken("cut short")),
            }
            unpacked
                .read_exact(&mut start[1..])
                .map_err(|_| broken("cut short"))?;
            let [address, bytes] = [&start[..8], &start[8..]].map(|half| {
                let mut word = [0; 8];
                word.copy_from_slice(half);
                u64::from_le_bytes(word)
            });
            let piece = exactly(&mut unpacked, bytes).ok_or_else(|| broken("cut short"))?;
            pieces.push((address, piece));
        }
        pieces.sort_by_key(|piece| piece.0);
        Ok(Snapshot {
            name: name.into(),
            head,
            pieces,
        })
    }

    /// What is known beside contents.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Calls `visit` with the contents of each piece that begins in `within`, by address.
    pub fn pieces(&self, within: Span, mut visit: impl FnMut(u64, &[u8])) {
        let inside = self.pieces.iter().filter(|piece| within.holds(piece.0));
        inside.for_each(|(start, bytes)| visit(*start, bytes));
    }
}

/// The next `bytes` bytes. Memory grows with what is there.
fn exactly(from: &mut impl Read, bytes: u64) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while (all.len() as u64) < bytes {
        let at = all.len();
        let step = (bytes - at as u64).min(STEP as u64) as usize;
        all.try_reserve(step).ok()?;
        all.resize(at + step, 0);
        from.read_exact(&mut all[at..]).ok()?;
    }
    Some(all)
}

/// Writes a snapshot: its head first, then pieces.
pub struct Writer(zstd::stream::write::Encoder<'static, BufWriter<File>>);

impl Writer {
    /// Begins the file.
    pub fn new(file: File, head: &Head) -> io::Result<Writer> {
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        let mut packed = zstd::stream::write::Encoder::new(file, LEVEL)?;
        let text = serde_json::to_vec(head)?;
        packed.write_all(&(text.len() as u32).to_le_bytes())?;
        packed.write_all(&text)?;
        Ok(Writer(packed))
    }

    /// Adds the contents at `address`.
    pub fn piece(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(&address.to_le_bytes())?;
        self.0.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.0.write_all(bytes)
    }

    /// Ends the file.
    pub fn finish(self) -> io::Result<()> {
        self.0.finish()?.flush()
    }
}

impl Source for Snapshot {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let (mut at, mut done) = (address, 0);
        while done < into.len() {
            let index = self.pieces.partition_point(|piece| piece.0 <= at);
            let Some((start, bytes)) = self.pieces[..index].last() else {
                return false;
            };
            let from = bytes.get((at - start) as usize..).unwrap_or(&[]);
            if from.is_empty() {
                return false;
            }
            let n = from.len().min(into.len() - done);
            into[done..done + n].copy_from_slice(&from[..n]);
            let Some(next) = at.checked_add(n as u64) else {
                return false;
            };
            (at, done) = (next, done + n);
        }
        true
    }

    fn mappings(&self) -> &[Mapping] {
        &self.head.mappings
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        visit_within(&self.head.present, within, visit);
    }

    fn unmapped(&self, _: &Mapping, _: Span, _: &mut dyn FnMut(u64, &[u8])) -> bool {
        // It was written with the rest.
        true
    }

    fn has_contents(&self) -> bool {
        self.head.contents == ALL
    }

    fn has_heads(&self) -> bool {
        self.head.contents != NONE
    }

    fn about(&self) -> About {
        self.head.about.clone()
    }

    fn threads(&self) -> Vec<Thread> {
        self.head.threads.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_moving(&self) -> bool {
        false
    }

    fn stood_still(&self) -> bool {
        self.head.stopped
    }

    fn no_heap(&self) -> Error {
        Error::NoMetadata {
            name: self.name.clone(),
        }
    }
}

//! A large block, and what an address is, as callers see them.

/// A large block as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first byte.
    pub address: usize,
    /// Bytes of its mapping.
    pub bytes: usize,
}

impl Block {
    /// The byte after it.
    pub(super) const fn end(&self) -> usize {
        self.address + self.bytes
    }

    /// What lies after the first `bytes` bytes.
    pub(super) const fn behind(&self, bytes: usize) -> Block {
        Block {
            address: self.address + bytes,
            bytes: self.bytes - bytes,
        }
    }
}

/// A block that was made just now.
#[derive(Clone, Copy)]
pub struct Fresh {
    pub block: Block,
    /// Where all of it is zero and lies in a mapping that was made for it: how many bytes were mapped afresh.
    pub new: Option<usize>,
}

/// Whether a block lies between pages that fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GuardPages {
    /// It does not.
    None = 0,
    /// One before it and one behind.
    Both = 1,
}

/// What an address is to this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The start of a live block.
    Live(Block),
    /// In what was freed and is kept for reuse.
    Freed(Block),
    /// Nothing known.
    Unknown,
}

//! Each error a caller can make, and the one line that is printed for it.
//!
//! Knows nothing of the heap. The code that finds the misuse fills in what it knows. The line is built in a fixed
//! buffer without `core::fmt`, since it is printed from inside `free` when little can be trusted.

use crate::units::Slot;

/// What the caller was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `free` and its relatives.
    Free,
    /// `realloc` and its relatives.
    Realloc,
    /// `malloc_usable_size`.
    UsableSize,
}

/// An error a caller can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A slot that is free already was given back, or used as if it were live.
    Dead {
        /// What the caller was doing.
        call: Call,
        /// The pointer given.
        addr: usize,
        /// Number of the slot within its slab. 0 for a span.
        slot: Slot,
        /// Slot size in bytes.
        size: usize,
    },
    /// A large block that is free already was given back, or used as if it were live. Freed ones join, so how long it was
    /// is not known.
    DeadLarge {
        /// What the caller was doing.
        call: Call,
        /// The pointer given.
        addr: usize,
    },
    /// A pointer into a live large block, behind its start.
    InsideLarge {
        /// What the caller was doing.
        call: Call,
        /// The pointer given.
        addr: usize,
        /// Bytes from the block's start to the pointer.
        offset: usize,
        /// Bytes of the block.
        size: usize,
    },
    /// A pointer into a slab that is not the start of a slot.
    Inside {
        /// What the caller was doing.
        call: Call,
        /// The pointer given.
        addr: usize,
        /// Bytes from the slab's first slot to the pointer.
        offset: usize,
        /// Slot size in bytes.
        size: usize,
    },
    /// A pointer to nothing of ours.
    Unknown {
        /// What the caller was doing.
        call: Call,
        /// The pointer given.
        addr: usize,
    },
    /// A block was given back with a size that it was not asked for with.
    WrongSize {
        /// The pointer given.
        addr: usize,
        /// The size given.
        said: usize,
        /// Bytes of the block.
        size: usize,
    },
    /// A first-class heap that was destroyed, or never created, was used.
    NoHeap {
        /// The handle given.
        heap: usize,
    },
    /// Two frees of one slot that met only when the owner collected its remote frees.
    CollectedTwice {
        /// Address of the slot.
        addr: usize,
        /// Number of the slot within its slab.
        slot: Slot,
        /// Slot size in bytes.
        size: usize,
    },
    /// Bytes after a block's end were written: its canary is not whole (hardened mode).
    Overflow {
        /// What the caller was doing when it was found.
        call: Call,
        /// Address of the block.
        addr: usize,
        /// Number of the slot within its slab. 0 for a span or a large block.
        slot: Slot,
        /// Slot size in bytes.
        size: usize,
        /// Bytes that were asked for.
        asked: usize,
        /// The first byte found changed, counted from the end of what was asked for.
        past: usize,
    },
    /// A freed slot was written to before it was handed out again (hardened mode).
    Written {
        /// Address of the slot.
        addr: usize,
        /// Number of the slot within its slab. 0 for a span.
        slot: Slot,
        /// Slot size in bytes.
        size: usize,
        /// The first byte found written, counted from the slot's start.
        at: usize,
    },
}

impl Misuse {
    /// The address that it is about.
    pub fn address(&self) -> usize {
        match *self {
            Misuse::Dead { addr, .. }
            | Misuse::DeadLarge { addr, .. }
            | Misuse::InsideLarge { addr, .. }
            | Misuse::Inside { addr, .. }
            | Misuse::Unknown { addr, .. }
            | Misuse::CollectedTwice { addr, .. }
            | Misuse::Overflow { addr, .. }
            | Misuse::Written { addr, .. }
            | Misuse::WrongSize { addr, .. } => addr,
            Misuse::NoHeap { heap } => heap,
        }
    }
}

/// Longest line that [`Line`] holds, in bytes.
pub const LINE: usize = 160;

/// The most letters of a user's that a line quotes.
const QUOTED: usize = 40;

/// A line of text in a fixed buffer. What does not fit is cut off.
pub struct Line {
    text: [u8; LINE],
    len: usize,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Line {
        Line {
            text: [0; LINE],
            len: 0,
        }
    }

    /// The text so far.
    pub fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    /// Appends `text`.
    pub fn text(&mut self, text: &str) -> &mut Line {
        for &byte in text.as_bytes() {
            self.byte(byte);
        }
        self
    }

    /// Appends the first letters of what a user wrote, with `?` for what is no printable ASCII.
    pub fn quoted(&mut self, text: &[u8]) -> &mut Line {
        for &byte in &text[..text.len().min(QUOTED)] {
            self.byte(if byte.is_ascii_graphic() || byte == b' ' {
                byte
            } else {
                b'?'
            });
        }
        self
    }

    /// Appends `n` in decimal.
    pub fn decimal(&mut self, n: usize) -> &mut Line {
        self.number(n, 10)
    }

    /// Appends `n` in hexadecimal with the prefix `0x`.
    pub fn hex(&mut self, n: usize) -> &mut Line {
        self.text("0x").number(n, 16)
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, n: usize, base: usize) -> &mut Line {
        let mut divisor = 1;
        while n / divisor >= base {
            divisor *= base;
        }
        while divisor > 0 {
            self.byte(b"0123456789abcdef"[n / divisor % base]);
            divisor /= base;
        }
        self
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl Call {
    const fn of(self) -> &'static str {
        match self {
            Call::Free => "free of ",
            Call::Realloc => "realloc of ",
            Call::UsableSize => "usable size of ",
        }
    }

    /// What is said before, if the block was freed already.
    const fn of_dead(self) -> &'static str {
        match self {
            Call::Free => "double ",
            Call::Realloc | Call::UsableSize => "after free: ",
        }
    }
}

impl Misuse {
    /// The line that reports this misuse, with its newline.
    pub fn line(&self) -> Line {
        let mut line = Line::new();
        line.text("slabside: ");
        match *self {
            Misuse::Dead {
                call,
                addr,
                slot,
                size,
            } => {
                line.text(call.of_dead()).text(call.of()).hex(addr);
                at_slot(&mut line, slot, size);
            }
            Misuse::DeadLarge { call, addr } => {
                line.text(call.of_dead()).text(call.of()).hex(addr);
                line.text(" (a large block)");
            }
            Misuse::InsideLarge {
                call,
                addr,
                offset,
                size,
            } => {
                line.text("invalid ").text(call.of()).hex(addr);
                line.text(" (byte ").decimal(offset).text(" of a block of ");
                line.decimal(size).text(" bytes)");
            }
            Misuse::CollectedTwice { addr, slot, size } => {
                line.text("double free of ").hex(addr);
                at_slot(&mut line, slot, size);
                line.text(", found when its owner collected");
            }
            Misuse::Inside {
                call,
                addr,
                offset,
                size,
            } => {
                line.text("invalid ")
                    .text(call.of())
                    .hex(addr)
                    .text(" (byte ");
                line.decimal(offset % size)
                    .text(" of slot ")
                    .decimal(offset / size);
                line.text(" of a ").decimal(size).text("-byte slab)");
            }
            Misuse::Overflow {
                call,
                addr,
                slot,
                size,
                asked,
                past,
            } => {
                line.text("overflow of ").hex(addr);
                at_byte(&mut line, asked + past, slot, size);
                line.text(", ")
                    .decimal(asked)
                    .text(" bytes long, found by ");
                line.text(call.of().trim_end_matches(" of "));
            }
            Misuse::Written {
                addr,
                slot,
                size,
                at,
            } => {
                line.text("write after free to ").hex(addr + at);
                at_byte(&mut line, at, slot, size);
                line.text(", found by malloc");
            }
            Misuse::WrongSize { addr, said, size } => {
                line.text("free of ")
                    .hex(addr)
                    .text(" with the wrong size ")
                    .decimal(said);
                line.text(" (a block of ").decimal(size).text(" bytes");
                let alignment = if said == size {
                    ", aligned otherwise"
                } else {
                    ""
                };
                line.text(alignment).text("); sizes:ignore lets it pass");
            }
            Misuse::NoHeap { heap } => {
                line.text("use of heap ")
                    .hex(heap)
                    .text(" (destroyed, or never created)");
            }
            Misuse::Unknown { call, addr } => {
                line.text("invalid ")
                    .text(call.of())
                    .hex(addr)
                    .text(" (not a block of this heap; the option foreign is for those of another malloc)");
            }
        }
        line.text("\n");
        line
    }
}

fn at_byte(line: &mut Line, byte: usize, slot: Slot, size: usize) {
    line.text(" (byte ")
        .decimal(byte)
        .text(" of slot ")
        .decimal(slot.index());
    line.text(" of a ").decimal(size).text("-byte slab)");
}

fn at_slot(line: &mut Line, slot: Slot, size: usize) {
    line.text(" (slot ")
        .decimal(slot.index())
        .text(" of a ")
        .decimal(size)
        .text("-byte slab)");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(misuse: Misuse) -> std::string::String {
        std::string::String::from_utf8(misuse.line().bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_double_free_is_told_with_slot_and_size() {
        let misuse = Misuse::Dead {
            call: Call::Free,
            addr: 0x7f00_1230,
            slot: Slot::new(12),
            size: 48,
        };
        assert_eq!(
            said_of(misuse),
            "slabside: double free of 0x7f001230 (slot 12 of a 48-byte slab)\n"
        );
    }

    #[test]
    fn an_interior_pointer_is_told_with_its_distance() {
        let misuse = Misuse::Inside {
            call: Call::Realloc,
            addr: 0x1039,
            offset: 57,
            size: 48,
        };
        assert_eq!(
            said_of(misuse),
            "slabside: invalid realloc of 0x1039 (byte 9 of slot 1 of a 48-byte slab)\n"
        );
    }

    #[test]
    fn a_large_block_is_told_without_a_slab() {
        let (call, addr) = (Call::Realloc, 0x1000);
        assert_eq!(
            said_of(Misuse::DeadLarge { call, addr }),
            "slabside: after free: realloc of 0x1000 (a large block)\n"
        );
        let (call, addr, offset, size) = (Call::Free, 0x2008, 0x1008, 300_000);
        assert_eq!(
            said_of(Misuse::InsideLarge {
                call,
                addr,
                offset,
                size
            }),
            "slabside: invalid free of 0x2008 (byte 4104 of a block of 300000 bytes)\n"
        );
    }

    #[test]
    fn a_wrong_size_is_told_with_the_blocks() {
        let (addr, said, size) = (0x1000, 100, 48);
        assert_eq!(
            said_of(Misuse::WrongSize { addr, said, size }),
            "slabside: free of 0x1000 with the wrong size 100 (a block of 48 bytes); sizes:ignore lets it pass\n"
        );
        let said = size;
        assert_eq!(
            said_of(Misuse::WrongSize { addr, said, size }),
            "slabside: free of 0x1000 with the wrong size 48 (a block of 48 bytes, aligned otherwise); sizes:ignore lets it pass\n"
        );
        assert_eq!(
            said_of(Misuse::NoHeap { heap: 0x20 }),
            "slabside: use of heap 0x20 (destroyed, or never created)\n"
        );
    }

    #[test]
    fn the_longest_line_fits() {
        let (addr, slot, size) = (usize::MAX, Slot::new(usize::MAX), usize::MAX);
        assert!(said_of(Misuse::CollectedTwice { addr, slot, size }).ends_with("collected\n"));
    }

    #[test]
    fn zero_and_the_largest_number_are_written_in_full() {
        let mut line = Line::new();
        line.decimal(0)
            .text(" ")
            .decimal(usize::MAX)
            .text(" ")
            .hex(usize::MAX);
        assert_eq!(line.bytes(), b"0 18446744073709551615 0xffffffffffffffff");
    }
}

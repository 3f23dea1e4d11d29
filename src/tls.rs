//! The thread's own block: the entries that the fast paths work on, and who the thread is.
//!
//! The block is all zero at thread start, has no destructor, and is reached by the initial-exec model
//! in two instructions: `thread_local!` in a shared library would go through `__tls_get_addr`, which
//! costs 16 instructions and may allocate. It is kept small: a library opened late by dlopen finds
//! little static TLS left (about 1.2 KiB can be counted on with glibc's defaults).
//!
//! This file is the only one that knows an architecture.

use crate::class::LOCAL_CLASSES;
use crate::sync::AtomicU64;
use core::cell::Cell;
use core::ptr;
use static_assertions::const_assert_eq;

/// The slots of one class that the thread has checked out: up to 64, all of one bitmap word.
#[repr(C)]
pub struct Entry {
    /// Slots checked out and not handed out; 0 leads to the slow path, and so a fresh thread, a
    /// hardened thread and a used-up word need no branch of their own.
    pub bits: Cell<u64>,
    /// The bitmap word that the bits came from, in which they are still marked free.
    pub word: Cell<*const AtomicU64>,
    /// Address of the word's first slot.
    pub base: Cell<*mut u8>,
    /// Slot size in bytes.
    pub size: Cell<usize>,
}

const_assert_eq!(core::mem::size_of::<Entry>(), 32);

impl Entry {
    /// An entry with nothing checked out.
    pub const fn new() -> Entry {
        Entry {
            bits: Cell::new(0),
            word: Cell::new(ptr::null()),
            base: Cell::new(ptr::null_mut()),
            size: Cell::new(0),
        }
    }

    /// Forgets what is checked out. Nothing is lost: the bitmap says that those slots are free.
    pub fn drop_slots(&self) {
        self.bits.set(0);
        self.word.set(ptr::null());
    }
}

impl Default for Entry {
    fn default() -> Entry {
        Entry::new()
    }
}

/// Where a thread stands between its first allocation and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// It has no heap yet.
    Fresh = 0,
    /// It has a heap.
    Running = 1,
    /// Its exit hook ran, or there was no heap for it: it uses the shared heap under a lock.
    Late = 2,
}

/// A thread's block.
#[repr(C)]
pub struct Local {
    /// Entries of the classes up to 1 KiB; the others lie in the thread's heap.
    pub entries: [Entry; LOCAL_CLASSES],
    /// The thread's owner word; 0 owns nothing.
    pub me: Cell<u64>,
    /// The thread's heap, of `heap::Heap`; null: none.
    pub heap: Cell<*const u8>,
    /// Where the thread stands.
    pub phase: Cell<Phase>,
    /// Non-zero while the thread is in a slow path: a signal handler must not enter one.
    pub busy: Cell<u32>,
    /// Times that the exit hook was put off to a later round of destructors.
    pub rounds: Cell<u32>,
    reserved: Cell<u32>,
}

/// Bytes of a [`Local`], as the assembly below reserves them.
const LOCAL_BYTES: usize = 1088;
const_assert_eq!(core::mem::size_of::<Local>(), LOCAL_BYTES);

impl Local {
    /// The block of a thread that has not allocated: the same as all zeros.
    pub const fn new() -> Local {
        Local {
            entries: [const { Entry::new() }; LOCAL_CLASSES],
            me: Cell::new(0),
            heap: Cell::new(ptr::null()),
            phase: Cell::new(Phase::Fresh),
            busy: Cell::new(0),
            rounds: Cell::new(0),
            reserved: Cell::new(0),
        }
    }
}

impl Local {
    /// Makes the block that of a thread which has not allocated: for the shared one, in a fork child.
    pub fn reset(&self) {
        self.entries.iter().for_each(Entry::drop_slots);
        self.me.set(0);
        self.heap.set(ptr::null());
        self.phase.set(Phase::Fresh);
        self.busy.set(0);
    }
}

impl Default for Local {
    fn default() -> Local {
        Local::new()
    }
}

pub use access::local;

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
mod access {
    use super::{Local, LOCAL_BYTES};
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.slabside_local,\"awT\",@nobits",
        ".balign 64",
        ".globl slabside_local",
        ".hidden slabside_local",
        ".type slabside_local, @tls_object",
        ".size slabside_local, {bytes}",
        "slabside_local:",
        ".zero {bytes}",
        ".popsection",
        bytes = const LOCAL_BYTES,
    );

    /// The calling thread's block: two instructions.
    #[inline(always)]
    pub fn local() -> &'static Local {
        let block: *const Local;
        // SAFETY: reads the thread pointer and the block's offset from it (ELF Handling For TLS, 4.4.6);
        // the block is zero-initialised, which is `Local::new()`, and lives as long as the thread, which
        // the reference cannot leave, since `Local` is not Sync.
        unsafe {
            asm!(
                "mov {block}, qword ptr fs:[0]",
                "add {block}, qword ptr [rip + slabside_local@GOTTPOFF]",
                block = out(reg) block,
                options(pure, nomem, nostack)
            );
            &*block
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
mod access {
    use super::{Local, LOCAL_BYTES};
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.slabside_local,\"awT\",@nobits",
        ".balign 64",
        ".globl slabside_local",
        ".hidden slabside_local",
        ".type slabside_local, @tls_object",
        ".size slabside_local, {bytes}",
        "slabside_local:",
        ".zero {bytes}",
        ".popsection",
        bytes = const LOCAL_BYTES,
    );

    /// The calling thread's block: four instructions.
    #[inline(always)]
    pub fn local() -> &'static Local {
        let block: *const Local;
        // SAFETY: as on x86-64, by `tpidr_el0` and the initial-exec relocations of the AArch64 ELF ABI.
        unsafe {
            asm!(
                "adrp {offset}, :gottprel:slabside_local",
                "ldr {offset}, [{offset}, :gottprel_lo12:slabside_local]",
                "mrs {block}, tpidr_el0",
                "add {block}, {block}, {offset}",
                offset = out(reg) _,
                block = out(reg) block,
                options(pure, nomem, nostack, preserves_flags)
            );
            &*block
        }
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
)))]
mod access {
    extern crate std;
    use super::Local;

    std::thread_local! {
        static LOCAL: Local = const { Local::new() };
    }

    /// The calling thread's block.
    #[inline(always)]
    pub fn local() -> &'static Local {
        // SAFETY: the block needs no destructor, so it lives as long as the thread, which the reference
        // cannot leave, since `Local` is not Sync.
        LOCAL.with(|local| unsafe { &*core::ptr::from_ref(local) })
    }
}

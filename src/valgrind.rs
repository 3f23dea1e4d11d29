//! What memcheck has to be told so that it understands our blocks (feature `valgrind`): client requests, and
//! [`Memchecked`], which makes them around [`Slabside`].
//!
//! Out-of-band bookkeeping makes this easy. Nothing of ours ever reads or writes a block, so a block can be out of
//! bounds from the moment it is freed until it is handed out again.
//!
//! A request is a sequence of instructions that does nothing on a processor and that valgrind knows (its manual,
//! "The Client Request mechanism"). Without valgrind it costs a few instructions and changes nothing.

use crate::global::Slabside;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use slabside_core::api;

/// `VALGRIND_MALLOCLIKE_BLOCK`: address, bytes, bytes of red zone, whether zeroed.
const MALLOCLIKE: usize = 0x1301;
/// `VALGRIND_FREELIKE_BLOCK`: address, bytes of red zone.
const FREELIKE: usize = 0x1302;
/// `VALGRIND_MAKE_MEM_NOACCESS` of memcheck: address, bytes.
const NO_ACCESS: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;

/// Makes a request of number and up to five arguments.
#[cfg(target_arch = "x86_64")]
fn request(arguments: &[usize; 6]) {
    // SAFETY: rdi is turned by 128 bits in all and rbx exchanged with itself. Valgrind, where it runs, reads the
    // arguments and writes rdx.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0usize => _,
        );
    }
}

/// Makes a request of number and up to five arguments.
#[cfg(target_arch = "aarch64")]
fn request(arguments: &[usize; 6]) {
    // SAFETY: x12 is turned by 128 bits in all and x10 ored with itself. Valgrind, where it runs, reads the arguments
    // and writes x3.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") arguments.as_ptr(),
            inout("x3") 0usize => _,
        );
    }
}

/// valgrind's other processors have their own sequences: nothing is told there.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn request(_: &[usize; 6]) {}

/// A block of `bytes` was handed out: it may be used, and reads as undefined until written. What its slot has
/// beyond may not.
fn handed_out(block: *mut u8, bytes: usize) {
    if block.is_null() {
        return;
    }
    // SAFETY: malloc returned the block just now, so it is live.
    let room = unsafe { api::usable_size(block) };
    request(&[NO_ACCESS, block as usize, room, 0, 0, 0]);
    request(&[MALLOCLIKE, block as usize, bytes, 0, 0, 0]);
}

/// A block is about to be freed: it may not be used any more.
fn given_back(block: *mut u8) {
    if !block.is_null() {
        request(&[FREELIKE, block as usize, 0, 0, 0, 0]);
    }
}

/// [`Slabside`] under valgrind's memcheck: invalid reads and writes, uses of undefined bytes and leaks are told
/// as for any malloc. A resized block always moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memchecked;

// SAFETY: as `Slabside`. Requests change nothing of the process.
unsafe impl GlobalAlloc for Memchecked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees a layout of more than no bytes.
        let block = unsafe { Slabside.alloc(layout) };
        handed_out(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        given_back(block);
        // SAFETY: the caller guarantees a live block of this allocator and its layout.
        unsafe { Slabside.dealloc(block, layout) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees a layout of more than no bytes.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block was allocated just now with `layout.size()` bytes.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    // `realloc` stays the trait's own: allocate, copy, deallocate. Ours would copy what lies beyond the size
    // asked for.
}

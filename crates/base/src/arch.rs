//! The few instructions that the compiler does not make of Rust code, for each architecture.
//!
//! Everything here has a portable twin below. Miri runs it, and so do the tests whose threads are blocks of their own
//! ([`portable::Block::at`]). The numbers in docs/fast_path.md are those of x86-64. A port changes this file alone. The
//! file knows no types of the layers above. It knows only at which offsets of a slot cache and of a header the words
//! lie that the fast paths touch. Those types assert the offsets.
//!
//! ```text
//!   cache     bits u64 | word *u64 | base *u8 | size u64            tls::SlotCache
//!   header    base u64 | owner u64 | recip u32 | size u32 | frees_left i32 | ... | free u64...   slab::Slab
//! ```

use crate::units::PAGE_SHIFT;

/// Bytes of the calling thread's block, zero at thread start, of `tls::ThreadCache`.
pub const BLOCK_BYTES: usize = 1088;
/// Where in the block the thread's count of locks lies.
pub const BLOCK_LOCKS: usize = 1074;

/// Offset in a slot cache of the cached slots.
pub const CACHE_BITS: usize = 0;
/// Offset in a slot cache of the address of the bitmap word that they came from.
pub const CACHE_WORD: usize = 8;
/// Offset in a slot cache of the address of the word's first slot.
pub const CACHE_BASE: usize = 16;
/// Offset in a slot cache of the slot size.
pub const CACHE_SIZE: usize = 24;

/// Offset in a header of the reciprocal of the slot size.
pub const HEADER_RECIP: usize = 16;
/// Offset in a header of the `frees_left`.
pub const HEADER_FREES_LEFT: usize = 24;
/// Offset in a header of the size of its slots, of four bytes.
pub const HEADER_SIZE: usize = 20;
/// Offset in a header of the number of slots, of two bytes.
pub const HEADER_SLOTS: usize = 28;
/// Offset in a header of what tells whether its slots can be cached as they are, of eight bytes.
pub const HEADER_NOTES: usize = 120;
/// Offset of the bitmap of remote frees from that of free slots, but in a header pair.
pub const REMOTE_AFTER_FREE: usize = 32;
/// Offset in a header of the bitmap of free slots.
pub const HEADER_FREE: usize = 32;

/// Offset in a header of the address of its first slot.
pub const HEADER_BASE: usize = 0;
/// Offset in a header of the owner word.
pub const HEADER_OWNER: usize = 8;
/// Base-2 logarithm of a header's bytes.
pub const HEADER_SHIFT: u32 = 7;

/// Offset in what free reads first (`pages::Hot`) of the address of page 0.
pub const HOT_BASE: usize = 0;
/// Offset there of the number of pages.
pub const HOT_PAGES: usize = 8;
/// Offset there of the address of the page map.
pub const HOT_MAP: usize = 16;
/// Offset there of the address of the header table.
pub const HOT_SLABS: usize = 24;

/// Where the heap of a thread has what [`refill`] works on, in bytes from its start. What a class has is that of
/// class 0. That of the next one lies [`Refill::CLASS_BYTES`] after it.
pub trait Refill {
    /// The address of the heap, in the thread's block.
    const HEAP: usize;
    /// Slow paths, of four bytes. Where they are a multiple of sixteen, more is to be done.
    const TICKS: usize;
    /// Slots cached, of four bytes.
    const SLOTS: usize;
    /// Bytes handed out, of eight.
    const BYTES: usize;
    /// A class's active slab: its number, of four bytes. Less than 2 means none.
    const ACTIVE: usize;
    /// The word of the active slab that was cached last, of one byte.
    const CURSOR: usize;
    /// The number of a slab that waits, of four bytes. 0 means none.
    const WAITING: usize;
    /// The bits of [`HEADER_NOTES`] for which more is to be done.
    const NOTED: u64;
    /// Bytes of what a heap has for a class: five fourths of those of a slot cache.
    const CLASS_BYTES: usize = 5 << 3;
}

/// What [`refill`] says that cached nothing: more is to be done.
pub const REFILL_ELSEWHERE: usize = 0;
/// As [`REFILL_ELSEWHERE`]: the active slab has no free slot.
pub const REFILL_USED_UP: usize = 1;
/// As [`REFILL_ELSEWHERE`]: all words of the active slab had their turn, and another slab waits.
pub const REFILL_ROUND_OVER: usize = 2;

/// What became of a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// The slot is marked free.
    Done,
    /// It is, and the slab's `frees_left` is zero.
    Event,
    /// It was free already, or no slot begins there: nothing was marked.
    Misuse,
    /// The slab is not the thread's own as it stands: nothing was marked.
    Elsewhere,
    /// The address lies outside the first window: nothing was marked.
    Far,
}

pub use registers::{copy_stack, registers};

pub use machine::{
    add_owned, add_to_full, count_all_ones, count_ones, fill_owned, learn, mark_free, pass_owned,
    prefetch, prefetch_write, refill, thread_pointer, unlinked, xor_owned, Block,
};

/// Asks the kernel for call `number`: its result, or minus the error's number. By the instruction itself: a program
/// may define any function of libc's, and errno stays as it is.
///
/// # Safety
/// The call's own, of its manual page in section 2.
#[inline]
pub unsafe fn system_call(number: usize, arguments: [usize; 6]) -> isize {
    // SAFETY: the caller guarantees what the call's manual page demands.
    unsafe { kernel::call(number, arguments) }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
mod kernel {
    /// syscall(2): the kernel changes the result, and rcx and r11.
    ///
    /// # Safety
    /// As [`super::system_call`].
    #[inline(always)]
    pub unsafe fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
        let result;
        // SAFETY: the caller keeps this function's contract. No register beside these is changed.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                in("r9") f,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        result
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
mod kernel {
    /// syscall(2).
    ///
    /// # Safety
    /// As [`super::system_call`].
    #[inline(always)]
    pub unsafe fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
        let result;
        // SAFETY: the caller keeps this function's contract. No register beside the result is changed.
        unsafe {
            core::arch::asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") a => result,
                in("x1") b,
                in("x2") c,
                in("x3") d,
                in("x4") e,
                in("x5") f,
                options(nostack)
            );
        }
        result
    }
}

#[cfg(not(any(
    miri,
    all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )
)))]
mod kernel {
    /// By libc's syscall(3), with errno kept.
    ///
    /// # Safety
    /// As [`super::system_call`].
    pub unsafe fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
        // SAFETY: the caller keeps this function's contract. errno is the calling thread's own.
        unsafe {
            let errno = libc::__errno_location();
            let kept = *errno;
            let result = match libc::syscall(number as libc::c_long, a, b, c, d, e, f) {
                -1 => -(*errno as isize),
                result => result as isize,
            };
            *errno = kept;
            result
        }
    }
}

#[cfg(miri)]
mod kernel {
    /// Miri knows the calls of locks, by libc's syscall(3) and with the types of their arguments.
    ///
    /// # Safety
    /// As [`super::system_call`]. The call is futex(2) without a timeout.
    pub unsafe fn call(number: usize, [word, operation, value, ..]: [usize; 6]) -> isize {
        let word = core::ptr::with_exposed_provenance_mut::<u32>(word);
        let (number, operation) = (number as libc::c_long, operation as libc::c_int);
        let never = core::ptr::null::<libc::timespec>();
        // SAFETY: the caller keeps this function's contract. errno is the calling thread's own.
        unsafe {
            let errno = libc::__errno_location();
            let kept = *errno;
            let result = match libc::syscall(number, word, operation, value as u32, never) {
                -1 => -(*errno as isize),
                result => result as isize,
            };
            *errno = kept;
            result
        }
    }
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
))]
core::arch::global_asm!(
    ".pushsection .tbss.slabside_local,\"awT\",@nobits",
    ".balign 64",
    ".globl slabside_local",
    ".hidden slabside_local",
    ".type slabside_local, @tls_object",
    ".size slabside_local, {bytes}",
    "slabside_local:",
    ".zero {bytes}",
    ".popsection",
    bytes = const BLOCK_BYTES,
);

#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    not(any(miri, slabside_portable))
))]
mod machine {
    use super::*;
    use core::arch::asm;
    use core::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// Whether the processor has an instruction that counts bits: nobody has asked it, or the answer.
    static COUNTS: AtomicU8 = AtomicU8::new(UNASKED);
    const UNASKED: u8 = 0;
    const HAS_NONE: u8 = 1;
    const HAS_ONE: u8 = 2;

    /// Asks the processor, once, for what it has beyond every other one of the architecture. A virtual machine may take
    /// some microseconds to answer. So this is for a thread that has been at work for a while.
    #[inline]
    pub fn learn() {
        if COUNTS.load(Relaxed) == UNASKED {
            ask();
        }
    }

    #[cold]
    #[inline(never)]
    fn ask() {
        /// Leaf 1, ecx.
        const POPCNT: u32 = 1 << 23;
        // Unsafe until Rust 1.94 only.
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 processor has the instruction, which reads no memory.
        let leaf = unsafe { core::arch::x86_64::__cpuid(1) };
        let has = leaf.ecx & POPCNT != 0;
        COUNTS.store(if has { HAS_ONE } else { HAS_NONE }, Relaxed);
    }

    /// How many of `bits` are set. Three instructions once [`learn`] has found that there is one for it, and 27 before.
    #[inline(always)]
    pub fn count_ones(bits: u64) -> u64 {
        if COUNTS.load(Relaxed) != HAS_ONE {
            return u64::from(bits.count_ones());
        }
        let count;
        // SAFETY: the processor has said that it has the instruction.
        unsafe {
            asm!(
                "popcnt {count}, {bits}",
                bits = in(reg) bits,
                count = lateout(reg) count,
                options(pure, nomem, nostack)
            );
        }
        count
    }

    /// How many bits are set in all of `words`: as [`count_ones`], but whether there is an instruction is asked once.
    #[inline(always)]
    pub fn count_all_ones([a, b, c, d]: [u64; 4]) -> u64 {
        if COUNTS.load(Relaxed) != HAS_ONE {
            return [a, b, c, d]
                .map(|bits| u64::from(bits.count_ones()))
                .iter()
                .sum();
        }
        let (count, second, third, fourth): (u64, u64, u64, u64);
        // SAFETY: the processor has said that it has the instruction.
        unsafe {
            asm!(
                "popcnt {a}, {a}",
                "popcnt {b}, {b}",
                "popcnt {c}, {c}",
                "popcnt {d}, {d}",
                a = inlateout(reg) a => count,
                b = inlateout(reg) b => second,
                c = inlateout(reg) c => third,
                d = inlateout(reg) d => fourth,
                options(pure, nomem, nostack)
            );
        }
        count + second + third + fourth
    }

    /// The thread pointer: one instruction.
    #[inline(always)]
    pub fn thread_pointer() -> usize {
        let pointer;
        // SAFETY: the first word there is the address itself (x86-64 psABI, TLS variant II).
        unsafe {
            asm!(
                "mov {pointer}, qword ptr fs:[0]",
                pointer = out(reg) pointer,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        pointer
    }

    /// Where the calling thread's block lies, as an offset from the thread pointer: one instruction (ELF
    /// Handling For TLS, 4.4.6, initial exec).
    #[derive(Clone, Copy)]
    pub struct Block(usize);

    impl Block {
        /// The calling thread's block.
        #[inline(always)]
        pub fn mine() -> Block {
            let offset;
            // SAFETY: reads an entry of the global offset table.
            unsafe {
                asm!(
                    "mov {offset}, qword ptr [rip + slabside_local@GOTTPOFF]",
                    offset = out(reg) offset,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            Block(offset)
        }

        /// The block's address.
        #[inline(always)]
        pub fn address(self) -> *mut u8 {
            thread_pointer().wrapping_add(self.0) as *mut u8
        }

        /// Takes the lowest of the slots that the slot cache at `offset` has, if there is one: clears its
        /// bit there and in the bitmap word, and returns the slot's address. Thirteen instructions.
        ///
        /// The bits are loaded by the same register that they were stored by the last time: such a load the
        /// processor can take straight from the store (memory renaming, as of Intel's Golden Cove).
        ///
        /// # Safety
        /// A slot cache lies at `offset`. If it has slots, its other words are those that they came
        /// with, and the calling thread alone stores to the bitmap word.
        #[inline(always)]
        pub unsafe fn take(self, offset: usize) -> Option<*mut u8> {
            let cache = self.0.wrapping_add(offset);
            let bits: u64;
            // SAFETY: within the block (the caller's), which lives as long as the thread.
            unsafe {
                asm!(
                    "mov {bits}, qword ptr fs:[{cache} + {BITS}]",
                    cache = in(reg) cache,
                    bits = out(reg) bits,
                    BITS = const CACHE_BITS,
                    options(pure, readonly, nostack, preserves_flags)
                );
            }
            if bits == 0 {
                return None;
            }
            let slot;
            // SAFETY: the slot cache is within the block, and its word in a header that is never unmapped.
            unsafe {
                asm!(
                    "lea {rest}, [{slot} - 1]",
                    "and {rest}, {slot}",
                    "mov {word}, qword ptr fs:[{cache} + {WORD}]",
                    "mov qword ptr fs:[{cache} + {BITS}], {rest}",
                    "xor {rest}, {slot}",
                    "rep bsf {slot}, {slot}",
                    "xor qword ptr [{word}], {rest}",
                    "imul {slot}, qword ptr fs:[{cache} + {SIZE}]",
                    "add {slot}, qword ptr fs:[{cache} + {BASE}]",
                    cache = in(reg) cache,
                    slot = inout(reg) bits => slot,
                    rest = out(reg) _,
                    word = out(reg) _,
                    BITS = const CACHE_BITS,
                    WORD = const CACHE_WORD,
                    SIZE = const CACHE_SIZE,
                    BASE = const CACHE_BASE,
                    options(nostack)
                );
            }
            Some(slot)
        }
    }

    /// The address of the calling thread's block.
    #[inline(always)]
    pub fn address() -> *mut u8 {
        Block::mine().address()
    }

    /// Caches the free slots of the next word of the active slab that has any, and takes the first: its address. Or one of
    /// [`REFILL_ELSEWHERE`] and its like, and nothing was cached. The cache lies `offset` bytes into `block`, and is empty
    /// then. `table` is that of headers. Seventy-two instructions, if the very next word has free slots.
    ///
    /// The compiler keeps in registers what is needed after the loop only, and saves five or six for that. Here it is read
    /// once more.
    ///
    /// # Safety
    /// `block` is the block of a thread that has `heap`, and no other thread uses either. A slot cache lies at `offset`.
    /// `R` says what lies where. What is the active slab of a class has a header in the table and is owned by the heap.
    #[inline(always)]
    pub unsafe fn refill<R: Refill>(
        block: *mut u8,
        offset: usize,
        heap: *mut u8,
        table: *mut u8,
    ) -> *mut u8 {
        let slot;
        // SAFETY: the caller vouches for what lies where. The cursor of a class with an active slab is one of its words,
        // and the loop goes no further than to its last one. The class of header pairs is left out.
        unsafe {
            asm!(
                // Whether the processor counts bits. By the global offset table: a program may have the crate in a
                // shared library of its own, where nobody knows the distance.
                "mov {word}, qword ptr [rip + {counts}@GOTPCREL]",
                "cmp byte ptr [{word}], {HAS_ONE}",
                "jne 6f",
                // The class.
                "test {offset}, {offset}",
                "je 6f",
                "test byte ptr [{a} + {TICKS}], 15",
                "je 6f",
                "lea {word}, [{offset} + 4*{offset}]",
                "shr {word}, 2",
                "mov {b:e}, dword ptr [{a} + {word} + {ACTIVE}]",
                "cmp {b:e}, 2",
                "jb 6f",
                "shl {b}, {SHIFT}",
                "add {slab}, {b}",
                "mov qword ptr [{block} + {offset} + {BITS}], 0",
                "movzx {word:e}, byte ptr [{a} + {word} + {CURSOR}]",
                // The mask of the last word in a, its number in b, the cursor in rcx.
                "movzx {b:e}, word ptr [{slab} + {HEADER_SLOTS}]",
                "mov ecx, {b:e}",
                "neg ecx",
                "mov {a}, -1",
                "shr {a}, cl",
                "dec {b:e}",
                "shr {b:e}, 6",
                "mov ecx, {word:e}",
                // The next word, or word 0 after the last.
                "2:",
                "cmp {word}, {b}",
                "sbb {bits}, {bits}",
                "inc {word}",
                "and {word}, {bits}",
                "cmp {word}, {b}",
                "sbb {bits}, {bits}",
                "or {bits}, {a}",
                "and {bits}, qword ptr [{slab} + 8*{word} + {FREE}]",
                "jnz 3f",
                "cmp {word}, rcx",
                "jne 2b",
                "mov {a:e}, {USED_UP}",
                "jmp 7f",
                // The profile's next sample is among them.
                "4:",
                "sub qword ptr [rcx + {BYTES}], {a}",
                "popcnt {a}, {bits}",
                "sub dword ptr [rcx + {SLOTS}], {a:e}",
                "jmp 6f",
                "5:",
                "mov {a:e}, {ROUND_OVER}",
                "jmp 7f",
                "6:",
                "xor {a:e}, {a:e}",
                "jmp 7f",
                "3:",
                // All bits where the word does not lie after the cursor. One branch, not two: whether a round is over
                // cannot be predicted.
                "xor {a:e}, {a:e}",
                "cmp rcx, {word}",
                "adc {a}, -1",
                "mov rcx, qword ptr [{block} + {HEAP}]",
                "lea {b}, [{offset} + 4*{offset}]",
                "shr {b}, 2",
                "test dword ptr [rcx + {b} + {WAITING}], {a:e}",
                "jnz 5b",
                // Slots that were freed twice, and slabs that are not plain.
                "test qword ptr [{slab} + 8*{word} + {REMOTE}], {bits}",
                "jnz 6b",
                "mov {a}, {NOTED}",
                "test qword ptr [{slab} + {NOTES}], {a}",
                "jnz 6b",
                // What is handed out.
                "popcnt {a}, {bits}",
                "mov {b:e}, dword ptr [{slab} + {HEADER_SIZE}]",
                "add dword ptr [rcx + {SLOTS}], {a:e}",
                "imul {a}, {b}",
                "add qword ptr [rcx + {BYTES}], {a}",
                "js 4b",
                "inc dword ptr [rcx + {TICKS}]",
                "lea {a}, [{offset} + 4*{offset}]",
                "shr {a}, 2",
                "mov byte ptr [rcx + {a} + {CURSOR}], {word:l}",
                // The first slot is taken, and the others are cached. A handler in between finds an empty cache, or a
                // whole one.
                "mov {a}, {bits}",
                "neg {a}",
                "and {a}, {bits}",
                "xor {bits}, {a}",
                "lea rcx, [{slab} + 8*{word} + {FREE}]",
                "xor qword ptr [rcx], {a}",
                "mov qword ptr [{block} + {offset} + {WORD}], rcx",
                "imul {word}, {b}",
                "shl {word}, 6",
                "add {word}, qword ptr [{slab} + {FIRST}]",
                "mov qword ptr [{block} + {offset} + {BASE}], {word}",
                "mov qword ptr [{block} + {offset} + {SIZE}], {b}",
                "mov qword ptr [{block} + {offset} + {BITS}], {bits}",
                "rep bsf {a}, {a}",
                "imul {a}, {b}",
                "add {a}, {word}",
                "7:",
                block = in(reg) block,
                offset = in(reg) offset,
                a = inout(reg) heap => slot,
                slab = inout(reg) table => _,
                b = out(reg) _,
                word = out(reg) _,
                bits = out(reg) _,
                out("rcx") _,
                counts = sym COUNTS,
                HAS_ONE = const HAS_ONE,
                SHIFT = const HEADER_SHIFT,
                HEADER_SLOTS = const HEADER_SLOTS,
                HEADER_SIZE = const HEADER_SIZE,
                FIRST = const HEADER_BASE,
                FREE = const HEADER_FREE,
                REMOTE = const HEADER_FREE + REMOTE_AFTER_FREE,
                NOTES = const HEADER_NOTES,
                BITS = const CACHE_BITS,
                WORD = const CACHE_WORD,
                BASE = const CACHE_BASE,
                SIZE = const CACHE_SIZE,
                HEAP = const R::HEAP,
                TICKS = const R::TICKS,
                SLOTS = const R::SLOTS,
                BYTES = const R::BYTES,
                ACTIVE = const R::ACTIVE,
                CURSOR = const R::CURSOR,
                WAITING = const R::WAITING,
                NOTED = const R::NOTED,
                USED_UP = const REFILL_USED_UP,
                ROUND_OVER = const REFILL_ROUND_OVER,
                options(nostack)
            );
        }
        slot
    }

    /// Marks the slot `offset` bytes into the slab of `header` as free and counts its `frees_left` down. Three of these
    /// instructions detect every misuse: the comparison with the reciprocal and two branches. The rest of the product
    /// with the reciprocal shows what is not the start of a slot. The carry of the bit test shows what is free already.
    macro_rules! mark_free {
        ($($before:literal,)*; $($operands:tt)*) => {
            asm!(
                $($before,)*
                "mov {recip:e}, dword ptr [{header} + {RECIP}]",
                "imul {at}, {recip}",
                "cmp {recip:e}, {at:e}",
                "jbe {misuse}",
                "mov {word}, {at}",
                "shr {word}, 38",
                "shr {at}, 32",
                "mov {bits}, qword ptr [{header} + 8*{word} + {FREE}]",
                "bts {bits}, {at}",
                "jc {misuse}",
                "mov qword ptr [{header} + 8*{word} + {FREE}], {bits}",
                "dec dword ptr [{header} + {CREDIT}]",
                "jz {event}",
                $($operands)*
                recip = out(reg) _,
                bits = out(reg) _,
                misuse = label { return Freed::Misuse },
                event = label { return Freed::Event },
                RECIP = const HEADER_RECIP,
                CREDIT = const HEADER_FREES_LEFT,
                FREE = const HEADER_FREE,
                options(nostack)
            )
        };
    }

    /// Marks the slot `offset` bytes into the slab of `header` as free and counts its `frees_left` down.
    ///
    /// # Safety
    /// `header` is a slab's, owned by the calling thread, and `offset` lies in its pages.
    #[inline(always)]
    pub unsafe fn mark_free(header: *mut u8, offset: usize) -> Freed {
        // SAFETY: slot numbers of offsets within a slab have their bit within its bitmap (tested for every class in
        // `class`). Only the owner stores to the bitmap and to `frees_left`.
        unsafe {
            mark_free!(;
                header = in(reg) header,
                at = inout(reg) offset => _,
                word = out(reg) _,
            );
        }
        Freed::Done
    }

    impl Block {
        /// Frees the block at `address` if it lies in a slab of the calling thread's. Twenty-seven
        /// instructions, five branches, none of them taken.
        ///
        /// # Safety
        /// `hot` is a `pages::Hot`, `ME` the offset of the owner word in the thread's block.
        #[inline(always)]
        pub unsafe fn free<const ME: usize>(self, hot: *const u8, address: usize) -> Freed {
            // SAFETY: the map is open as far as the pages that `hot` tells of, and its entries number headers that were
            // made (`pages`). A header whose owner word is the thread's own is a slab of its, in whose pages the
            // address lies: then as in `mark_free`.
            unsafe {
                mark_free!(
                    "mov {header}, {at}",
                    "sub {header}, qword ptr [{hot} + {BASE}]",
                    "shr {header}, {PAGE}",
                    "cmp {header}, qword ptr [{hot} + {PAGES}]",
                    "jae {far}",
                    "mov {word}, qword ptr [{hot} + {MAP}]",
                    "mov {header:e}, dword ptr [{word} + 4*{header}]",
                    "shl {header}, {SHIFT}",
                    "add {header}, qword ptr [{hot} + {SLABS}]",
                    "mov {word}, qword ptr fs:[{block} + {ME}]",
                    "cmp {word}, qword ptr [{header} + {OWNER}]",
                    "jne {elsewhere}",
                    "sub {at}, qword ptr [{header} + {FIRST}]",;
                    header = out(reg) _,
                    at = inout(reg) address => _,
                    word = out(reg) _,
                    hot = in(reg) hot,
                    block = in(reg) self.0,
                    far = label { return Freed::Far },
                    elsewhere = label { return Freed::Elsewhere },
                    BASE = const HOT_BASE,
                    PAGES = const HOT_PAGES,
                    MAP = const HOT_MAP,
                    SLABS = const HOT_SLABS,
                    PAGE = const PAGE_SHIFT,
                    SHIFT = const HEADER_SHIFT,
                    OWNER = const HEADER_OWNER,
                    FIRST = const HEADER_BASE,
                    ME = const ME,
                );
            }
            Freed::Done
        }
    }

    /// Asks for the cache line at `address`, which will be written to soon.
    #[inline(always)]
    pub fn prefetch(address: *const u8) {
        // SAFETY: a prefetch is a hint: it is valid for any address and changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    /// Asks for the cache line at `address` as one that no other processor has: it will be written to by an
    /// atomic operation. Processors without the instruction take it for none (Intel SDM 2B, PREFETCHW).
    #[inline(always)]
    pub fn prefetch_write(address: *const u8) {
        // SAFETY: a prefetch is a hint: it is valid for any address and changes no memory.
        unsafe {
            asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
    }

    /// `value`, hidden from the compiler. So it cannot put in its place what `value` was found to be equal to, for
    /// which the processor would have to wait. No instruction.
    #[inline(always)]
    pub fn unlinked(mut value: u64) -> u64 {
        // SAFETY: the assembly is a comment: it changes nothing.
        unsafe {
            asm!("/* {} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        }
        value
    }

    /// Flips `bits` in a word that only the calling thread stores to, while others may load it: one
    /// instruction in place of the three that a relaxed load and store become. Not a locked operation.
    ///
    /// # Safety
    /// `word` points to an aligned atomic that lives.
    #[inline(always)]
    pub unsafe fn xor_owned(word: *mut u64, bits: u64) {
        // SAFETY: the load and the store are each single-copy atomic (Intel SDM 3A, 9.1.1).
        unsafe {
            asm!(
                "xor qword ptr [{word}], {bits}",
                word = in(reg) word,
                bits = in(reg) bits,
                options(nostack)
            );
        }
    }

    /// Adds to a count of the calling thread's: whether its top bit is set then. Two instructions.
    ///
    /// # Safety
    /// `count` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn pass_owned(count: *mut u64, by: u64) -> bool {
        // SAFETY: the caller guarantees that the count is aligned and the calling thread's.
        unsafe {
            asm!(
                "add qword ptr [{count}], {by}",
                "js {passed}",
                count = in(reg) count,
                by = in(reg) by,
                passed = label { return true },
                options(nostack)
            );
        }
        false
    }

    /// Adds to a number of the calling thread's as [`add_owned`]: whether it is above zero then. Two instructions.
    ///
    /// # Safety
    /// As of [`add_owned`].
    #[inline(always)]
    pub unsafe fn fill_owned(number: *mut i32, by: i32) -> bool {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe {
            asm!(
                "add dword ptr [{number}], {by:e}",
                "jle {used_up}",
                number = in(reg) number,
                by = in(reg) by,
                used_up = label { return false },
                options(nostack)
            );
        }
        true
    }

    /// Adds one to a number of the calling thread's, which stays where it is full. Two instructions.
    ///
    /// # Safety
    /// `number` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn add_to_full(number: *mut u16) {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe {
            asm!(
                "add word ptr [{number}], 1",
                "sbb word ptr [{number}], 0",
                number = in(reg) number,
                options(nostack)
            );
        }
    }

    /// Adds to a number of the calling thread's: one instruction, so that no signal handler of the thread's
    /// changes it between a load and a store.
    ///
    /// # Safety
    /// `number` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn add_owned(number: *mut i32, by: i32) {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe {
            asm!(
                "add dword ptr [{number}], {by:e}",
                number = in(reg) number,
                by = in(reg) by,
                options(nostack)
            );
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
mod machine {
    pub use super::portable::{
        add_owned, add_to_full, count_all_ones, count_ones, fill_owned, learn, mark_free,
        pass_owned, prefetch, prefetch_write, refill, thread_pointer, unlinked, xor_owned, Block,
    };
    use core::arch::asm;

    /// The address of the calling thread's block: four instructions.
    #[inline(always)]
    pub fn address() -> *mut u8 {
        let block;
        // SAFETY: reads `tpidr_el0` and an entry of the global offset table (initial-exec relocations of the
        // AArch64 ELF ABI).
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
        }
        block
    }
}

// `--cfg slabside_portable` has this machine run what others run, for the tests (.ci/run).
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(miri, all(slabside_portable, target_arch = "x86_64")))
)))]
mod machine {
    extern crate std;
    pub use super::portable::{
        add_owned, add_to_full, count_all_ones, count_ones, fill_owned, learn, mark_free,
        pass_owned, prefetch, prefetch_write, refill, thread_pointer, unlinked, xor_owned, Block,
    };
    use super::BLOCK_BYTES;
    use core::cell::UnsafeCell;

    #[repr(C, align(64))]
    struct Bytes(UnsafeCell<[u8; BLOCK_BYTES]>);

    std::thread_local! {
        static BYTES: Bytes = const { Bytes(UnsafeCell::new([0; BLOCK_BYTES])) };
    }

    /// The address of the calling thread's block.
    #[inline(always)]
    pub fn address() -> *mut u8 {
        BYTES.with(|bytes| bytes.0.get().cast())
    }
}

/// Number of registers that a stack is unwound from.
pub const REGISTERS: usize = 8;
/// DWARF's numbers of them (System V ABI for AMD64, figure 3.36), in the order of [`registers()`].
pub const DWARF_NUMBERS: [usize; REGISTERS] = [16, 7, 6, 3, 12, 13, 14, 15];
/// Registers that an address may depend on, by these numbers: the general ones, and the place of a return.
pub const DWARF_COLUMNS: usize = 17;

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
mod registers {
    use core::arch::asm;

    /// Where the calling function is, its stack pointer, and the registers that it keeps for its callers: rip, rsp, rbp,
    /// rbx, r12 to r15.
    #[inline(always)]
    pub fn registers() -> [usize; super::REGISTERS] {
        let mut all = [0; super::REGISTERS];
        // SAFETY: stores registers to the array, and changes none but the one that is named.
        unsafe {
            asm!(
                "lea {here}, [rip]",
                "mov [{all}], {here}",
                "mov [{all} + 8], rsp",
                "mov [{all} + 16], rbp",
                "mov [{all} + 24], rbx",
                "mov [{all} + 32], r12",
                "mov [{all} + 40], r13",
                "mov [{all} + 48], r14",
                "mov [{all} + 56], r15",
                here = out(reg) _,
                all = in(reg) all.as_mut_ptr(),
                options(nostack, preserves_flags)
            );
        }
        all
    }

    /// Copies `bytes` bytes of the thread's stack from `from` on, which may be other functions' variables: in assembly,
    /// since no pointer of the language reaches them.
    ///
    /// # Safety
    /// Both ranges are mapped. That at `to` is the caller's.
    #[inline]
    pub unsafe fn copy_stack(from: usize, to: *mut u8, bytes: usize) {
        // SAFETY: the caller's. The direction flag is clear, as the calling convention has it.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") bytes => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(miri))))]
mod registers {
    /// They are not told.
    #[inline(always)]
    pub fn registers() -> [usize; super::REGISTERS] {
        [0; super::REGISTERS]
    }

    /// As no stack pointer is told, there is nothing to copy.
    ///
    /// # Safety
    /// Any values are sound.
    #[inline]
    pub unsafe fn copy_stack(_from: usize, _to: *mut u8, _bytes: usize) {}
}

/// The same in Rust.
pub mod portable {
    use super::*;
    use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

    /// The thread pointer, for readers outside. 0 means that it is not stated.
    #[inline(always)]
    pub fn thread_pointer() -> usize {
        0
    }

    /// A thread's block.
    #[derive(Clone, Copy)]
    pub struct Block(*mut u8);

    impl Block {
        /// The calling thread's block.
        #[inline(always)]
        pub fn mine() -> Block {
            Block(machine::address())
        }

        /// The block at `address`: of a thread that a test made, or one that threads share under a lock.
        ///
        /// # Safety
        /// It lies there, no other thread uses it meanwhile, and the copy is not used after it is gone.
        #[inline(always)]
        pub unsafe fn at(address: *mut u8) -> Block {
            Block(address)
        }

        /// The block's address.
        #[inline(always)]
        pub fn address(self) -> *mut u8 {
            self.0
        }

        /// Takes the lowest of the slots that the slot cache at `offset` has, if there is one: clears its
        /// bit there and in the bitmap word, and returns the slot's address.
        ///
        /// # Safety
        /// A slot cache lies at `offset`. If it has slots, its other words are those that they came
        /// with, and the calling thread alone stores to the bitmap word.
        #[inline(always)]
        pub unsafe fn take(self, offset: usize) -> Option<*mut u8> {
            // SAFETY: the caller guarantees a slot cache at `offset`, within the block.
            unsafe {
                let cache = self.0.add(offset);
                let bits = cache.add(CACHE_BITS).cast::<u64>().read();
                if bits == 0 {
                    return None;
                }
                let rest = bits & (bits - 1);
                cache.add(CACHE_BITS).cast::<u64>().write(rest);
                xor_owned(cache.add(CACHE_WORD).cast::<*mut u64>().read(), bits ^ rest);
                let size = cache.add(CACHE_SIZE).cast::<usize>().read();
                let base = cache.add(CACHE_BASE).cast::<*mut u8>().read();
                Some(base.wrapping_add(bits.trailing_zeros() as usize * size))
            }
        }

        /// Frees the block at `address` if it lies in a slab of the calling thread's.
        ///
        /// # Safety
        /// `hot` is a `pages::Hot`, `ME` the offset of the owner word in the thread's block.
        #[inline(always)]
        pub unsafe fn free<const ME: usize>(self, hot: *const u8, address: usize) -> Freed {
            // SAFETY: the caller guarantees a valid `hot`. Every entry of the page map that it leads to names
            // a slab header.
            unsafe {
                let hot_word =
                    |offset| AtomicU64::from_ptr(hot.add(offset).cast_mut().cast()).load(Relaxed);
                let page = address.wrapping_sub(hot_word(HOT_BASE) as usize) >> PAGE_SHIFT;
                if page >= hot_word(HOT_PAGES) as usize {
                    return Freed::Far;
                }
                let number = (hot_word(HOT_MAP) as *mut u32).add(page);
                let number = AtomicU32::from_ptr(number).load(Relaxed) as usize;
                let header = (hot_word(HOT_SLABS) as *mut u8).add(number << HEADER_SHIFT);
                let owner = AtomicU64::from_ptr(header.add(HEADER_OWNER).cast()).load(Relaxed);
                if owner != self.0.add(ME).cast::<u64>().read() {
                    return Freed::Elsewhere;
                }
                mark_free(
                    header,
                    address - header.add(HEADER_BASE).cast::<usize>().read(),
                )
            }
        }
    }

    /// Marks the slot `offset` bytes into the slab of `header` as free and counts its `frees_left` down.
    ///
    /// # Safety
    /// `header` is a slab's, owned by the calling thread, and `offset` lies in its pages.
    #[inline(always)]
    pub unsafe fn mark_free(header: *mut u8, offset: usize) -> Freed {
        // SAFETY: the caller guarantees a header of a slab that its thread owns, and an offset in that slab.
        unsafe {
            let recip = header.add(HEADER_RECIP).cast::<u32>().read();
            let product = offset as u64 * u64::from(recip);
            let slot = (product >> 32) as usize;
            let word = header.add(HEADER_FREE).cast::<u64>().add(slot / 64);
            let word = AtomicU64::from_ptr(word);
            let (bits, bit) = (word.load(Relaxed), 1 << (slot % 64));
            if product as u32 >= recip || bits & bit != 0 {
                return Freed::Misuse;
            }
            word.store(bits | bit, Relaxed);
            let frees_left = AtomicI32::from_ptr(header.add(HEADER_FREES_LEFT).cast());
            if frees_left.fetch_sub(1, Relaxed) == 1 {
                return Freed::Event;
            }
        }
        Freed::Done
    }

    /// Nothing to be learnt.
    #[inline(always)]
    pub fn learn() {}

    /// How many of `bits` are set.
    #[inline(always)]
    pub fn count_ones(bits: u64) -> u64 {
        u64::from(bits.count_ones())
    }

    /// Nothing: the compiler's own code does it.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    pub unsafe fn refill<R: Refill>(_: *mut u8, _: usize, _: *mut u8, _: *mut u8) -> *mut u8 {
        core::ptr::without_provenance_mut(REFILL_ELSEWHERE)
    }

    /// How many bits are set in all of `words`.
    #[inline(always)]
    pub fn count_all_ones(words: [u64; 4]) -> u64 {
        words.map(count_ones).iter().sum()
    }

    /// Asks for nothing.
    #[inline(always)]
    pub fn prefetch(_: *const u8) {}

    /// Asks for nothing.
    #[inline(always)]
    pub fn prefetch_write(_: *const u8) {}

    /// `value`.
    #[inline(always)]
    pub fn unlinked(value: u64) -> u64 {
        value
    }

    /// Adds to a count of the calling thread's: whether its top bit is set then.
    ///
    /// # Safety
    /// `count` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn pass_owned(count: *mut u64, by: u64) -> bool {
        // SAFETY: the caller guarantees that the count is aligned and the calling thread's.
        unsafe {
            let sum = count.read().wrapping_add(by);
            count.write(sum);
            sum >> 63 != 0
        }
    }

    /// Adds to a number of the calling thread's. Atomic, so that no signal handler of the thread's changes it
    /// between a load and a store.
    ///
    /// # Safety
    /// `number` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn add_owned(number: *mut i32, by: i32) {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe { AtomicI32::from_ptr(number) }.fetch_add(by, Relaxed);
    }

    /// Adds to a number of the calling thread's as [`add_owned`]: whether it is above zero then.
    ///
    /// # Safety
    /// As of [`add_owned`].
    #[inline(always)]
    pub unsafe fn fill_owned(number: *mut i32, by: i32) -> bool {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe { AtomicI32::from_ptr(number) }
            .fetch_add(by, Relaxed)
            .wrapping_add(by)
            > 0
    }

    /// Adds one to a number of the calling thread's, which stays where it is full.
    ///
    /// # Safety
    /// `number` is the calling thread's, and aligned.
    #[inline(always)]
    pub unsafe fn add_to_full(number: *mut u16) {
        // SAFETY: the caller guarantees that the number is aligned and the calling thread's.
        unsafe { number.write(number.read().saturating_add(1)) }
    }

    /// Flips `bits` in a word that only the calling thread stores to, while others may load it. Atomic, so that a
    /// free by a signal handler of the thread's is not lost between a load and a store.
    ///
    /// # Safety
    /// `word` points to an aligned atomic that lives.
    #[inline(always)]
    pub unsafe fn xor_owned(word: *mut u64, bits: u64) {
        // SAFETY: the caller guarantees that `word` points to an aligned atomic that lives.
        unsafe { AtomicU64::from_ptr(word) }.fetch_xor(bits, Relaxed);
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64", not(miri)))]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    /// Bytes of a header, and of the header pair that a slab of the smallest class has, in words.
    const HEADER: usize = (1 << HEADER_SHIFT) / 8;
    const HEADERS: usize = 4;
    const PAGES: usize = 16;
    /// Where the owner word of the block lies in these tests: after the slot caches.
    const ME: usize = 1056;
    const OWNER: u64 = 0x1234_5678;

    /// Before the processor was asked and after.
    #[test]
    fn bits_are_counted_alike_by_both_ways() {
        let mut random = Random(7);
        let words: Vec<u64> = (0..1000)
            .map(|_| random.word())
            .chain([0, u64::MAX])
            .collect();
        for _ in 0..2 {
            for &word in &words {
                assert_eq!(count_ones(word), u64::from(word.count_ones()));
            }
            for four in words
                .windows(4)
                .map(|four| [four[0], four[1], four[2], four[3]])
            {
                let bits = four.iter().map(|word: &u64| u64::from(word.count_ones()));
                assert_eq!(count_all_ones(four), bits.sum::<u64>());
            }
            learn();
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }

        fn word(&mut self) -> u64 {
            (0..3).fold(0, |word, _| word << 31 ^ self.below(1 << 31) as u64)
        }
    }

    /// Headers, a page map and what free reads first.
    struct Slabs {
        headers: Box<[[u64; HEADER]; HEADERS]>,
        map: Box<[u32; PAGES]>,
    }

    impl Slabs {
        fn hot(&mut self, base: usize) -> [usize; 4] {
            let (map, headers) = (self.map.as_mut_ptr(), self.headers.as_mut_ptr());
            [base, PAGES, map as usize, headers as usize]
        }
    }

    /// One slab of as many pages as 256 slots allow, owned by the thread or not, with random bits, and the page map of
    /// it from page `first` on.
    fn slabs(random: &mut Random, base: usize) -> (Slabs, usize, usize) {
        let sizes = [16, 24, 48, 100, 256, 1024, 2048, 5000, 8192];
        let span = random.below(4) == 0;
        let size = sizes[random.below(sizes.len())];
        let pages = (size * 256 / (1 << PAGE_SHIFT)).clamp(1, 8);
        let first = random.below(PAGES - pages);
        let mut header = [0u64; HEADER];
        header[HEADER_BASE / 8] = (base + (first << PAGE_SHIFT)) as u64;
        header[HEADER_OWNER / 8] = OWNER + u64::from(random.below(8) == 0);
        let recip = if span {
            1
        } else {
            (1u64 << 32).div_ceil(size as u64)
        };
        header[HEADER_RECIP / 8] = (size as u64) << 32 | recip;
        header[HEADER_FREES_LEFT / 8] = 1 + random.below(3) as u64;
        (0..4).for_each(|word| header[HEADER_FREE / 8 + word] = random.word());
        let mut headers = Box::new([[0; HEADER]; HEADERS]);
        headers[2] = header;
        let mut map = Box::new([0; PAGES]);
        map[first..first + pages].fill(2);
        (
            Slabs { headers, map },
            first,
            pages * ((1 << PAGE_SHIFT) / size).max(1),
        )
    }

    /// What frees say and do to the headers: of whole slots, of any address, and of addresses outside.
    #[test]
    fn both_frees_answer_alike_and_leave_the_same_header() {
        let (mut random, base) = (Random(7), 0x7000_0000);
        let mut seen = Vec::new();
        let mut block = [0u64; BLOCK_BYTES / 8];
        block[ME / 8] = OWNER;
        let mine = machine::Block::mine();
        // SAFETY: the calling thread's own block, of which nobody in this thread makes use.
        unsafe { mine.address().add(ME).cast::<u64>().write(OWNER) };
        for _ in 0..200_000 {
            let (mut one, first, slots) = slabs(&mut random, base);
            let (headers, map) = (one.headers.clone(), one.map.clone());
            let mut other = Slabs { headers, map };
            let size = (one.headers[2][HEADER_RECIP / 8] >> 32) as usize;
            let start = base + (first << PAGE_SHIFT);
            let address = match random.below(8) {
                0 => base + random.below((2 * PAGES) << PAGE_SHIFT),
                1 => base - random.below(9000),
                2 => start + random.below(slots * size),
                _ => start + random.below(slots) * size,
            };
            let (hot, twin) = (one.hot(base), other.hot(base));
            // SAFETY: what `hot` names was made above. The slab's bits cover all of its pages.
            let answers = unsafe {
                let twins = portable::Block::at(block.as_mut_ptr().cast());
                (
                    mine.free::<ME>(hot.as_ptr().cast(), address),
                    twins.free::<ME>(twin.as_ptr().cast(), address),
                )
            };
            assert_eq!(answers.0, answers.1, "{address:#x} of {size}");
            assert!(one.headers == other.headers, "{address:#x} of {size}");
            if !seen.contains(&answers.0) {
                seen.push(answers.0);
            }
        }
        // SAFETY: the block belongs to this test, and `ME` lies in it.
        unsafe { mine.address().add(ME).cast::<u64>().write(0) };
        assert_eq!(seen.len(), 5, "{seen:?}");
    }

    #[test]
    fn both_takes_give_the_same_slot_and_leave_the_same_bits() {
        let mut random = Random(11);
        let mine = machine::Block::mine();
        for round in 0..100_000 {
            let cache = random.below(33) * 32;
            let bits = [0, 1 << random.below(64), random.word(), u64::MAX][random.below(4)];
            let word = random.word() | bits;
            let (mut words, mut block) = ([word; 2], [0u64; BLOCK_BYTES / 8]);
            let (base, size) = (random.word() & 0xffff_ffff, random.below(8192) as u64);
            let twin: *mut u64 = block.as_mut_ptr();
            let addresses = [&raw mut words[0] as u64, &raw mut words[1] as u64];
            // SAFETY: the slot cache lies in both blocks, and each has a bitmap word of its own.
            let (slots, left) = unsafe {
                let places = [mine.address().add(cache).cast(), twin.byte_add(cache)];
                for (place, address) in places.into_iter().zip(addresses) {
                    place.cast::<[u64; 4]>().write([bits, address, base, size]);
                }
                let slots = [
                    mine.take(cache),
                    portable::Block::at(twin.cast()).take(cache),
                ];
                let left = places.map(|place: *mut u64| place.read());
                places[0].cast::<[u64; 4]>().write([0; 4]);
                (slots, left)
            };
            assert_eq!(slots[0], slots[1], "round {round}: {bits:#x}");
            assert_eq!(
                (left[0], words[0]),
                (left[1], words[1]),
                "round {round}: {bits:#x}"
            );
            assert_eq!(slots[0].is_some(), bits != 0);
        }
    }

    /// Where the heap of the next test has what.
    struct Places;

    const CLASS: usize = 64;

    impl Refill for Places {
        const HEAP: usize = ME + 8;
        const TICKS: usize = 0;
        const SLOTS: usize = 8;
        const BYTES: usize = 16;
        const ACTIVE: usize = CLASS + 8;
        const CURSOR: usize = CLASS + 38;
        const WAITING: usize = CLASS;
        const NOTED: u64 = 0xff00;
    }

    /// What a refill is to answer, and to leave in the heap, the cache and the header.
    #[derive(Debug, PartialEq)]
    struct Refilled {
        answer: usize,
        heap: [u64; 64],
        cache: [u64; 4],
        header: [u64; HEADER],
    }

    fn bytes_of(heap: &mut [u64; 64]) -> &mut [u8] {
        // SAFETY: the words are borrowed, and each of their bytes may have any value.
        unsafe { core::slice::from_raw_parts_mut(heap.as_mut_ptr().cast(), 512) }
    }

    /// As [`refill`] of class `class` from what `before` says. The header lies at `address`.
    fn expected(before: &Refilled, class: usize, address: usize) -> Refilled {
        let (mut heap, mut header, mut cache) = (before.heap, before.header, before.cache);
        let word_of = |heap: &mut [u64; 64], at: usize| {
            let bytes = &bytes_of(heap)[at..at + 4];
            u32::from_le_bytes(bytes.try_into().unwrap())
        };
        let active = word_of(&mut heap, Places::ACTIVE + class * Places::CLASS_BYTES);
        let waits = word_of(&mut heap, Places::WAITING + class * Places::CLASS_BYTES) != 0;
        let cursor_at = Places::CURSOR + class * Places::CLASS_BYTES;
        let cursor = usize::from(bytes_of(&mut heap)[cursor_at]);
        let answer = |answer, heap, cache, header| Refilled {
            answer,
            heap,
            cache,
            header,
        };
        if class == 0 || heap[0].is_multiple_of(16) || active < 2 {
            return answer(REFILL_ELSEWHERE, heap, cache, header);
        }
        cache[0] = 0;
        let slots = (header[HEADER_SLOTS / 8] >> 32) as u16 as usize;
        let size = header[HEADER_SIZE / 8] >> 32;
        let words = slots.div_ceil(64);
        let found = (1..=words)
            .map(|on| (cursor + on) % words)
            .find_map(|word| {
                let of_word = (slots - word * 64).min(64);
                let bits = header[HEADER_FREE / 8 + word] & (u64::MAX >> (64 - of_word));
                (bits != 0).then_some((word, bits))
            });
        let Some((word, bits)) = found else {
            return answer(REFILL_USED_UP, heap, cache, header);
        };
        if word <= cursor && waits {
            return answer(REFILL_ROUND_OVER, heap, cache, header);
        }
        let twice = header[(HEADER_FREE + REMOTE_AFTER_FREE) / 8 + word] & bits != 0;
        let bytes = u64::from(bits.count_ones()) * size;
        let passed = (heap[Places::BYTES / 8] + bytes) >> 63 != 0;
        if twice || header[HEADER_NOTES / 8] & Places::NOTED != 0 || passed {
            return answer(REFILL_ELSEWHERE, heap, cache, header);
        }
        heap[Places::TICKS / 8] += 1;
        heap[Places::SLOTS / 8] += u64::from(bits.count_ones());
        heap[Places::BYTES / 8] += bytes;
        bytes_of(&mut heap)[cursor_at] = word as u8;
        let (first, base) = (bits & bits.wrapping_neg(), header[HEADER_BASE / 8]);
        header[HEADER_FREE / 8 + word] ^= first;
        cache = [
            bits ^ first,
            (address + HEADER_FREE + 8 * word) as u64,
            base + word as u64 * 64 * size,
            size,
        ];
        let slot = cache[2] + u64::from(bits.trailing_zeros()) * size;
        answer(slot as usize, heap, cache, header)
    }

    #[test]
    fn a_refill_does_what_it_says() {
        learn();
        if !std::is_x86_feature_detected!("popcnt") {
            return;
        }
        let mut random = Random(13);
        let mut seen = [0; 4];
        for round in 0..100_000 {
            let slots = 1 + random.below(256);
            let words = slots.div_ceil(64);
            let (class, number) = (random.below(8), 2 + random.below(HEADERS - 2));
            let mut header = [0u64; HEADER];
            header[HEADER_BASE / 8] = random.word() & 0xffff_f000;
            header[HEADER_SIZE / 8] = (16 + random.below(1000) as u64) << 32 | 77;
            header[HEADER_SLOTS / 8] = (slots as u64) << 32 | 99;
            for word in 0..4 {
                header[HEADER_FREE / 8 + word] = random.word() & random.word() & random.word();
                if random.below(2) == 0 || round % 16 == 0 {
                    header[HEADER_FREE / 8 + word] = 0;
                }
                if random.below(16) == 0 {
                    header[(HEADER_FREE + REMOTE_AFTER_FREE) / 8 + word] = random.word();
                }
            }
            // Bits past the last slot read free.
            for slot in slots..256 {
                header[HEADER_FREE / 8 + slot / 64] |= 1 << (slot % 64);
            }
            header[HEADER_NOTES / 8] = if random.below(16) == 0 { 1 << 12 } else { 0x55 };
            let mut heap = [0u64; 64];
            heap[Places::TICKS / 8] = random.below(1000) as u64;
            let left = if random.below(16) == 0 { 99 } else { 1 << 40 };
            heap[Places::BYTES / 8] = (1 << 63) - left;
            let at = class * Places::CLASS_BYTES;
            let active = if random.below(16) == 0 {
                0
            } else {
                number as u32
            };
            let waits = random.below(2) as u32 * 5;
            bytes_of(&mut heap)[Places::ACTIVE + at..][..4].copy_from_slice(&active.to_le_bytes());
            bytes_of(&mut heap)[Places::WAITING + at..][..4].copy_from_slice(&waits.to_le_bytes());
            bytes_of(&mut heap)[Places::CURSOR + at] = random.below(words) as u8;
            let before = Refilled {
                answer: 0,
                heap,
                cache: [random.word(), 1, 2, 3],
                header,
            };
            let mut headers = Box::new([[0; HEADER]; HEADERS]);
            headers[number] = header;
            let mut block = Box::new([0u64; BLOCK_BYTES / 8]);
            block[class * 4..][..4].copy_from_slice(&before.cache);
            block[Places::HEAP / 8] = heap.as_mut_ptr() as u64;
            // SAFETY: the block, the heap and the headers were made above, as `Places` says.
            let answer = unsafe {
                machine::refill::<Places>(
                    block.as_mut_ptr().cast(),
                    class * 32,
                    heap.as_mut_ptr().cast(),
                    headers.as_mut_ptr().cast(),
                )
            };
            let after = Refilled {
                answer: answer.addr(),
                heap,
                cache: block[class * 4..][..4].try_into().unwrap(),
                header: headers[number],
            };
            let address = headers[number].as_ptr().addr();
            let expected = match cfg!(slabside_portable) {
                true => Refilled { ..before },
                false => expected(&before, class, address),
            };
            // Where more is to be done, the cache may be empty or not.
            let cache = match expected.answer > REFILL_ROUND_OVER {
                true => expected.cache,
                false => [after.cache[0], 1, 2, 3],
            };
            assert_eq!(after, Refilled { cache, ..expected }, "round {round}");
            seen[after.answer.min(3)] += 1;
        }
        let all = seen.iter().all(|&count| count > 1000);
        assert!(all || cfg!(slabside_portable), "{seen:?}");
    }
}

/// Defines `$name(size[, align])`, a form of operator new that throws. It calls `$take` with its arguments until that
/// gives a block. In between it calls what `$step` returns, which may throw.
///
/// An exception must not meet a frame of Rust's where panics abort. So this frame is assembly: it says
/// how it is unwound, and has nothing to clean up.
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
#[macro_export]
macro_rules! throwing_new {
    ($name:ident($arg:ident), $take:path, $step:path) => {
        #[doc = "See include/slabside.h, or C++ \\[new.delete\\]."]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name($arg: usize) -> *mut u8 {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "2:",
                "call {take}",
                "test rax, rax",
                "je 3f",
                ".cfi_remember_state",
                "add rsp, 8",
                ".cfi_adjust_cfa_offset -8",
                "ret",
                ".cfi_restore_state",
                "3:",
                "call {step}",
                "call rax",
                "mov rdi, qword ptr [rsp]",
                "jmp 2b",
                ".cfi_endproc",
                take = sym $take,
                step = sym $step,
            )
        }
    };
    ($name:ident($($arg:ident),+), $take:path, $step:path) => {
        #[doc = "See include/slabside.h, or C++ \\[new.delete\\]."]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name($($arg: usize),+) -> *mut u8 {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "2:",
                "call {take}",
                "test rax, rax",
                "je 3f",
                ".cfi_remember_state",
                "add rsp, 24",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_restore_state",
                "3:",
                "call {step}",
                "call rax",
                "mov rdi, qword ptr [rsp + 8]",
                "mov rsi, qword ptr [rsp + 16]",
                "jmp 2b",
                ".cfi_endproc",
                take = sym $take,
                step = sym $step,
            )
        }
    };
}

/// As for x86-64.
#[cfg(target_arch = "aarch64")]
#[doc(hidden)]
#[macro_export]
macro_rules! throwing_new {
    ($name:ident($($arg:ident),+), $take:path, $step:path) => {
        #[doc = "See include/slabside.h, or C++ \\[new.delete\\]."]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name($($arg: usize),+) -> *mut u8 {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, #-32]!",
                ".cfi_def_cfa_offset 32",
                ".cfi_offset w29, -32",
                ".cfi_offset w30, -24",
                "stp x0, x1, [sp, #16]",
                "2:",
                "bl {take}",
                "cbz x0, 3f",
                ".cfi_remember_state",
                "ldp x29, x30, [sp], #32",
                ".cfi_restore w30",
                ".cfi_restore w29",
                ".cfi_def_cfa_offset 0",
                "ret",
                ".cfi_restore_state",
                "3:",
                "bl {step}",
                "blr x0",
                "ldp x0, x1, [sp, #16]",
                "b 2b",
                ".cfi_endproc",
                take = sym $take,
                step = sym $step,
            )
        }
    };
}

/// As for x86-64, but that an exception ends the program: there is no assembly for this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[doc(hidden)]
#[macro_export]
macro_rules! throwing_new {
    ($name:ident($($arg:ident),+), $take:path, $step:path) => {
        #[doc = "See include/slabside.h, or C++ \\[new.delete\\]."]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: usize),+) -> *mut u8 {
            loop {
                let block = $take($($arg),+);
                if !block.is_null() {
                    return block;
                }
                // SAFETY: what `step` returns is there to be called.
                unsafe { $step()() };
            }
        }
    };
}

/// Defines `$name(arguments)`, which goes on to what `$to` stands for in the process: ours, or the program's.
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
#[macro_export]
macro_rules! jump_to {
    ($name:ident, $to:ident, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        #[doc = "See the manual, or C++ \\[new.delete\\]."]
        ///
        /// # Safety
        /// As the function that it names.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) $(-> $result)? {
            core::arch::naked_asm!(
                ".cfi_startproc",
                concat!("jmp qword ptr [rip + ", stringify!($to), "@GOTPCREL]"),
                ".cfi_endproc",
            )
        }
    };
}

/// As for x86-64.
#[cfg(target_arch = "aarch64")]
#[doc(hidden)]
#[macro_export]
macro_rules! jump_to {
    ($name:ident, $to:ident, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        #[doc = "See the manual, or C++ \\[new.delete\\]."]
        ///
        /// # Safety
        /// As the function that it names.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($argument: $type),*) $(-> $result)? {
            core::arch::naked_asm!(
                ".cfi_startproc",
                concat!("adrp x16, :got:", stringify!($to)),
                concat!("ldr x16, [x16, :got_lo12:", stringify!($to), "]"),
                "br x16",
                ".cfi_endproc",
            )
        }
    };
}

/// As for x86-64, by a call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[doc(hidden)]
#[macro_export]
macro_rules! jump_to {
    ($name:ident, $to:ident, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        #[doc = "See the manual, or C++ \\[new.delete\\]."]
        ///
        /// # Safety
        /// As the function that it names.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the caller guarantees what the function of this name demands.
            unsafe { $to($($argument),*) }
        }
    };
}

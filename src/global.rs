//! Rust's trait `GlobalAlloc`, and the functions by which a Rust program gives memory back and sets options.

use core::alloc::{GlobalAlloc, Layout};
use slabside_base::units::MIN_ALIGN;
use slabside_core::api::{self, OptionError};
use slabside_core::process::GLOBAL;
use slabside_core::tls::{current, local};

/// slabside as Rust's allocator:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: slabside::Slabside = slabside::Slabside;
/// # fn main() { assert_eq!(vec![1, 2, 3].len(), 3); }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Slabside;

// SAFETY: blocks are as large and aligned as asked (see `Allocator::malloc` and `aligned`), stay where
// they are until freed, and nothing here unwinds.
unsafe impl GlobalAlloc for Slabside {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return GLOBAL.malloc(current(), layout.size().max(layout.align()));
        }
        GLOBAL.aligned(local(), layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        GLOBAL.free(current(), block);
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return GLOBAL.calloc(current(), 1, layout.size().max(layout.align()));
        }
        GLOBAL.aligned_zeroed(local(), layout.size(), layout.align())
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return GLOBAL.realloc(local(), block, size.max(layout.align()));
        }
        GLOBAL.realloc_aligned(local(), block, size, layout.align())
    }
}

/// Gives back to the system all that is kept for reuse and can be reached from this thread. Returns whether memory went
/// back.
pub fn trim() -> bool {
    api::glibc::malloc_trim(0) != 0
}

/// Sets the option `name` to `value`, as the environment variable `SLABSIDE_OPTIONS` would, which still has the last
/// word. docs/tuning.md lists them.
///
/// # Errors
/// Nothing is set where there is no such option or value, or where memory was allocated already. A Rust program
/// allocates before `main`, so there it can only change the rate of `guard-sample`: [`options!`](crate::options!)
/// sets the others.
pub fn set_option(name: &str, value: &str) -> Result<(), OptionError> {
    api::c::set_option(name.as_bytes(), value.as_bytes())
}

/// Options that a program brings with it, as a constant: `name:value,name:value`, as in the environment variable
/// `SLABSIDE_OPTIONS`, which has the last word. Once in a program:
///
/// ```
/// slabside::options!("decay:1s,guard-sample:5000");
/// # #[global_allocator]
/// # static ALLOCATOR: slabside::Slabside = slabside::Slabside;
/// # fn main() { assert_eq!(vec![1, 2, 3].len(), 3); }
/// ```
///
/// It defines the variable `slabside_options`, which a C program defines by itself.
#[macro_export]
macro_rules! options {
    ($text:literal) => {
        const _: () = {
            mod options {
                const TEXT: &[u8] = concat!($text, "\0").as_bytes();
                static BYTES: [u8; TEXT.len()] = match TEXT.first_chunk() {
                    Some(bytes) => *bytes,
                    None => unreachable!(),
                };
                // Weak, as where it is read: link-time optimization makes one piece of both, which must not say two things.
                ::core::arch::global_asm!(
                    ".pushsection .data.rel.ro.slabside_options,\"aw\"",
                    ".balign 8",
                    ".weak slabside_options",
                    "slabside_options: .8byte {text}",
                    ".popsection",
                    text = sym BYTES,
                );
            }
        };
    };
}

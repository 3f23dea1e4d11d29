//! Rust's traits: `GlobalAlloc`, and the `Allocator` of the crate allocator-api2 with the feature of that name. Beside
//! them the functions by which a Rust program asks about its heap and sets options.

use super::c::{self, OptionError};
use super::glibc;
use crate::process::GLOBAL;
use crate::tls::{current, local};
use crate::units::MIN_ALIGN;
use core::alloc::{GlobalAlloc, Layout};

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
    glibc::malloc_trim(0) != 0
}

/// Sets the option `name` to `value`, as the environment variable `SLABSIDE_OPTIONS` would, which still has the last
/// word. docs/tuning.md lists them.
///
/// # Errors
/// Nothing is set where there is no such option or value, or where memory was allocated already. A Rust program
/// allocates before `main`, so there it can only change the rate of `guard-sample`: [`options!`](crate::options!)
/// sets the others.
pub fn set_option(name: &str, value: &str) -> Result<(), OptionError> {
    c::set_option(name.as_bytes(), value.as_bytes())
}

impl core::fmt::Display for OptionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            OptionError::NoSuchOption => "there is no such option",
            OptionError::NoSuchValue => "the option takes no such value",
            OptionError::TooLate => "memory was allocated already",
        })
    }
}

impl core::error::Error for OptionError {}

/// The text after [`options!`](crate::options!).
#[doc(hidden)]
#[repr(transparent)]
pub struct OptionsText(pub *const core::ffi::c_char);

// SAFETY: points to a literal, which nobody writes.
unsafe impl Sync for OptionsText {}

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
            #[no_mangle]
            #[allow(non_upper_case_globals)]
            pub static slabside_options: $crate::api::rust::OptionsText =
                $crate::api::rust::OptionsText(concat!($text, "\0").as_ptr().cast());
        };
    };
}

#[cfg(feature = "allocator-api2")]
mod api2 {
    use super::super::heaps::Arena;
    use super::Slabside;
    use allocator_api2::alloc::{AllocError, Allocator, GlobalAlloc, Layout};
    use core::ptr::{self, NonNull};

    /// An empty slice where nothing is needed, or the block as a slice of as many bytes as were asked for.
    fn sized(block: Option<NonNull<u8>>, size: usize) -> Result<NonNull<[u8]>, AllocError> {
        let block = block.ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, size))
    }

    fn dangling(layout: Layout) -> Option<NonNull<u8>> {
        NonNull::new(ptr::without_provenance_mut(layout.align()))
    }

    /// Bytes `from..to` become zero.
    ///
    /// # Safety
    /// The block has `to` bytes.
    unsafe fn clear(block: NonNull<[u8]>, from: usize, to: usize) {
        // SAFETY: the caller guarantees that the block has `to` bytes, and `from` is no larger.
        unsafe { ptr::write_bytes(block.cast::<u8>().as_ptr().add(from), 0, to - from) }
    }

    /// Where blocks come from. `Allocator` follows from it.
    trait Source {
        fn block(&self, layout: Layout) -> Option<NonNull<u8>>;
        fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>>;
        /// # Safety
        /// `block` is a live block of this source at a multiple of `layout`'s alignment.
        unsafe fn resized(
            &self,
            block: NonNull<u8>,
            layout: Layout,
            size: usize,
        ) -> Option<NonNull<u8>>;
    }

    impl Source for Slabside {
        fn block(&self, layout: Layout) -> Option<NonNull<u8>> {
            // SAFETY: layouts of no bytes do not come here.
            NonNull::new(unsafe { self.alloc(layout) })
        }

        fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
            // SAFETY: the caller guarantees a layout of more than no bytes.
            NonNull::new(unsafe { self.alloc_zeroed(layout) })
        }

        unsafe fn resized(
            &self,
            block: NonNull<u8>,
            layout: Layout,
            size: usize,
        ) -> Option<NonNull<u8>> {
            // SAFETY: the caller guarantees that the block is live and has this layout.
            NonNull::new(unsafe { self.realloc(block.as_ptr(), layout, size) })
        }
    }

    impl Source for Arena {
        fn block(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.alloc_layout(layout)
        }

        fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.alloc_layout_zeroed(layout)
        }

        unsafe fn resized(
            &self,
            block: NonNull<u8>,
            layout: Layout,
            size: usize,
        ) -> Option<NonNull<u8>> {
            // SAFETY: the caller guarantees that the block is live and has this layout.
            unsafe { self.realloc(block, layout.align(), size) }
        }
    }

    /// Resizes a block of `old` to `new`, whose alignment may differ.
    ///
    /// # Safety
    /// `block` is a live block of `source`'s with layout `old`.
    unsafe fn resize<S: Source>(
        source: &S,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return allocate(new, |layout| source.block(layout));
        }
        if new.size() == 0 {
            release(block, old);
            return sized(dangling(new), 0);
        }
        // SAFETY: the caller keeps this function's contract. With a larger alignment the block is moved to a multiple
        // of it.
        sized(
            unsafe { source.resized(block, new, new.size()) },
            new.size(),
        )
    }

    /// Nothing where nothing is needed, or what `block` gives.
    fn allocate(
        layout: Layout,
        block: impl FnOnce(Layout) -> Option<NonNull<u8>>,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let block = match layout.size() {
            0 => dangling(layout),
            _ => block(layout),
        };
        sized(block, layout.size())
    }

    fn release(block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the callers', who own the block. Whatever heap it is of takes it back.
            unsafe { Slabside.dealloc(block.as_ptr(), layout) };
        }
    }

    /// A function of `Allocator` that resizes. There are two, and both are [`resize`].
    macro_rules! resizing {
        ($name:ident) => {
            unsafe fn $name(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller guarantees that the block is live and has the layout `old`.
                unsafe { resize(self, block, old, new) }
            }
        };
    }

    macro_rules! allocator {
        ($of:ty) => {
            // SAFETY: blocks stay until they are given back or the allocator is dropped. Clones (of `Slabside`) are all
            // the same. Contents are kept as realloc keeps them.
            unsafe impl Allocator for $of {
                resizing!(grow);
                resizing!(shrink);

                fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                    allocate(layout, |layout| self.block(layout))
                }

                fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                    allocate(layout, |layout| self.zeroed(layout))
                }

                unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                    release(block, layout);
                }

                unsafe fn grow_zeroed(
                    &self,
                    block: NonNull<u8>,
                    old: Layout,
                    new: Layout,
                ) -> Result<NonNull<[u8]>, AllocError> {
                    // SAFETY: the caller guarantees a live block of the old layout, and the new block has
                    // `new.size()` bytes.
                    unsafe {
                        let block = self.grow(block, old, new)?;
                        clear(block, old.size(), new.size());
                        Ok(block)
                    }
                }
            }
        };
    }

    allocator!(Slabside);
    allocator!(Arena);
}

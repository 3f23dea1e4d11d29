//! First-class heaps, by a type whose lifetime its blocks borrow.

use core::alloc::Layout;
use core::ptr::NonNull;
use slabside_core::arena::Handle;
use slabside_core::process::GLOBAL;
use slabside_core::tls::local;

/// A first-class heap: what is allocated from it borrows it, and goes all at once when it is dropped.
///
/// Any thread may allocate from it. Each operation takes the heap's own lock. Giving a block back does not. Values are
/// not dropped with it, as with other arenas. A collection that lives in it (feature `allocator-api2`) drops its
/// elements as usual.
///
/// ```
/// # fn main() -> Option<()> {
/// let arena = slabside::Arena::new()?;
/// let numbers = arena.alloc_slice_copy(&[1, 2, 3]).ok()?;
/// let name = arena.alloc_str("slab").ok()?;
/// numbers[0] = name.len();
/// assert_eq!(numbers, [4, 2, 3]);
/// # Some(()) }
/// # main().unwrap();
/// ```
///
/// Nothing outlives it:
///
/// ```compile_fail,E0505
/// let arena = slabside::Arena::new().unwrap();
/// let number = arena.alloc(7).unwrap();
/// drop(arena); // error[E0505]: cannot move out of `arena` because it is borrowed
/// *number += 1;
/// ```
///
/// ```compile_fail,E0597
/// let number = {
///     let arena = slabside::Arena::new().unwrap();
///     arena.alloc(7).unwrap()
/// }; // error[E0597]: `arena` does not live long enough
/// *number += 1;
/// ```
#[derive(Debug)]
pub struct Arena {
    handle: Handle,
}

/// There was no memory. What was to be stored comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> core::fmt::Debug for Full<T> {
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        to.write_str("Full")
    }
}

impl Arena {
    /// A new heap. `None` where memory has run out or there are too many (32,767 on most machines).
    pub fn new() -> Option<Arena> {
        GLOBAL.create_arena(local()).map(|handle| Arena { handle })
    }

    /// Moves `value` into the heap. It is not dropped with it.
    #[allow(clippy::mut_from_ref)] // Each call gives a block of its own.
    pub fn alloc<T>(&self, value: T) -> Result<&mut T, Full<T>> {
        match self.alloc_layout(Layout::new::<T>()) {
            // SAFETY: a fresh block of T's layout, which lives as long as the heap that `self` borrows.
            Some(block) => unsafe {
                let place = block.cast::<T>();
                place.write(value);
                Ok(&mut *place.as_ptr())
            },
            None => Err(Full(value)),
        }
    }

    /// Copies `values` into the heap.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_slice_copy<T: Copy>(&self, values: &[T]) -> Result<&mut [T], Full<()>> {
        let block = self.alloc_layout(Layout::for_value(values));
        let place = block.ok_or(Full(()))?.cast::<T>().as_ptr();
        // SAFETY: a fresh block of the slice's layout, which lives as long as the heap.
        unsafe {
            core::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len());
            Ok(core::slice::from_raw_parts_mut(place, values.len()))
        }
    }

    /// Copies `text` into the heap.
    #[allow(clippy::mut_from_ref)]
    pub fn alloc_str(&self, text: &str) -> Result<&mut str, Full<()>> {
        let bytes = self.alloc_slice_copy(text.as_bytes())?;
        // SAFETY: the bytes are a copy of a string's, so they are UTF-8.
        Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
    }

    /// A block of `layout`, which lives until the heap is dropped or `Slabside` gives it back.
    pub fn alloc_layout(&self, layout: Layout) -> Option<NonNull<u8>> {
        let (size, align) = (layout.size(), layout.align());
        NonNull::new(GLOBAL.aligned_in(local(), self.handle, size, align))
    }

    /// As [`Arena::alloc_layout`], all zero.
    pub fn alloc_layout_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        let (size, align) = (layout.size(), layout.align());
        NonNull::new(GLOBAL.zeroed_in(local(), self.handle, size, align))
    }

    /// Resizes a block of this heap, at the same address where it has room.
    ///
    /// # Safety
    /// `block` is a live block, and nobody uses the old address afterwards.
    pub unsafe fn realloc(
        &self,
        block: NonNull<u8>,
        align: usize,
        size: usize,
    ) -> Option<NonNull<u8>> {
        let moved = GLOBAL.realloc_in(local(), self.handle, block.as_ptr(), size, align);
        NonNull::new(moved)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        GLOBAL.destroy_arena(local(), self.handle);
    }
}

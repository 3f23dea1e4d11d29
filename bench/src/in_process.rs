//! The peers as Rust crates, for the criterion files that run them all in one process.
//!
//! Each is reached by its own C functions for blocks that need no special alignment, its shortest way in:
//! the crates' `GlobalAlloc` wrappers send every request through the aligned functions of some of them.

use std::alloc::GlobalAlloc;
#[allow(unused_imports)]
use std::alloc::Layout;

/// Runs a piece of code once on each allocator in this process.
pub trait Visitor {
    /// Called with the allocator's name and the allocator.
    fn visit<A: GlobalAlloc + Sync>(&mut self, name: &str, allocator: &A);
}

/// Declares a `GlobalAlloc` over the four C functions of a peer.
#[allow(unused_macros)]
macro_rules! peer {
    ($name:ident, $malloc:path, $free:path, $calloc:expr, $realloc:path) => {
        struct $name;
        // SAFETY: the functions keep the contract of C's for alignments up to 16. The workloads ask for 8.
        unsafe impl GlobalAlloc for $name {
            #[inline]
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                // SAFETY: malloc may be called with any size.
                unsafe { $malloc(layout.size()).cast() }
            }
            #[inline]
            unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
                // SAFETY: the caller owns the block, which came from this allocator.
                unsafe { $free(block.cast()) }
            }
            #[inline]
            unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
                // SAFETY: calloc may be called with any size.
                unsafe { $calloc(1, layout.size()).cast() }
            }
            #[inline]
            unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
                // SAFETY: the caller owns the block, which came from this allocator.
                unsafe { $realloc(block.cast(), size).cast() }
            }
        }
    };
}

#[cfg(feature = "mimalloc")]
mod mimalloc {
    use super::*;
    extern "C" {
        fn mi_calloc(count: usize, size: usize) -> *mut libc::c_void;
    }
    use libmimalloc_sys::{mi_free, mi_malloc, mi_realloc};
    peer!(Peer, mi_malloc, mi_free, mi_calloc, mi_realloc);
    const NAME: &str = if cfg!(feature = "mimalloc2") {
        "mimalloc2"
    } else {
        "mimalloc3"
    };

    pub fn visit(visitor: &mut impl Visitor) {
        visitor.visit(NAME, &Peer);
    }
}

#[cfg(feature = "jemalloc")]
mod jemalloc {
    use super::*;
    use tikv_jemalloc_sys::{calloc, free, malloc, realloc};
    peer!(Peer, malloc, free, calloc, realloc);

    pub fn visit(visitor: &mut impl Visitor) {
        visitor.visit("jemalloc", &Peer);
    }
}

#[cfg(feature = "snmalloc")]
mod snmalloc {
    use super::*;
    extern "C" {
        fn sn_calloc(count: usize, size: usize) -> *mut libc::c_void;
    }
    use snmalloc_sys::{sn_free, sn_malloc, sn_realloc};
    peer!(Peer, sn_malloc, sn_free, sn_calloc, sn_realloc);

    pub fn visit(visitor: &mut impl Visitor) {
        visitor.visit("snmalloc", &Peer);
    }
}

#[cfg(feature = "rpmalloc")]
mod rpmalloc {
    use super::*;
    use rpmalloc_sys::{rpcalloc, rpfree, rpmalloc, rprealloc};
    peer!(Peer, rpmalloc, rpfree, rpcalloc, rprealloc);

    pub fn visit(visitor: &mut impl Visitor) {
        // SAFETY: rpmalloc_initialize has no precondition, and rpmalloc ignores every call after the first.
        unsafe { rpmalloc_sys::rpmalloc_initialize() };
        visitor.visit("rpmalloc", &Peer);
    }
}

/// Shows `visitor` each allocator that was built in, slabside first.
///
/// Only for workloads of one thread: rpmalloc is told about this thread alone.
pub fn each(visitor: &mut impl Visitor) {
    #[cfg(feature = "slabside")]
    visitor.visit("slabside", &slabside::Slabside);
    visitor.visit("system", &std::alloc::System);
    #[cfg(feature = "mimalloc")]
    mimalloc::visit(visitor);
    #[cfg(feature = "jemalloc")]
    jemalloc::visit(visitor);
    #[cfg(feature = "snmalloc")]
    snmalloc::visit(visitor);
    #[cfg(feature = "rpmalloc")]
    rpmalloc::visit(visitor);
}

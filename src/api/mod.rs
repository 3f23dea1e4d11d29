//! The interface: C's, glibc's and C++'s functions over the process's allocator, first-class heaps, and
//! Rust's traits.
//!
//! `table` lists every function that C and C++ programs see, once. The thin crates `capi` (slabside_malloc ...) and
//! `preload` (malloc ...) export it under their names. The allocator's slow paths set errno to ENOMEM.

pub mod forms;
pub mod c;
pub mod glibc;
pub mod cpp;
pub mod heaps;
pub mod rust;
pub mod table;

pub use c::{prepare, profile, stats, usable_size, validate, OptionError, SoleMalloc};
pub use heaps::Arena;
pub use rust::{set_option, trim, Slabside};

/// With the feature `override` every C library of the program allocates from slabside too.
#[cfg(feature = "override")]
mod replacement {
    use super::table::types::*;

    crate::replace_malloc!();
}

//! The interface: C's, glibc's and C++'s functions over the process's allocator, and first-class heaps. The crate
//! `slabside` has what Rust programs see.
//!
//! `table` lists every function that C and C++ programs see, once. The thin crates `capi` (slabside_malloc ...) and
//! `preload` (malloc ...) export it under their names. The allocator's slow paths set errno to ENOMEM.

pub mod forms;
pub mod c;
pub mod glibc;
pub mod cpp;
pub mod heaps;
pub mod table;

pub use c::{prepare, profile, stats, usable_size, validate, OptionError, SoleMalloc};

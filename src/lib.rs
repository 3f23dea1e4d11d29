//! slabside: a memory allocator whose bookkeeping lies entirely apart from user memory.
//!
//! The crate serves three ways: as Rust's global allocator ([`Slabside`]), as the C library
//! `libslabside.a` (crate `capi`), and as the system's malloc by LD_PRELOAD (crate `preload`).
//!
//! ```
//! slabside::options!("decay:1s"); // not needed: docs/tuning.md lists the options
//!
//! #[global_allocator]
//! static ALLOCATOR: slabside::Slabside = slabside::Slabside;
//!
//! fn main() {
//!     let text = "kept in slots and spans".repeat(1000);
//!     assert!(slabside::stats().live >= text.len());
//! }
//! ```
//!
//! With the feature `override` the program's C libraries use slabside as well. Debug builds take fewer instructions for
//! a `Box` where `Cargo.toml` has the allocator compiled with optimization:
//!
//! ```toml
//! [profile.dev.package.slabside-core]
//! opt-level = 3
//! [profile.dev.package.slabside-base]
//! opt-level = 3
//! ```
//!
//! | Item | For |
//! |---|---|
//! | [`Slabside`] | the global allocator |
//! | [`Arena`] | a first-class heap: all its blocks go with it |
//! | [`stats`], [`Stats`] | the heap's figures |
//! | [`trim`] | giving idle memory back to the system at once |
//! | [`options!`](crate::options!), [`set_option`] | options of the program's own (docs/tuning.md) |
//! | [`profile`](profile()) | a heap profile while the program runs |
//!
//! The allocator itself is the crate `slabside-core`.
#![no_std]

#[cfg(not(loom))]
mod global;
#[cfg(not(loom))]
mod arena;
#[cfg(all(feature = "allocator-api2", not(loom)))]
mod collections;
#[cfg(all(feature = "valgrind", not(loom)))]
pub mod valgrind;

#[cfg(not(loom))]
pub use arena::{Arena, Full};
#[cfg(not(loom))]
pub use global::{set_option, trim, Slabside};
#[cfg(not(loom))]
#[doc(inline)]
pub use slabside_core::api::{profile, stats, OptionError};
#[cfg(not(loom))]
#[doc(inline)]
pub use slabside_core::stats::Stats;

/// With the feature `override` every C library of the program allocates from slabside too.
#[cfg(all(feature = "override", not(loom)))]
mod replacement {
    use slabside_core::api::table::types::*;

    slabside_core::replace_malloc!();
}

/// The README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

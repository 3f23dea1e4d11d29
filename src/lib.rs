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
//! With the feature `override` the program's C libraries use slabside as well. Debug builds need a third of the
//! instructions for a `Box` where `Cargo.toml` has slabside compiled with optimization:
//!
//! ```toml
//! [profile.dev.package.slabside]
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
//! All other modules are hidden or private. Hidden ones serve the workspace's other crates and the tests, and may change
//! with any version. The modules are declared bottom first: each names only modules declared before it
//! (tests/layers.rs). ARCHITECTURE.md is the way in.
#![no_std]

#[cfg(any(test, loom, feature = "sim"))]
extern crate std;

// What size is what: arithmetic alone.
#[doc(hidden)]
pub mod units;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod arch;
#[cfg(not(loom))]
mod wide;
#[doc(hidden)]
pub mod class;
#[cfg_attr(loom, allow(dead_code))]
mod bitmap;
#[cfg(not(loom))]
mod learnt;

// What a caller can do wrong, and what the system can be asked for.
#[doc(hidden)]
pub mod misuse;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod owner;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod mutex;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod os;
#[cfg(not(loom))]
mod read_only;

// What the user may choose.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod options;
#[cfg(not(loom))]
mod budget;

// The thread's own block, and the metadata region.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod counters;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod tls;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod meta;

// Slab headers, and how threads share them.
#[doc(hidden)]
pub mod slab;
#[doc(hidden)]
pub mod remote;
#[doc(hidden)]
pub mod door;

// Pages, large blocks, heaps.
#[cfg(not(loom))]
mod free_runs;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod profile;
#[cfg(not(loom))]
mod large;
#[cfg(not(loom))]
mod occupancy;
#[cfg(not(loom))]
mod heap;
#[cfg(not(loom))]
mod nested;
#[cfg(not(loom))]
mod hardened;

// The whole, from outside and inside.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod allocator;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod sized_free;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod arena;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod stats;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod layout;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod process;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod api;
#[cfg(all(feature = "valgrind", not(loom)))]
pub mod valgrind;

#[cfg(not(loom))]
pub use api::{profile, set_option, stats, trim, Arena, OptionError, Slabside};
#[cfg(not(loom))]
pub use stats::Stats;

/// The README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

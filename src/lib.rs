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
//! The modules are declared bottom first: each names only modules declared before it (tests/layers.rs). docs/design.md
//! explains the design. Start reading at [`allocator`].
#![no_std]

#[cfg(any(test, loom, feature = "sim"))]
extern crate std;

// What size is what: arithmetic alone.
pub mod units;
#[cfg(not(loom))]
pub mod arch;
#[cfg(not(loom))]
pub mod wide;
pub mod class;
pub mod bitmap;
#[cfg(not(loom))]
mod learnt;

// What a caller can do wrong, and what the system can be asked for.
pub mod misuse;
pub mod sync;
#[cfg(not(loom))]
pub mod mutex;
#[cfg(not(loom))]
pub mod os;
#[cfg(not(loom))]
pub mod read_only;

// What the user may choose.
#[cfg(not(loom))]
pub mod options;
#[cfg(not(loom))]
pub mod budget;

// The thread's own block, and the metadata region.
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
pub mod tls;
#[cfg(not(loom))]
pub mod meta;

// Slab headers, and how threads share them.
pub mod slab;
pub mod remote;
pub mod door;

// Pages, large blocks, heaps.
#[cfg(not(loom))]
pub mod free_runs;
#[cfg(not(loom))]
pub mod pages;
#[cfg(not(loom))]
pub mod profile;
#[cfg(not(loom))]
pub mod large;
#[cfg(not(loom))]
pub mod occupancy;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
pub mod nested;
#[cfg(not(loom))]
pub mod hardened;

// The whole, from outside and inside.
#[cfg(not(loom))]
pub mod allocator;
#[cfg(not(loom))]
pub mod sized_free;
#[cfg(not(loom))]
pub mod arena;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
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

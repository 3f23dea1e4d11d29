//! The allocator of the crate `slabside`, which is the one to use: this one may change with any version.
//!
//! It stands on `slabside-base`, whose modules it names as if they were its own. Its own modules are declared bottom first:
//! each names only modules declared before it (tests/layers.rs). ARCHITECTURE.md is the way in.
#![no_std]

#[cfg(test)]
extern crate std;

// The layer below.
#[cfg(not(loom))]
use slabside_base::{arch, counters, layout, misuse, mutex, options, read_only, region};
use slabside_base::{class, owner, sync, units};
// For the macros that define the C functions.
#[cfg(not(loom))]
#[doc(hidden)]
pub use slabside_base::{jump_to, os, throwing_new};

// Arithmetic, and what knows nothing of slabs.
#[cfg_attr(loom, allow(dead_code))]
mod bitmap;
#[cfg(not(loom))]
mod wide;
#[cfg(not(loom))]
mod learnt;
#[cfg(not(loom))]
mod budget;

// The thread's own block, and the metadata region.
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
mod free_runs;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
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
pub mod allocator;
#[cfg(not(loom))]
pub mod sized_free;
#[cfg(not(loom))]
pub mod arena;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub mod api;

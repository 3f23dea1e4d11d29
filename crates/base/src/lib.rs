//! What the allocator slabside stands on: sizes and the instructions written by hand, atomics and locks, what is asked of
//! the system, options, and how the bookkeeping lies in memory, for the allocator and for readers outside the process.
//!
//! A part of the crate `slabside`, which is the one to use: it may change with any version. The modules are declared bottom
//! first: each names only modules declared before it (tests/layers.rs).
#![no_std]

#[cfg(any(test, loom))]
extern crate std;

// What size is what: arithmetic alone.
pub mod units;
#[cfg(not(loom))]
pub mod arch;
pub mod class;

// What a caller can do wrong, and what the system can be asked for.
pub mod misuse;
pub mod sync;
pub mod owner;
#[cfg(not(loom))]
pub mod mutex;
#[cfg(not(loom))]
pub mod os;
#[cfg(not(loom))]
pub mod read_only;

// What the user may choose.
#[cfg(not(loom))]
pub mod options;

// What a reader outside the process finds.
#[cfg(not(loom))]
pub mod counters;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod layout;

//! slabside: a memory allocator whose bookkeeping lies entirely apart from user memory.
#![no_std]
#[cfg(any(test, feature = "sim"))]
extern crate std;

pub mod geometry;
pub mod class;
pub mod misuse;
pub mod bitmap;
pub mod sync;
pub mod os;
pub mod counters;
pub mod meta;
pub mod slab;
pub mod remote;
pub mod runs;
pub mod tls;
pub mod pages;
pub mod large;
pub mod heap;
pub mod allocator;
pub mod inspect;
pub mod life;
pub mod api;
pub use api::Slabside;

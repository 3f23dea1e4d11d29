//! slabside: a memory allocator whose bookkeeping lies entirely apart from user memory.
#![no_std]
#[cfg(any(test, feature = "sim"))]
extern crate std;

pub mod geometry;
pub mod class;
pub mod misuse;
pub mod sync;
pub mod os;

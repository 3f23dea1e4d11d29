//! The system's malloc for static programs, as libslabside_preload.a: the preload library but for its `dlopen`, which a
//! static program has of its own C library.
#![no_std]

#[path = "../../preload/src/system.rs"]
mod system;

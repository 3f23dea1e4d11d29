//! The system's malloc by LD_PRELOAD: what `system` has, and `dlopen` beside it (`open`).
#![no_std]

#[cfg(target_arch = "x86_64")]
mod open;
mod system;

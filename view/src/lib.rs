//! Reads the heap of a process that runs on slabside from outside: a running process, a core file, or a snapshot.
//!
//! ```text
//!   source   bytes of a target: process, core file, snapshot file; stopped or not
//!   region   the header of a metadata region: what it states is compared before it is used
//!   image    a copy of the metadata, page by page as far as it is there
//!   sizes    which slots have an exact size, of hardened mode
//!   model    slabs, large blocks, owners, by address
//!   figures  sums by class and owner, which together are what is resident
//!   contents, types                     what lies in blocks, and what it is
//!   explain, map, kinds, check, diff    what is made of a model
//!   roots, mark                         where the program's pointers begin, what they lead to
//!   holders, leaks                      who points to a block, and to which nobody does
//!   idle                                which pages nobody touches
//!   snapshot                            a file that holds a target
//! ```
//!
//! Nothing is loaded into the target, nothing is written to it, and unless it is asked for it is not stopped. What is
//! read may change meanwhile, be damaged, or be made to deceive. So no number in it is used before it was compared with
//! what it may be. Every loop has a bound, and the target's own metadata bound the memory.
//!
//! ```no_run
//! use slabside_view::{figures::Figures, model::Heap, source::Target};
//!
//! # fn main() -> Result<(), slabside_view::Error> {
//! let target = Target::process(1234)?;
//! let heap = Heap::read(&*target)?;
//! let figures = Figures::of(&*target, &heap);
//! println!("{} bytes live of {} resident", figures.allocated, figures.resident);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/live.rs` is a program that does so.
// The models of `cfg(loom)` are the allocator's alone, which has no layout to read then.
#![cfg(not(loom))]

pub mod check;
pub mod contents;
pub mod diff;
mod error;
pub mod explain;
pub mod figures;
pub mod holders;
pub mod idle;
pub mod image;
pub mod kinds;
pub mod leaks;
pub mod map;
pub mod mark;
pub mod model;
pub mod profile;
pub mod region;
pub mod roots;
mod sizes;
pub mod snapshot;
pub mod source;
pub mod symbols;
mod threads;
pub mod types;
pub mod unwind;

pub use error::{Error, Result};

/// The page's example.
#[cfg(doctest)]
#[doc = include_str!("../../docs/watch.md")]
mod page {}

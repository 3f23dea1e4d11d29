//! The benchmarks of slabside: what is run, on which allocator, and how it is measured.
//!
//! ```text
//! random, table, block     what the workloads are made of
//! workloads                one file a question: pair, churn, batch ...
//! rows                     the questions with their figures filled in: the rows of every table
//! c_abi, in_process        allocators behind one trait: the program's malloc, and peers as crates
//! latency, memory          clocks for single calls, resident bytes
//! counters, overhead       what slabside tells of itself; bytes beside the live ones, stage by stage
//! libraries, child         the peers as shared libraries, and a program run under one of them
//! cachegrind               instructions, mispredictions and cache misses of a row's operation
//! instructions             callgrind's counts of single calls, and their budgets
//! ```
//!
//! The program `runner` does one row on whatever `malloc` it finds, so `LD_PRELOAD` chooses the allocator
//! and every allocator is reached by the same call. `compare` runs it again and again, allocators
//! alternating, and writes the tables. The criterion files in `../benches` ask the same questions one by one.

pub mod random;
pub mod table;
pub mod block;
pub mod workloads;
pub mod rows;
pub mod c_abi;
pub mod in_process;
pub mod latency;
pub mod memory;
pub mod counters;
pub mod overhead;
pub mod libraries;
pub mod child;
pub mod cachegrind;
pub mod instructions;

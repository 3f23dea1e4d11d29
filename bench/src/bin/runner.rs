//! Does one row on the `malloc` that this program was started with, and prints what it measured:
//!
//! ```text
//! runner row NAME OPS            time OPS NANOSECONDS CHECKSUM / peak BYTES / resident PEAK AFTER LATER / held LIVE RESIDENT
//! runner latency NAME OPS        the same, and: latency MEDIAN P99.9 MAX, in nanoseconds
//! runner count NAME OPS          as row, for a run under valgrind: it is given up later
//! runner warm BYTES              nothing: touches so much memory and gives it back
//! runner overhead MIX COUNT      a line a stage: stage LIVE BREAK RESIDENT METADATA, in bytes
//! ```

use slabside_bench::c_abi::CAbi;
use slabside_bench::latency::{Clock, Timed};
use slabside_bench::overhead::{stages, Mix};
use slabside_bench::workloads::Outcome;
use slabside_bench::{counters, memory, rows};

/// Seconds after which a run is given up, by a signal.
const LIMIT: u32 = 120;

/// The same for a run under valgrind.
const COUNT_LIMIT: u32 = 1800;

fn print(outcome: Outcome) {
    println!(
        "time {} {} {}",
        outcome.ops, outcome.nanos, outcome.checksum
    );
    println!("peak {}", memory::peak());
    if let Some(resident) = outcome.resident {
        println!(
            "resident {} {} {}",
            resident.peak, resident.after, resident.later
        );
    }
    if let Some(held) = outcome.held {
        println!("held {} {}", held.live, held.resident);
    }
}

/// Touches as many bytes as the most that a row holds and gives them back: the machine's own page faults are not
/// the next process's. Once by small pages and once by huge ones, which the system takes from other places.
fn warm(bytes: usize) {
    for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_HUGEPAGE] {
        // SAFETY: a fresh mapping, written to and unmapped here.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
            if at != libc::MAP_FAILED {
                libc::madvise(at, bytes, advice);
                (0..bytes)
                    .step_by(4096)
                    .for_each(|offset| at.cast::<u8>().add(offset).write_volatile(1));
                libc::munmap(at, bytes);
            }
        }
    }
}

fn row(name: &str, ops: usize) -> Option<()> {
    print(rows::find(name)?.run(&CAbi, ops));
    Some(())
}

fn latency(name: &str, ops: usize) -> Option<()> {
    let clock = Clock::start();
    print(rows::find(name)?.run(&Timed(CAbi), ops));
    let latency = clock.latency();
    println!(
        "latency {} {} {}",
        latency.median, latency.p999, latency.max
    );
    Some(())
}

fn overhead(mix: &str, count: usize) -> Option<()> {
    counters::hand_over().ok()?;
    for stage in stages(&CAbi, Mix::find(mix)?, count) {
        println!(
            "stage {} {} {} {}",
            stage.live, stage.program_break, stage.resident, stage.metadata
        );
    }
    Some(())
}

/// Has a signal end the process after so many seconds.
fn limit(seconds: u32) {
    // SAFETY: the alarm's signal ends the process, nothing more.
    unsafe { libc::alarm(seconds) };
}

fn count(name: &str, ops: usize) -> Option<()> {
    limit(COUNT_LIMIT);
    row(name, ops)
}

fn main() {
    limit(LIMIT);
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["row", name, ops] => ops.parse().ok().and_then(|ops| row(name, ops)),
        ["count", name, ops] => ops.parse().ok().and_then(|ops| count(name, ops)),
        ["latency", name, ops] => ops.parse().ok().and_then(|ops| latency(name, ops)),
        ["warm", bytes] => bytes.parse().ok().map(warm),
        ["overhead", mix, count] => count.parse().ok().and_then(|count| overhead(mix, count)),
        _ => None,
    };
    if done.is_none() {
        eprintln!(
            "usage: runner row|count|latency NAME OPS, runner overhead MIX COUNT, runner warm BYTES"
        );
        std::process::exit(2);
    }
}

//! Slot by slot: a process that is stopped anywhere has live what it logged, and nothing else.

use super::Running;
use crate::common::{command, compile, environment, Form};
use slabside_view::model::{Buffers, Heap, Hold};
use slabside_view::region::find;
use slabside_view::source::Target;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Threads that the log has words for.
const THREADS: usize = 8;
/// Places of its table.
const SLOTS: usize = 20_000;

/// The log as it stands.
struct Log {
    moving: usize,
    held: BTreeSet<u64>,
}

impl Log {
    fn read(file: &Path) -> Log {
        let bytes = fs::read(file).expect("the log");
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
            .collect();
        assert_eq!(words.len(), 1 + THREADS + SLOTS);
        let (moving, held) = words[1..].split_at(THREADS);
        Log {
            moving: moving.iter().filter(|&&word| word != 0).count(),
            held: held.iter().copied().filter(|&word| word != 0).collect(),
        }
    }
}

/// What is live in a process that stands still, and the log of that moment.
fn stopped(pid: u32, file: &Path, buffers: &mut Vec<Buffers>) -> (BTreeSet<u64>, Log) {
    let mut target = Target::process(pid).expect("it is there");
    let regions = find(&*target).expect("it has a heap");
    let heaps = Heap::of_stopped(&mut target, &regions, buffers, Hold::Yes);
    let heaps = heaps.expect("it is read");
    assert!(!target.is_moving() && heaps[0].looks == 0);
    let mut live = BTreeSet::new();
    heaps[0].each_live(|span, _| assert!(live.insert(span.start)));
    let log = Log::read(file);
    buffers.extend(heaps.into_iter().map(Heap::into_buffers));
    (live, log)
}

#[test]
fn a_process_stopped_anywhere_has_live_what_it_logged_and_nothing_else() {
    for (threads, options) in [
        ("1", ""),
        ("3", ""),
        ("3", "zero,canary,random"),
        ("1", "quarantine"),
        ("3", "hardened"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("log");
        let mut command = command(compile("watch/logger.c", &[]));
        command
            .arg(threads)
            .arg(&file)
            .envs(environment(Form::Preloaded))
            .env("SLABSIDE_OPTIONS", options);
        let running = Running::start(&mut command, dir);
        let mut buffers = Vec::new();
        let (before, _) = stopped(running.pid(), &file, &mut buffers);
        let log = File::options().write(true).open(&file).expect("the log");
        log.write_all_at(&[1], 0).expect("it goes on");
        let (mut most, mut round) = (0, 0);
        // Where it is slow it may hold little after 40 rounds.
        while round < 40 || most <= 1000 {
            std::thread::sleep(Duration::from_micros(500 + 977 * round % 7000));
            let (live, log) = stopped(running.pid(), &file, &mut buffers);
            for address in log.held.iter().chain(&before) {
                assert!(live.contains(address), "{address:#x} is held");
            }
            let others = live.len() - log.held.union(&before).count();
            assert!(
                others <= log.moving,
                "{others} more than {} on their way",
                log.moving
            );
            most = most.max(log.held.len());
            round += 1;
        }
    }
}

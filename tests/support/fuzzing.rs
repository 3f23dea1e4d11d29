//! What any bytes mean: a fuzzer's input as a system and a script. The targets in `fuzz/` are these functions,
//! and the tests play the corpus that is kept there through them.
//!
//! ```text
//!   | system | failures | ... | operation | operation | ...
//!     1 byte   8 bytes, in `faults` only    8 bytes each; what is left over is dropped
//! ```

use super::parallel::Parallel;
use super::{address_limit, sim_with, Memory, Op, Random, World, THREADS};
use slabside_base::misuse::LINE;
use slabside_base::options::{parse, Kind, Mistake, Options, TABLE, TEXT};
use slabside_sim::SimConfig;
use std::fs;
use std::path::Path;

/// The most operations of one input: longer ones find nothing that shorter ones do not, only later.
const LONGEST: usize = 2000;

/// The systems that a first byte stands for.
fn system(byte: u8) -> SimConfig {
    sim_with(|config| match byte % 8 {
        1 => config.break_fails = true,
        2 => config.break_bytes = 0,
        3 => config.break_bytes = 4 << 20,
        4 => config.break_offset = 0x12345,
        5 => {
            config.page_size = 16 << 10;
            config.break_offset = 0x3123;
        }
        6 => config.page_size = 64 << 10,
        _ => {}
    })
}

/// The same with so little memory that requests are refused.
fn scarce_system(byte: u8) -> SimConfig {
    let mut config = system(byte);
    match byte >> 4 & 3 {
        1 => config.limits = address_limit(8 << 20),
        2 => config.limits.data = 3 << 20,
        _ => {}
    }
    config
}

fn script(bytes: &[u8]) -> impl Iterator<Item = Op> + '_ {
    let chunks = bytes.chunks_exact(8).take(LONGEST);
    chunks.map(|chunk| Op::from_bytes(chunk.try_into().expect("eight bytes")))
}

/// Any operations agree with the model.
pub fn operations(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    let mut world = World::new(system(first), Memory::Ample, 8);
    world.play(script(rest));
    world.finish();
}

/// Any operations, at the same time, by real threads.
pub fn threads(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    let mut parallel = Parallel::new(system(first), Memory::Ample);
    parallel.play(script(rest));
    parallel.finish();
}

/// Any operations while the system fails, once, from then on, or in bursts: nothing is lost.
pub fn faults(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_at_checked(9) else {
        return;
    };
    let mut numbers = Random(u64::from_le_bytes(
        head[1..].try_into().expect("eight bytes"),
    ));
    let mut world = World::new(scarce_system(head[0]), Memory::Scarce, 8);
    let mut rest = script(rest).peekable();
    while rest.peek().is_some() {
        match numbers.below(3) {
            0 => world.sim().never_fail(),
            1 => world.sim().fail_at(numbers.below(12)),
            _ => world.sim().fail_from(numbers.below(12)),
        }
        let burst = 1 + numbers.below(40);
        world.play(rest.by_ref().take(burst));
    }
    world.sim().never_fail();
    for thread in 0..THREADS {
        world.play([Op::Free {
            thread,
            pick: 0,
            count: 100,
            stride: 1,
        }]);
    }
    world.finish();
}

/// Any options string: what is taken is in its range, what is not is told in one line, and nothing changes
/// once the options are frozen.
pub fn options(bytes: &[u8]) {
    let options = Options::new(&mut slabside_base::mutex::Registry::new());
    let mut told = 0;
    options.freeze(bytes, |line| {
        let text = line.bytes();
        assert!(text.starts_with(b"slabside: ") && text.len() <= LINE);
        told += 1;
    });
    let items: Vec<&[u8]> = bytes.split(|&byte| byte == b',').collect();
    assert!(told <= items.len(), "{told} lines of {} items", items.len());
    for spec in TABLE {
        expect_in_range(spec.kind, options.get(spec.name));
    }
    if let Some(text) = options.text() {
        assert!(text.to_bytes().len() <= TEXT);
    }
    for item in items {
        match parse(item) {
            Ok((name, value)) => expect_in_range(name.spec().kind, value),
            Err(mistake) => assert!(!mistake.line(item).bytes().is_empty()),
        }
        let before: Vec<usize> = TABLE.iter().map(|spec| options.get(spec.name)).collect();
        if options.set(item) == Err(Mistake::Frozen) {
            let after: Vec<usize> = TABLE.iter().map(|spec| options.get(spec.name)).collect();
            assert_eq!(before, after, "changed though frozen");
        }
    }
}

fn expect_in_range(kind: Kind, value: usize) {
    match kind {
        Kind::Flag => assert!(value <= 1),
        Kind::Integer { least, most, .. } => assert!((least..=most).contains(&value) || value == 0),
        Kind::Amount { most, .. } => assert!(value <= most),
        Kind::Choice(words) => assert!(value < words.len()),
        Kind::Text => assert!(value <= TEXT),
    }
}

/// Plays every file of a corpus that the fuzzers found worth keeping (fuzz/README.md).
pub fn replay(target: &str, play: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = fs::read_dir(&folder).expect("the corpus is kept");
    let mut played = 0;
    for file in files {
        let path = file.expect("an entry").path();
        eprintln!("{}", path.display());
        play(&fs::read(path).expect("a file"));
        played += 1;
    }
    assert!(played > 0, "nothing in {}", folder.display());
}

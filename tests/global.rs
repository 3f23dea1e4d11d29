//! slabside as the `#[global_allocator]` of a Rust program: this very test program runs on it.

mod common;

use common::{dumped, holds};
use slabside::Slabside;
use slabside_core::api;
use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

/// Whether `block` was handed out by slabside: another allocator's block would end the program.
fn is_ours(block: *const u8) -> bool {
    // SAFETY: the caller holds the block, so it is live.
    unsafe { api::usable_size(block) > 0 }
}

#[test]
fn collections_live_on_it() {
    let mut tree = BTreeMap::new();
    let mut map = HashMap::new();
    for n in 0..20_000u32 {
        tree.insert(n, n.to_string());
        map.insert(n.to_string(), vec![n; (n % 50) as usize]);
    }
    assert!(is_ours(map["77"].as_ptr().cast()));
    assert!((0..20_000).all(|n| map[&tree[&n]].len() == (n % 50) as usize));
}

#[test]
fn threads_send_each_other_what_they_allocated() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let threads: Vec<_> = (0..8u8)
        .map(|id| {
            let sender = sender.clone();
            std::thread::spawn(move || (1..2_000).for_each(|n| sender.send(vec![id; n]).unwrap()))
        })
        .collect();
    drop(sender);
    let bytes: usize = receiver.iter().map(|block| block.len()).sum();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(bytes, 8 * (1..2_000).sum::<usize>());
}

#[test]
fn every_layout_is_aligned_zeroed_and_resized_with_its_contents() {
    for shift in 0..=16 {
        for size in [1, 7, 24, 100, 1000, 5000, 20_000, 200_000] {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            // SAFETY: the layout is not empty, and each block is used within it and freed once.
            unsafe {
                let block = alloc_zeroed(layout);
                assert!(!block.is_null() && (block as usize).is_multiple_of(layout.align()));
                assert!((0..size).all(|i| *block.add(i) == 0));
                block.write_bytes(0xa5, size);
                let block = realloc(block, layout, 3 * size);
                assert_eq!(block as usize % layout.align(), 0);
                assert!((0..size).all(|i| *block.add(i) == 0xa5));
                dealloc(
                    block,
                    Layout::from_size_align(3 * size, layout.align()).unwrap(),
                );
                let again = alloc(layout);
                assert_eq!(again as usize % layout.align(), 0);
                dealloc(again, layout);
            }
        }
    }
}

#[test]
fn the_figures_speak_of_this_program() {
    let before = api::stats();
    let held: Vec<Box<[u8; 1000]>> = (0..1000).map(|_| Box::new([1; 1000])).collect();
    let after = api::stats();
    assert!(
        after.handed_out > before.handed_out && after.live >= 1_000_000,
        "{after:?}"
    );
    drop(held);
}

/// What is resized where it lies is neither copied nor cleared.
#[test]
fn over_aligned_blocks_are_resized_in_place_where_there_is_room() {
    for (align, from, to) in [
        (64, 100, 128),
        (4096, 5000, 8192),
        (256, 1 << 20, 1000 << 10),
    ] {
        let layout = Layout::from_size_align(from, align).unwrap();
        // SAFETY: the layout is not empty, and the block is used within it and freed once.
        unsafe {
            let block = alloc(layout);
            let resized = realloc(block, layout, to);
            assert_eq!(resized, block, "{layout:?} to {to}");
            dealloc(resized, Layout::from_size_align(to, align).unwrap());
        }
    }
}

#[test]
fn large_over_aligned_zeros_are_not_touched() {
    let layout = Layout::from_size_align(1 << 30, 1 << 21).unwrap();
    let resident = || -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let before = resident();
    // SAFETY: the layout is not empty, and the block is read within it and freed once.
    unsafe {
        let block = alloc_zeroed(layout);
        assert!(!block.is_null() && (block as usize).is_multiple_of(1 << 21));
        assert!(
            resident() < before + (64 << 20) / 4096,
            "a gibibyte was cleared"
        );
        assert_eq!((*block, *block.add(layout.size() - 1)), (0, 0));
        dealloc(block, layout);
    }
}

/// Set in the environment of a child that is to end with a dump.
const DUMPS: &str = "GLOBAL_TEST_DUMPS";

/// What the child writes into its last block: made so that the program itself does not hold it.
fn mark() -> Vec<u8> {
    let before = std::hint::black_box(*b"`.a`^j-hm-sgd-ctlo");
    before.iter().map(|letter| letter + 1).collect()
}

/// Ends by SIGQUIT, with a marked block that a thread allocated: the break is not moved then, since libc's malloc lies
/// there, so the block is in a window.
fn dump_a_marked_block() {
    let allocate = || {
        let blocks = (0..4000).map(|_| Box::leak(vec![0u8; 500].into_boxed_slice()));
        let last = blocks.collect::<Vec<_>>().pop().expect("there are some");
        let mark = mark();
        last[..mark.len()].copy_from_slice(&mark);
        last.as_ptr() as usize
    };
    let address = std::thread::spawn(allocate).join().expect("it ends well");
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: calls with no memory of ours but `limit`.
    unsafe {
        let end = libc::sbrk(0) as usize;
        assert!(address.abs_diff(end) > 1 << 30, "in the break's heap");
        assert_eq!(libc::setrlimit(libc::RLIMIT_CORE, &limit), 0);
        libc::raise(libc::SIGQUIT);
    }
}

#[test]
fn core_dumps_of_a_program_with_threads_hold_blocks_and_metadata() {
    if std::env::var_os(DUMPS).is_some() {
        return dump_a_marked_block();
    }
    for options in ["", "guard-sample:1"] {
        let program = std::env::current_exe().expect("this program");
        let mut command = common::command(&program);
        command
            .args([
                "--exact",
                "core_dumps_of_a_program_with_threads_hold_blocks_and_metadata",
            ])
            .env(DUMPS, "1")
            .env("SLABSIDE_OPTIONS", options);
        let name = format!("core-rust-{}", options.len());
        let Some(dump) = dumped(&mut command, &name) else {
            return;
        };
        assert!(holds(&dump, &mark()), "{options}: the block");
        let header = [
            &b"slabside"[..],
            &slabside_core::meta::VERSION.to_le_bytes(),
        ]
        .concat();
        assert!(holds(&dump, &header), "{options}: the header");
    }
}

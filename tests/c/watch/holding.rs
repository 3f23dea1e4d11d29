//! Holds known bytes by functions of known names, for a heap profile. Says "ready".

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

#[inline(never)]
fn hold_texts(all: &mut Vec<String>) {
    for i in 0..6000 {
        all.push(black_box(format!("{i:1000}")));
    }
}

#[inline(never)]
fn hold_map(all: &mut BTreeMap<u64, Box<[u64; 60]>>) {
    for i in 0..4000 {
        all.insert(i, black_box(Box::new([i; 60])));
    }
}

#[inline(never)]
fn hold_in_thread(all: &mut Vec<Vec<u8>>) {
    for _ in 0..200 {
        all.push(black_box(vec![1; 20_000]));
    }
}

fn main() {
    let (mut texts, mut map) = (Vec::new(), BTreeMap::new());
    hold_texts(&mut texts);
    hold_map(&mut map);
    let thread = std::thread::spawn(|| {
        let mut all = Vec::new();
        hold_in_thread(&mut all);
        all
    });
    let more = thread.join().expect("it ends");
    black_box((&texts, &map, &more));
    println!("ready");
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

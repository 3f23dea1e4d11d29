//! Values that are lost: a cycle of two `Rc`, and a forgotten box of a `dyn` that owns a text. Says "ready".

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

#[allow(dead_code)]
struct Node {
    other: RefCell<Option<Rc<Node>>>,
    room: [u64; 50],
}

trait Says {
    fn say(&self) -> usize;
}

struct Speaker {
    text: String,
    room: [u64; 70],
}

impl Says for Speaker {
    fn say(&self) -> usize {
        self.text.len() + self.room.len()
    }
}

fn node() -> Rc<Node> {
    let other = RefCell::new(None);
    let room = [0; 50];
    Rc::new(Node { other, room })
}

#[inline(never)]
fn lose() {
    let (one, other) = (node(), node());
    *one.other.borrow_mut() = Some(other.clone());
    *other.other.borrow_mut() = Some(one.clone());
    let text = "a text of many bytes ".repeat(50);
    let room = [0; 70];
    let speaker: Box<dyn Says> = Box::new(Speaker { text, room });
    black_box(speaker.say());
    let holder = Box::new((speaker, [0u64; 90]));
    std::mem::forget(black_box(holder));
}

#[inline(never)]
fn wipe() {
    black_box([0u8; 64 << 10]);
}

fn main() {
    lose();
    wipe();
    println!("ready");
    loop {
        std::thread::park();
    }
}

//! The Rust server of the guide. It serves requests that it makes up. Answers are kept in a cache that nobody empties, and
//! jobs wait in a queue. Some jobs lead to each other by `Rc`, and are never freed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

trait Job {
    fn run(&self) -> usize;
}

struct Render {
    page: String,
    number: u64,
}

struct Send {
    bytes: Vec<u8>,
}

impl Job for Render {
    fn run(&self) -> usize {
        self.page.len() + self.number as usize
    }
}

impl Job for Send {
    fn run(&self) -> usize {
        self.bytes.len()
    }
}

/// A step of a job, and the one after it.
struct Step {
    name: String,
    next: RefCell<Option<Rc<Step>>>,
}

#[inline(never)]
fn fill_cache(cache: &mut HashMap<u64, String>, number: u64) {
    let key = number % 50_000;
    cache.entry(key).or_insert_with(|| format!("{{\"answer\":{key:>200}}}"));
}

#[inline(never)]
fn queue_job(queue: &mut VecDeque<Box<dyn Job>>, number: u64) {
    let job: Box<dyn Job> = match number % 3 {
        0 => Box::new(Send {
            bytes: vec![1; 300],
        }),
        _ => Box::new(Render {
            page: format!("/page/{number}"),
            number,
        }),
    };
    queue.push_back(job);
    if queue.len() > 10_000 {
        black_box(queue.pop_front().map_or(0, |job| job.run()));
    }
}

/// Two steps that lead to each other: `Rc` frees neither.
#[inline(never)]
fn plan_steps(number: u64) {
    let step = |what: &str| {
        Rc::new(Step {
            name: format!("{what} of request number {number}"),
            next: RefCell::default(),
        })
    };
    let (first, second) = (step("reading"), step("writing"));
    *second.next.borrow_mut() = Some(first.clone());
    *first.next.borrow_mut() = Some(second);
    black_box(&first.name);
}

fn main() {
    let (mut cache, mut queue) = (HashMap::new(), VecDeque::new());
    let mut number = 0u64;
    let mut serve = |requests: u64| {
        for _ in 0..requests {
            number += 1;
            fill_cache(&mut cache, number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
            queue_job(&mut queue, number);
            if number % 50 == 0 {
                plan_steps(number);
            }
        }
    };
    serve(60_000);
    println!("ready");
    loop {
        serve(20);
        std::thread::sleep(Duration::from_millis(5));
    }
}

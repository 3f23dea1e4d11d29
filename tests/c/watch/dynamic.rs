//! Values that are known by pointers to `dyn Shape` alone: their types are to be told from outside. Says "ready".

use std::hint::black_box;

trait Shape {
    fn area(&self) -> f64;
}

/// Has nothing to drop: its table of functions names no such function.
struct Ring(f64, f64, f64);

/// Has.
struct Labelled {
    label: String,
    side: f64,
}

impl Shape for Ring {
    fn area(&self) -> f64 {
        self.0 * self.1 * self.2
    }
}

impl Shape for Labelled {
    fn area(&self) -> f64 {
        self.side * self.label.len() as f64
    }
}

fn main() {
    let mut shapes: Vec<Box<dyn Shape>> = Vec::new();
    for index in 0..600 {
        shapes.push(Box::new(Ring(1.0, 2.0, f64::from(index))));
    }
    for index in 0..250 {
        let label = format!("number {index}");
        shapes.push(Box::new(Labelled { label, side: 1.0 }));
    }
    let shapes = black_box(shapes);
    let sum: f64 = shapes.iter().map(|shape| shape.area()).sum();
    assert!(sum > 0.0);
    println!("ready");
    loop {
        std::thread::park();
        black_box(&shapes);
    }
}

//! A flame graph as an SVG page (B. Gregg, "The Flame Graph", 2016): a box for each function, as wide as the bytes that it
//! and what it calls hold, above the function that called it.

use super::human;
use super::svg::escaped;
use slabside_view::profile::Row;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Pixels of the page's width, of a box's height, and of a letter.
const WIDTH: f64 = 1200.0;
const HEIGHT: usize = 17;
const LETTER: f64 = 6.6;
/// A narrower box is left out.
const NARROW: f64 = 0.3;

/// A function and those that it calls.
#[derive(Default)]
struct Node<'a> {
    bytes: f64,
    called: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    fn add(&mut self, row: &'a Row) {
        self.bytes += row.bytes;
        let mut node = self;
        for frame in row.stack.iter().rev() {
            node = node.called.entry(&frame.function).or_default();
            node.bytes += row.bytes;
        }
    }

    fn depth(&self) -> usize {
        1 + self.called.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// The page.
pub fn page(title: &str, rows: &[Row]) -> String {
    let mut root = Node::default();
    rows.iter().for_each(|row| root.add(row));
    let height = root.depth() * HEIGHT + 40;
    let mut body = String::new();
    draw(
        "all",
        &root,
        (0.0, height - HEIGHT - 4),
        root.bytes.max(1.0),
        &mut body,
    );
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' font-family='monospace' font-size='11'>\n\
         <rect width='100%' height='100%' fill='white'/>\n<text x='4' y='16'>{}</text>\n{body}</svg>\n",
        escaped(title)
    )
}

/// Draws `node` with its left lower corner at `place`, and what it calls above.
fn draw(name: &str, node: &Node<'_>, (left, top): (f64, usize), all: f64, body: &mut String) {
    let width = WIDTH * node.bytes / all;
    if width < NARROW {
        return;
    }
    let bytes = human(node.bytes.round() as u64);
    let part = 100.0 * node.bytes / all;
    let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
    let mut label: String = name.chars().take(letters).collect();
    if letters < 3 {
        label.clear();
    }
    let _ = writeln!(
        body,
        "<g><title>{0}: {bytes}, {part:.1} %</title><rect x='{left:.1}' y='{top}' width='{width:.1}' height='{1}' \
         fill='{2}' rx='1'/><text x='{3:.1}' y='{4}'>{5}</text></g>",
        escaped(name),
        HEIGHT - 1,
        color(name),
        left + 2.0,
        top + HEIGHT - 5,
        escaped(&label)
    );
    let mut at = left;
    for (name, called) in &node.called {
        draw(name, called, (at, top - HEIGHT), all, body);
        at += WIDTH * called.bytes / all;
    }
}

/// A warm color, the same for a function each time.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(0u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    format!(
        "#{:02x}{:02x}{:02x}",
        205 + hash % 50,
        90 + hash / 50 % 130,
        40 + hash / 7000 % 50
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_view::unwind::Frame;

    #[test]
    fn a_function_is_as_wide_as_what_it_and_its_callees_hold() {
        let row = |names: &[&str], bytes| Row {
            stack: names
                .iter()
                .map(|name| Frame {
                    function: (*name).into(),
                    ..Frame::default()
                })
                .collect(),
            count: 1.0,
            bytes,
            samples: 1,
        };
        let page = page(
            "a<b",
            &[
                row(&["f<int>", "main"], 3072.0),
                row(&["g", "main"], 1024.0),
            ],
        );
        assert!(page.starts_with("<svg ") && page.ends_with("</svg>\n") && page.contains("a&lt;b"));
        assert!(
            page.contains("<title>main: 4.0 KiB, 100.0 %</title>"),
            "{page}"
        );
        assert!(
            page.contains("<title>f&lt;int>: 3.0 KiB, 75.0 %</title><rect x='0.0'"),
            "{page}"
        );
        assert!(
            page.contains("<title>g: 1.0 KiB, 25.0 %</title><rect x='900.0'"),
            "{page}"
        );
    }
}

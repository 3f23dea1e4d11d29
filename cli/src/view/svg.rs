//! The picture of a heap as an SVG page: a rectangle for each run of pages.

use super::{grouped, human};
use slabside_view::map::{PageRun, Picture};
use std::fmt::Write;

/// Pages in a line, and pixels of a page.
const LINE: u64 = 256;
const PIXELS: u64 = 4;
/// The most rectangles: a browser shows no more in reasonable time.
const MOST: usize = 200_000;

/// The page.
pub fn page(title: &str, windows: &[Picture]) -> String {
    let mut body = String::new();
    let (mut top, mut drawn) = (24, 0);
    for window in windows {
        let _ = writeln!(
            body,
            "<text x='4' y='{}'>{} {:#x}, {}</text>",
            top + 12,
            if window.mapped { "window" } else { "break" },
            window.address,
            human(window.bytes)
        );
        top += 20;
        for run in &window.runs {
            drawn += draw(window.address, run, top, &mut body);
            if drawn > MOST {
                break;
            }
        }
        top += (window.bytes / 4096).div_ceil(LINE) * PIXELS + 8;
    }
    if drawn > MOST {
        let _ = writeln!(body, "<text x='4' y='{}'>and more</text>", top + 12);
        top += 20;
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{top}' font-family='monospace' font-size='11'>\n\
         <rect width='100%' height='100%' fill='white'/>\n<text x='4' y='14'>{}: green: live, pale: idle slots, yellow: \
         only freed blocks in a quarantine, grey: free and resident, white: not resident, blue: not the heap's</text>\n{body}</svg>\n",
        LINE * PIXELS,
        escaped(title)
    )
}

pub(super) fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '<' => "&lt;".into(),
            '&' => "&amp;".into(),
            c if c.is_control() => "?".into(),
            c => c.to_string(),
        })
        .collect()
}

/// Draws a run, a rectangle for each line that it reaches into. Returns how many.
fn draw(base: u64, run: &PageRun, top: u64, body: &mut String) -> usize {
    let first = (run.address - base) / 4096;
    let color = color(run);
    let (mut page, mut count) = (first, 0);
    while page < first + run.pages && count < MOST {
        let line = page / LINE;
        let end = (first + run.pages).min((line + 1) * LINE);
        let _ = writeln!(
            body,
            "<rect x='{}' y='{}' width='{}' height='{PIXELS}' fill='{color}'><title>{:#x}: {}</title></rect>",
            page % LINE * PIXELS,
            top + line * PIXELS,
            (end - page) * PIXELS,
            run.address,
            what(run)
        );
        page = end;
        count += 1;
    }
    count
}

fn what(run: &PageRun) -> String {
    let pages = grouped(run.pages);
    match run.slab {
        0 => format!("{pages} free pages, {} resident", human(run.resident)),
        1 => format!("{pages} pages of somebody else"),
        id => format!(
            "slab {}, {} bytes, {pages} pages, {} live, {}{} resident",
            grouped(id.into()),
            grouped(run.size),
            human(run.live),
            match run.quarantined {
                0 => String::new(),
                bytes => format!("{} in a quarantine, ", human(bytes)),
            },
            human(run.resident)
        ),
    }
}

fn color(run: &PageRun) -> String {
    let bytes = run.pages * 4096;
    match (run.slab, run.resident) {
        (1, _) => "#9db8e8".into(),
        (_, 0) => "#f8f8f8".into(),
        (0, _) => "#b0b0b0".into(),
        _ if run.live == 0 && run.quarantined > 0 => "#f0e0a0".into(),
        _ => {
            let full = (run.live * 160 / bytes.max(1)).min(160);
            format!(
                "#{:02x}{:02x}{:02x}",
                220 - full,
                240 - full / 3,
                220 - full
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_over_two_lines_is_two_rectangles() {
        let run = PageRun {
            address: 0x10000 + 250 * 4096,
            pages: 12,
            slab: 7,
            size: 64,
            live: 4096,
            quarantined: 0,
            resident: 12 * 4096,
        };
        let window = Picture {
            address: 0x10000,
            bytes: 262 * 4096,
            mapped: true,
            runs: vec![run],
        };
        let page = page("a<b>&", &[window]);
        assert_eq!(page.matches("<title>").count(), 2);
        assert!(
            page.contains("a&lt;b>&amp;")
                && page.starts_with("<svg ")
                && page.ends_with("</svg>\n")
        );
    }

    #[test]
    fn pages_with_nothing_but_a_quarantine_have_a_colour_of_their_own() {
        let run = |live| PageRun {
            address: 0x10000,
            pages: 1,
            slab: 7,
            size: 64,
            live,
            quarantined: 2048,
            resident: 4096,
        };
        assert_eq!(color(&run(0)), "#f0e0a0");
        assert_ne!(color(&run(64)), "#f0e0a0");
        assert!(what(&run(64)).contains("64 B live, 2.0 KiB in a quarantine, 4.0 KiB resident"));
    }
}

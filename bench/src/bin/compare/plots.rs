//! The plots of docs/plots: dots on a logarithmic axis for ratios, bars for a heap that swells, lines for threads.

use crate::results::{peak, time, Figure, Results, RowRuns};
use crate::tables::{over_live, LATENCIES, MOMENTS};
use plotters::coord::types::{RangedCoordf64, RangedCoordusize};
use plotters::coord::Shift;
use plotters::prelude::*;
use slabside_bench::libraries::Library;
use std::error::Error;
use std::ops::Range;
use std::path::Path;

type Drawn = Result<(), Box<dyn Error>>;

/// A colour for each allocator.
const COLOURS: [(&str, RGBColor); 8] = [
    ("slabside", RGBColor(214, 39, 40)),
    ("glibc", RGBColor(127, 127, 127)),
    ("mimalloc2", RGBColor(31, 119, 180)),
    ("mimalloc3", RGBColor(23, 190, 207)),
    ("jemalloc", RGBColor(44, 160, 44)),
    ("tcmalloc", RGBColor(255, 127, 14)),
    ("snmalloc", RGBColor(148, 103, 189)),
    ("rpmalloc", RGBColor(140, 86, 75)),
];

fn colour(library: &Library) -> RGBColor {
    let known = COLOURS.iter().find(|(name, _)| *name == library.name);
    known.map_or(RGBColor(227, 119, 194), |(_, colour)| *colour)
}

/// slabside is drawn larger than the others, by this factor.
fn weight(library: &Library) -> u32 {
    if library.name == "slabside" {
        3
    } else {
        2
    }
}

/// Draws every plot for which there are figures.
pub fn draw(results: &Results, folder: &Path) -> Drawn {
    for (name, plot) in all_dots(results) {
        if !plot.names.is_empty() {
            dots(results, &folder.join(name), &plot)?;
        }
    }
    scale(results, &folder.join("scale.svg"))?;
    swell(results, &folder.join("swell.svg"))
}

/// The plots of dots, by file.
fn all_dots(results: &Results) -> [(&'static str, Dots); 6] {
    let latencies = |title, (_, figure)| rows_as_dots(&results.latencies, title, figure);
    let by_size = "Nanoseconds an operation, by the heap's size";
    [
        ("time.svg", ratios(results, "Time over mimalloc 2", time)),
        (
            "memory.svg",
            ratios(results, "Peak resident bytes over mimalloc 2", peak),
        ),
        (
            "latency_p999.svg",
            latencies("p99.9 of single calls, ns", LATENCIES[1]),
        ),
        (
            "latency_max.svg",
            latencies("Slowest call, ns", LATENCIES[2]),
        ),
        ("heap.svg", rows_as_dots(&results.heaps, by_size, time)),
        ("overhead.svg", overhead(results)),
    ]
}

/// A plot of dots: a line for each name, a dot for each allocator on it.
struct Dots {
    title: String,
    names: Vec<String>,
    /// By name, then allocator.
    values: Vec<Vec<Option<f64>>>,
}

fn ratios(results: &Results, title: &str, figure: Figure) -> Dots {
    let base = results.place("mimalloc2").unwrap_or(0);
    let ratio = |row: &RowRuns| {
        let medians = row.medians(figure);
        medians
            .iter()
            .map(|value| Some((*value)? / medians[base]?))
            .collect()
    };
    let names = results
        .rows
        .iter()
        .map(|row| row.row.name.to_owned())
        .collect();
    Dots {
        title: title.to_owned(),
        names,
        values: results.rows.iter().map(ratio).collect(),
    }
}

fn rows_as_dots(rows: &[RowRuns], title: &str, figure: Figure) -> Dots {
    let names = rows.iter().map(|row| row.row.name.to_owned()).collect();
    Dots {
        title: title.to_owned(),
        names,
        values: rows.iter().map(|row| row.medians(figure)).collect(),
    }
}

fn overhead(results: &Results) -> Dots {
    let names = results
        .overheads
        .iter()
        .map(|case| format!("{} of {}", case.count, case.mix))
        .collect();
    let all = 0..results.allocators.len();
    let values = results.overheads.iter().map(|case| {
        all.clone()
            .map(|place| over_live(results, case, place))
            .collect()
    });
    Dots {
        title: "Resident bytes over live bytes".to_owned(),
        names,
        values: values.collect(),
    }
}

/// The range that holds all values that are above zero.
fn range(values: &[Vec<Option<f64>>]) -> Range<f64> {
    let known = || {
        values
            .iter()
            .flatten()
            .flatten()
            .copied()
            .filter(|value| *value > 0.0)
    };
    let low = known().min_by(f64::total_cmp).unwrap_or(1.0);
    let high = known().max_by(f64::total_cmp).unwrap_or(1.0);
    low / 1.2..high * 1.2
}

/// A number on a logarithmic axis.
fn magnitude(value: &f64) -> String {
    match *value {
        millions if millions >= 1e6 => format!("{}M", millions / 1e6),
        thousands if thousands >= 1e3 => format!("{}k", thousands / 1e3),
        small => format!("{small}"),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn area(path: &Path, size: (u32, u32)) -> Result<Area<'_>, Box<dyn Error>> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

/// A legend along the upper edge. The rest of the area is returned.
fn legend<'a>(results: &Results, area: &Area<'a>) -> Result<Area<'a>, Box<dyn Error>> {
    let (top, rest) = area.split_vertically(24);
    for (place, library) in results.allocators.iter().enumerate() {
        let x = 120 + 95 * place as i32;
        top.draw(&Circle::new((x, 12), 5, colour(library).filled()))?;
        top.draw(&Text::new(
            library.name.clone(),
            (x + 9, 6),
            ("sans-serif", 13),
        ))?;
    }
    Ok(rest)
}

fn dots(results: &Results, path: &Path, dots: &Dots) -> Drawn {
    let count = dots.names.len();
    let root = area(path, (900, 110 + 22 * count as u32))?;
    let body = legend(results, &root)?;
    let mut chart = ChartBuilder::on(&body)
        .caption(&dots.title, ("sans-serif", 16))
        .margin_right(30)
        .set_label_area_size(LabelAreaPosition::Left, 130)
        .set_label_area_size(LabelAreaPosition::Bottom, 30)
        .build_cartesian_2d(range(&dots.values).log_scale(), -0.5..count as f64 - 0.5)?;
    let name = |y: &f64| name_at(&dots.names, *y);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(2 * count + 1)
        .y_label_formatter(&name)
        .x_labels(12)
        .x_label_formatter(&magnitude)
        .draw()?;
    chart.draw_series((0..count).map(|line| {
        PathElement::new(
            ends(&dots.values[line], height(count, line)),
            BLACK.mix(0.15),
        )
    }))?;
    for place in (0..results.allocators.len()).rev() {
        let library = &results.allocators[place];
        let dot = |line: usize| {
            Some(Circle::new(
                (dots.values[line][place]?, height(count, line)),
                2 * weight(library),
                colour(library).filled(),
            ))
        };
        chart.draw_series((0..count).filter_map(dot))?;
    }
    root.present()?;
    Ok(())
}

/// Where a line lies: the first one at the top.
fn height(count: usize, line: usize) -> f64 {
    (count - 1 - line) as f64
}

/// The label at a height. Only whole heights have one.
fn name_at(names: &[String], y: f64) -> String {
    let whole = y.fract() == 0.0 && y >= 0.0;
    let name = names
        .len()
        .checked_sub(1 + y.max(0.0) as usize)
        .and_then(|line| names.get(line));
    name.filter(|_| whole).cloned().unwrap_or_default()
}

/// A thin line from the least to the greatest value of a line of dots.
fn ends(values: &[Option<f64>], y: f64) -> Vec<(f64, f64)> {
    let known = values
        .iter()
        .flatten()
        .copied()
        .filter(|value| *value > 0.0);
    let low = known.clone().min_by(f64::total_cmp);
    let high = known.max_by(f64::total_cmp);
    low.into_iter().chain(high).map(|x| (x, y)).collect()
}

/// The largest of the known values, 1 at least: where an axis ends.
fn largest(lines: &[Vec<Option<f64>>]) -> f64 {
    let known = lines.iter().flatten().flatten().copied();
    known.fold(1.0, f64::max)
}

/// Bars of a heap that swells: three moments, a bar an allocator.
fn swell(results: &Results, path: &Path) -> Drawn {
    let Some(row) = results.rows.iter().find(|row| row.row.is_swell()) else {
        return Ok(());
    };
    let megabytes = MOMENTS.map(|(_, figure)| {
        row.medians(figure)
            .iter()
            .map(|bytes| bytes.map(|bytes| bytes / 1e6))
            .collect::<Vec<_>>()
    });
    let most = largest(&megabytes);
    let root = area(path, (900, 330))?;
    let body = legend(results, &root)?;
    let mut chart = ChartBuilder::on(&body)
        .caption(
            "Resident memory: a heap grows to 80 MB, and all of it is freed",
            ("sans-serif", 16),
        )
        .margin_right(30)
        .set_label_area_size(LabelAreaPosition::Left, 50)
        .set_label_area_size(LabelAreaPosition::Bottom, 30)
        .build_cartesian_2d(0.0..MOMENTS.len() as f64, 0.0..most * 1.05)?;
    let moment = |x: &f64| {
        MOMENTS
            .get(*x as usize)
            .filter(|_| x.fract() == 0.5)
            .map_or(String::new(), |(name, _)| name.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(2 * MOMENTS.len() + 1)
        .x_label_formatter(&moment)
        .y_label_formatter(&|megabytes| format!("{megabytes:.0} MB"))
        .draw()?;
    let count = results.allocators.len();
    let bar = |moment: usize, place: usize| {
        let left = moment as f64 + 0.1 + 0.8 * place as f64 / count as f64;
        let corners = [
            (left, 0.0),
            (
                left + 0.7 / count as f64,
                megabytes[moment][place].unwrap_or(0.0),
            ),
        ];
        Rectangle::new(corners, colour(&results.allocators[place]).filled())
    };
    chart.draw_series(
        (0..MOMENTS.len())
            .flat_map(|moment| (0..count).map(move |place| (moment, place)))
            .map(|(moment, place)| bar(moment, place)),
    )?;
    root.present()?;
    Ok(())
}

type Lines<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordusize, RangedCoordf64>>;

/// Millions of operations a second by the number of threads.
fn scale(results: &Results, path: &Path) -> Drawn {
    let rows: Vec<_> = results
        .rows
        .iter()
        .filter(|row| row.row.question == "scale")
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let rates: Vec<Vec<_>> = rows
        .iter()
        .map(|row| {
            row.medians(time)
                .iter()
                .map(|nanos| nanos.map(|nanos| 1e3 / nanos))
                .collect()
        })
        .collect();
    let most = largest(&rates);
    let root = area(path, (900, 330))?;
    let body = legend(results, &root)?;
    let mut chart = ChartBuilder::on(&body)
        .caption(
            "Millions of operations a second, by threads",
            ("sans-serif", 16),
        )
        .margin_right(30)
        .set_label_area_size(LabelAreaPosition::Left, 50)
        .set_label_area_size(LabelAreaPosition::Bottom, 30)
        .build_cartesian_2d(0..rows.len() - 1, 0.0..most * 1.05)?;
    let threads = |x: &usize| {
        rows.get(*x).map_or(String::new(), |row| {
            row.row.name.trim_start_matches("scale-").to_owned()
        })
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(rows.len())
        .x_label_formatter(&threads)
        .draw()?;
    for place in (0..results.allocators.len()).rev() {
        line(
            &mut chart,
            &results.allocators[place],
            rates.iter().map(|row| row[place]),
        )?;
    }
    root.present()?;
    Ok(())
}

fn line(chart: &mut Lines, library: &Library, rates: impl Iterator<Item = Option<f64>>) -> Drawn {
    let points = rates.enumerate().filter_map(|(x, rate)| Some((x, rate?)));
    chart.draw_series(LineSeries::new(
        points,
        colour(library).stroke_width(weight(library)),
    ))?;
    Ok(())
}

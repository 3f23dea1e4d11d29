//! What was measured, and the figures that are made of it: medians, ratios, geometric means.

use slabside_bench::cachegrind::Cost;
use slabside_bench::child::Run;
use slabside_bench::instructions::Counts;
use slabside_bench::libraries::Library;
use slabside_bench::overhead::Stage;
use slabside_bench::rows::Row;

/// The runs of one row: a list of rounds for each allocator.
pub struct RowRuns {
    /// Which row.
    pub row: &'static Row,
    /// By allocator, then round.
    pub runs: Vec<Vec<Run>>,
    /// Of slabside with a thread in the background, in rows that give back much.
    pub attended: Vec<Run>,
}

/// The bytes beside the live ones for one mix and count.
pub struct Overhead {
    /// Which mix.
    pub mix: &'static str,
    /// How many blocks.
    pub count: usize,
    /// By allocator. None where the run failed.
    pub stages: Vec<Option<Vec<Stage>>>,
}

/// What an operation of one row costs.
pub struct RowCosts {
    /// Which row.
    pub row: &'static Row,
    /// By allocator. None where it does not run under valgrind.
    pub costs: Vec<Option<Cost>>,
}

/// All measurements. Lists by allocator are in the order of `allocators`.
pub struct Results {
    /// The allocators.
    pub allocators: Vec<Library>,
    /// Times and resident bytes.
    pub rows: Vec<RowRuns>,
    /// Runs in which each call was timed.
    pub latencies: Vec<RowRuns>,
    /// Times against the size of the heap.
    pub heaps: Vec<RowRuns>,
    /// Bytes beside the live ones.
    pub overheads: Vec<Overhead>,
    /// Counts of the rows' operations.
    pub counts: Vec<RowCosts>,
    /// Instructions of single calls. None where they could not be counted.
    pub instructions: Vec<Option<Counts>>,
}

/// The middle of some values. The mean of the two middle ones of an even number. None of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The geometric mean. None of none.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

/// A figure of one run.
pub type Figure = fn(&Run) -> f64;

/// Nanoseconds an operation.
pub fn time(run: &Run) -> f64 {
    run.outcome.nanos_per_op()
}

/// Most bytes resident at a time.
pub fn peak(run: &Run) -> f64 {
    run.peak as f64
}

impl RowRuns {
    /// The median of a figure over the rounds, by allocator. None where all runs failed.
    pub fn medians(&self, figure: Figure) -> Vec<Option<f64>> {
        self.runs
            .iter()
            .map(|runs| median(runs.iter().map(figure).collect()))
            .collect()
    }

    /// The least of a figure among the allocators at the given places, with its allocator's place.
    pub fn least(&self, figure: Figure, places: &[usize]) -> Option<(usize, f64)> {
        let medians = self.medians(figure);
        let known = places
            .iter()
            .filter_map(|&place| Some((place, medians[place]?)));
        known.min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Results {
    /// The place of an allocator in the lists.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.allocators
            .iter()
            .position(|library| library.name == name)
    }

    /// The places of all allocators but slabside.
    pub fn peers(&self) -> Vec<usize> {
        (0..self.allocators.len())
            .filter(|&place| !self.allocators[place].name.starts_with("slabside"))
            .collect()
    }

    /// The places of those allocators among `names` that were measured.
    pub fn places(&self, names: &[&str]) -> Vec<usize> {
        names.iter().filter_map(|name| self.place(name)).collect()
    }

    /// The ratios of a figure of one allocator to another's, over all rows.
    pub fn ratios(&self, figure: Figure, (one, other): (usize, usize)) -> Vec<f64> {
        let ratio = |row: &RowRuns| {
            let medians = row.medians(figure);
            Some(medians[one]? / medians[other]?)
        };
        self.rows.iter().filter_map(ratio).collect()
    }

    /// The rows in which the figure of the allocator at `one` is more than `limit` times the least of those at
    /// `places`: row, ratio and who has the least. Worst first.
    pub fn behind(
        &self,
        figure: Figure,
        one: usize,
        places: &[usize],
        limit: f64,
    ) -> Vec<(&'static str, f64, usize)> {
        let ratio = |row: &RowRuns| {
            let (best, least) = row.least(figure, places)?;
            Some((row.row.name, row.medians(figure)[one]? / least, best))
        };
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(ratio)
            .filter(|&(_, ratio, _)| ratio > limit)
            .collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-12);
    }
}

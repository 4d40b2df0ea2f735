//! How many distinct values a column has, guessed from what can be had without decoding: the sizes of a few
//! dictionaries, the statistics of all row groups.
//!
//! Invariants:
//! 1. At most [`SAMPLES`] small reads a column, and nothing is allocated that grows with the file.
//! 2. It is a hint: whatever cannot be read or parsed here means "unknown", and shows when the column is read.
//!
//! Must not know: plans, predicates.

use super::footer::Bound;
use super::page::dictionary_size;
use super::table_file::{Place, TableFile};

/// Row groups whose dictionaries are looked at.
const SAMPLES: usize = 3;
/// Writers give a dictionary up when it reaches about 1 MiB.
const FULL_DICTIONARY_BYTES: u32 = 1_000_000;
/// Enough for any dictionary page's header.
const HEADER_BYTES: usize = 64;

/// What one row group says of a column.
struct Sample {
    rows: f64,
    distinct: f64,
    min: Option<f64>,
    max: Option<f64>,
}

/// About how many distinct values column `column` (a single leaf) has in all files; `None` if nothing tells.
/// `range` is how many values there could be between the least and the greatest.
pub(super) fn estimate(files: &[TableFile], column: usize, range: Option<f64>) -> Option<u64> {
    let total_rows: f64 = files.iter().map(|f| f.file.footer.rows() as f64).sum();
    let most = range.unwrap_or(f64::INFINITY).min(total_rows);
    let guessed = from_dictionaries(files, column, total_rows);
    // Values that were not worth a dictionary hardly repeat.
    let estimate = guessed.or(range.map(|_| most))?.min(most);
    Some(estimate.round().max(1.0) as u64)
}

fn from_dictionaries(files: &[TableFile], column: usize, total_rows: f64) -> Option<f64> {
    let groups: Vec<(&TableFile, usize)> = files
        .iter()
        .flat_map(|file| (0..file.file.footer.row_groups()).map(move |group| (file, group)))
        .filter(|(file, group)| file.file.footer.row_group_rows[*group] > 0)
        .collect();
    let last = groups.len().checked_sub(1)?;
    let mut picked: Vec<usize> = (0..SAMPLES).map(|i| last * i / (SAMPLES - 1)).collect();
    picked.dedup();
    let samples: Vec<Sample> =
        picked.iter().map(|&at| sample(groups[at].0, groups[at].1, column)).collect::<Option<_>>()?;
    let rows: f64 = samples.iter().map(|s| s.rows).sum();
    let distinct: f64 = samples.iter().map(|s| s.distinct).sum();
    if are_apart(&samples) {
        // Row groups share no values: they add up.
        return Some(distinct / rows * total_rows);
    }
    let count = samples.len() as f64;
    Some(population(distinct / count, rows / count).min(total_rows))
}

fn sample(placed: &TableFile, group: usize, column: usize) -> Option<Sample> {
    let file = &placed.file;
    let layout = placed.layout(column)?;
    let is_same = matches!(placed.place(column), Place::Same(_));
    let chunk = file.footer.chunk(group, layout.leaves.start);
    if !chunk.has_dictionary {
        return None;
    }
    let mut header = [0; HEADER_BYTES];
    let bytes = HEADER_BYTES.min(usize::try_from(chunk.compressed_bytes).unwrap_or(HEADER_BYTES));
    file.read.read_exact_at(chunk.start, &mut header[..bytes]).ok()?;
    let number = |bound| match bound {
        // Others may be of another scale.
        Bound::Int(value) if is_same => Some(value as f64),
        _ => None,
    };
    let nulls = chunk.null_count().unwrap_or(0);
    let rows = file.footer.row_group_rows[group].saturating_sub(nulls).max(1) as f64;
    // A full dictionary was given up: the values after it hardly repeat either.
    let distinct = match dictionary_size(&header[..bytes])? {
        (_, size) if size >= FULL_DICTIONARY_BYTES => rows,
        (values, _) => f64::from(values).max(1.0),
    };
    Some(Sample { rows, distinct, min: number(chunk.min), max: number(chunk.max) })
}

/// Whether the value ranges of several row groups do not overlap: the table is ordered by the column, or by something
/// it follows.
fn are_apart(samples: &[Sample]) -> bool {
    samples.len() > 1
        && samples.windows(2).all(|pair| match (pair[0].min, pair[0].max, pair[1].min, pair[1].max) {
            (Some(min), Some(max), Some(next_min), Some(next_max)) => max < next_min || next_max < min,
            _ => false,
        })
}

/// How many values there must be for `rows` drawn from them at random to have `distinct` different ones: the `n` with
/// `n (1 - exp(-rows / n)) = distinct`.
fn population(distinct: f64, rows: f64) -> f64 {
    if distinct >= rows * 0.98 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (distinct, distinct * 2.0);
    let seen = |n: f64| n * (1.0 - (-rows / n).exp());
    while seen(high) < distinct {
        high *= 2.0;
    }
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if seen(middle) < distinct { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populations_are_found_from_samples() {
        assert!((population(7.0, 100_000.0) - 7.0).abs() < 0.01);
        // 100,000 draws from 200,000 values show about 78,694 of them.
        assert!((population(78_694.0, 100_000.0) / 200_000.0 - 1.0).abs() < 0.01);
        assert!(population(100_000.0, 100_000.0).is_infinite());
    }

    #[test]
    fn only_ranges_that_do_not_meet_are_apart() {
        let sample = |min: f64, max: f64| Sample { rows: 1.0, distinct: 1.0, min: Some(min), max: Some(max) };
        assert!(are_apart(&[sample(0.0, 4.0), sample(5.0, 9.0)]));
        assert!(are_apart(&[sample(5.0, 9.0), sample(0.0, 4.0)]));
        assert!(!are_apart(&[sample(0.0, 5.0), sample(5.0, 9.0)]));
        assert!(!are_apart(&[sample(0.0, 5.0)]));
    }
}

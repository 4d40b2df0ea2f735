//! Where the values of a column ascend from one row group, or page, to the next: pieces of the table that have no value in
//! common but where one ends and another begins.
//!
//! Owns: [`is_clustered`], [`cut`].
//!
//! Invariants:
//! 1. No value strictly within one piece's bounds is in another piece. So it is between row groups, by their statistics,
//!    and row groups are cut only between pages of which the same is true.
//! 2. How rows are mixed within a page or a piece does not matter.

use super::page_index::{PageInts, page_ints};
use super::prune::ColumnRange;
use super::scan::ScanColumn;
use super::table_file::TableFile;
use crate::data::{Cluster, DataType};
use crate::mem::Pool;
use std::ops::Range;

/// So many row groups feed all lanes, even if none is cut.
const MANY_ROW_GROUPS: usize = 16;
/// So many show that values ascend, where page indexes promise that row groups can be cut.
const FEW_ROW_GROUPS: usize = 4;

/// Whether the row groups of `files` have no values of a column in common but at their ends, and there are enough for
/// several lanes.
pub(super) fn is_clustered(files: &[TableFile], column: usize, data_type: &DataType) -> bool {
    let mut bounds = Vec::new();
    let mut has_pages = true;
    for file in files {
        for row_group in 0..file.file.footer.row_groups() {
            let Some(range) = ColumnRange::of_row_group(file, row_group, column, data_type) else {
                return false;
            };
            if range.null_count == Some(range.rows) {
                continue;
            }
            let Some(ints) = range.ints() else { return false };
            bounds.push(ints);
            has_pages &= file.flat_chunk(row_group, column).is_some_and(|chunk| chunk.column_index.bytes > 0);
        }
    }
    bounds.sort_unstable();
    let least = if has_pages { FEW_ROW_GROUPS } else { MANY_ROW_GROUPS };
    bounds.len() >= least && bounds.windows(2).all(|pair| pair[0].1 <= pair[1].0)
}

/// The pieces of a row group, of about `most_rows` rows where its pages allow that, each with the bounds of its values.
pub(super) fn cut(
    file: &TableFile,
    row_group: usize,
    column: &ScanColumn,
    most_rows: u64,
    pool: &Pool,
) -> Vec<(Range<u64>, Cluster)> {
    let rows = file.file.footer.row_group_rows[row_group];
    let range = ColumnRange::of_row_group(file, row_group, column.column, &column.field.data_type);
    let ints = range.and_then(|range| range.ints());
    let whole = ints.map_or(Cluster::NONE, |(least, greatest)| Cluster { least, greatest });
    let pages = if most_rows < rows { page_ints(file, row_group, column, pool) } else { None };
    let Some(pages) = pages else { return vec![(0..rows, whole)] };
    // Only of the row group's own bounds it is known that no other row group goes beyond them.
    let within = |(rows, piece): (Range<u64>, Cluster)| {
        let (least, greatest) = (piece.least.max(whole.least), piece.greatest.min(whole.greatest));
        (rows, Cluster { least, greatest })
    };
    cut_between(&pages, rows, most_rows).into_iter().map(within).collect()
}

/// Cuts `rows` rows between pages after which no value is less than one before.
fn cut_between(pages: &[PageInts], rows: u64, most_rows: u64) -> Vec<(Range<u64>, Cluster)> {
    // The least value of each page and all behind it.
    let mut least_from = vec![i64::MAX; pages.len() + 1];
    for (at, page) in pages.iter().enumerate().rev() {
        least_from[at] = page.bounds.map_or(i64::MAX, |(least, _)| least).min(least_from[at + 1]);
    }
    let mut pieces = Vec::new();
    let (mut start, mut cluster, mut greatest) = (0, Cluster::NONE, i64::MIN);
    for (at, page) in pages.iter().enumerate() {
        if let Some((low, high)) = page.bounds {
            cluster = Cluster { least: cluster.least.min(low), greatest: cluster.greatest.max(high) };
            greatest = greatest.max(high);
        }
        let end = pages.get(at + 1).map_or(rows, |next| next.first_row);
        let is_enough = end - start >= most_rows && (rows - end) * 2 >= most_rows;
        if end == rows || is_enough && greatest <= least_from[at + 1] {
            pieces.push((start..end, cluster));
            (start, cluster) = (end, Cluster::NONE);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bounds: &[Option<(i64, i64)>], most_rows: u64) -> Vec<(Range<u64>, i64, i64)> {
        let page = |(at, bounds): (usize, &Option<(i64, i64)>)| PageInts {
            first_row: at as u64 * 10,
            bounds: *bounds,
        };
        let pages: Vec<PageInts> = bounds.iter().enumerate().map(page).collect();
        let cut = cut_between(&pages, bounds.len() as u64 * 10, most_rows);
        cut.into_iter().map(|(rows, cluster)| (rows, cluster.least, cluster.greatest)).collect()
    }

    #[test]
    fn row_groups_are_cut_between_pages_that_ascend() {
        let ascending = [Some((1, 5)), Some((5, 8)), Some((8, 9)), Some((10, 12))];
        assert_eq!(pieces(&ascending, 10), [(0..10, 1, 5), (10..20, 5, 8), (20..30, 8, 9), (30..40, 10, 12)]);
        assert_eq!(pieces(&ascending, 20), [(0..20, 1, 8), (20..40, 8, 12)]);
        assert_eq!(pieces(&ascending, 100), [(0..40, 1, 12)]);
        // A short rest goes with the piece before.
        assert_eq!(pieces(&ascending, 30), [(0..40, 1, 12)]);
    }

    #[test]
    fn pages_that_overlap_are_not_parted() {
        // The third page has values of the first.
        let mixed = [Some((1, 5)), Some((6, 8)), Some((2, 9)), Some((9, 12)), Some((20, 30))];
        assert_eq!(pieces(&mixed, 10), [(0..30, 1, 9), (30..40, 9, 12), (40..50, 20, 30)]);
        let descending = [Some((20, 30)), Some((10, 20)), Some((1, 9))];
        assert_eq!(pieces(&descending, 10), [(0..30, 1, 30)]);
    }

    #[test]
    fn pages_of_nulls_are_of_any_piece() {
        let nulls = [None, Some((1, 5)), None, Some((6, 8))];
        assert_eq!(pieces(&nulls, 20), [(0..20, 1, 5), (20..40, 6, 8)]);
        let Cluster { least, greatest } = Cluster::NONE;
        assert_eq!(pieces(&[None, None], 10), [(0..10, least, greatest), (10..20, least, greatest)]);
    }
}

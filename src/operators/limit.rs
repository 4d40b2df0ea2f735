//! Skips rows, and stops the pipeline once enough have passed.

use crate::data::Batch;
use crate::error::Result;
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::mem::Knobs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The rows after the first `skip`, at most `fetch` of them, over all lanes together. Which rows these are is up to
/// the order in which lanes come; with one lane it is the order of its input.
pub(crate) fn limit(skip: u64, fetch: Option<u64>) -> TransformBox {
    TransformBox::new(Limit { skip, end: fetch.map_or(u64::MAX, |fetch| skip.saturating_add(fetch)) })
}

/// Passes rows number `skip..end`.
struct Limit {
    skip: u64,
    end: u64,
}

impl Transform for Limit {
    /// Rows seen so far, by all lanes: a lane takes the numbers of its rows from here.
    type Shared = AtomicU64;
    type Local = ();

    fn name(&self) -> String {
        "Limit".to_owned()
    }

    fn need(&self, _knobs: &Knobs) -> Need {
        // A slice copies at most the bitmaps of a batch, into what the batch's maker left spare.
        Need::default()
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<AtomicU64> {
        Ok(AtomicU64::new(0))
    }

    fn local(&self, _shared: &AtomicU64, _cx: &LaneCx<'_>) -> Result<()> {
        Ok(())
    }

    fn push(&self, seen: &AtomicU64, _local: &mut (), batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let rows = batch.rows() as u64;
        let first = seen.fetch_add(rows, Relaxed);
        let from = self.skip.clamp(first, first + rows) - first;
        let to = self.end.clamp(first, first + rows) - first;
        let passed = if from == 0 && to == rows {
            Some(batch)
        } else if from < to {
            Some(batch.slice(from as usize, (to - from) as usize, cx.account)?)
        } else {
            None
        };
        Ok(match passed {
            passed if first + rows >= self.end => Output::Done(passed),
            Some(batch) => Output::Emit(batch),
            None => Output::NeedInput,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, ints};
    use super::*;

    /// Pushes batches of ten rows until done; returns the values passed and the number of batches taken.
    fn run(skip: u64, fetch: Option<u64>) -> (Vec<i64>, usize) {
        let harness = Harness::new(16 << 20);
        let cx = harness.lane();
        let end = fetch.map_or(u64::MAX, |fetch| skip.saturating_add(fetch));
        let (transform, shared) = (Limit { skip, end }, AtomicU64::new(0));
        let mut passed = Vec::new();
        let mut take = |batch: &Batch| passed.extend(harness.rows(batch).iter().filter_map(|row| row[0]));
        for taken in 0..5 {
            let input = ints(&harness, (0..20).map(|i| Some(taken as i64 * 10 + i / 2)));
            let input = harness.select(input, &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
            match transform.push(&shared, &mut (), input, &cx).expect("no error") {
                Output::NeedInput => {}
                Output::Emit(batch) => take(&batch),
                Output::Done(last) => {
                    last.iter().for_each(take);
                    return (passed, taken + 1);
                }
                other => panic!("{other:?}"),
            }
        }
        (passed, 5)
    }

    #[test]
    fn windows_within_and_across_batches() {
        assert_eq!(run(0, Some(3)), ((0..3).collect(), 1));
        assert_eq!(run(0, Some(10)), ((0..10).collect(), 1));
        assert_eq!(run(5, Some(11)), ((5..16).collect(), 2));
        assert_eq!(run(10, Some(5)), ((10..15).collect(), 2));
        assert_eq!(run(47, None), ((47..50).collect(), 5));
        assert_eq!(run(60, None), (vec![], 5));
        assert_eq!(run(3, Some(0)), (vec![], 1));
        assert_eq!(run(u64::MAX, Some(u64::MAX)), (vec![], 5));
    }
}

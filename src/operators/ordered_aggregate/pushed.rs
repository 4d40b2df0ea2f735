//! A batch that was pushed, and how far it is done with.

use super::carried::{BatchValues, Carried};
use super::counts::Counts;
use crate::data::{Batch, BufMut, FlatVector, Vector};

/// A batch, and how far it is done with. Each step can be repeated after a refusal.
pub(super) struct Pushed {
    pub(super) batch: Batch,
    pub(super) seen: Option<Seen>,
    /// Whether the rows of the group carried are counted in.
    pub(super) is_added: bool,
    /// The row of the group carried, which ends here.
    pub(super) ended: Option<Batch>,
    /// The rows of groups that lie within the batch.
    pub(super) within: Option<Batch>,
    /// The group that does not end here.
    pub(super) next: Option<Carried>,
}

/// What is known of the rows of a batch.
pub(super) struct Seen {
    pub(super) groups: Vec<Vector>,
    pub(super) held: Vec<FlatVector>,
    pub(super) counts: Counts,
    /// Where groups begin.
    pub(super) starts: BufMut<u32>,
    pub(super) rows: usize,
}

/// A batch, with what is known of its rows.
pub(super) struct Rows<'a> {
    pub(super) groups: &'a [Vector],
    pub(super) values: BatchValues<'a>,
}

impl Pushed {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, seen: None, is_added: false, ended: None, within: None, next: None }
    }
}

impl Rows<'_> {
    /// The end of the values that count, of the rows from `start` to `end` of a group: nulls come last.
    pub(super) fn counted(&self, start: usize, end: usize) -> usize {
        let Some(validity) = &self.values.columns[0].validity else { return end };
        let (mut from, mut to) = (start, end);
        while from < to {
            let middle = from.midpoint(to);
            if validity.get(middle) { from = middle + 1 } else { to = middle }
        }
        from
    }
}

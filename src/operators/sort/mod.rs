//! Ordering rows: a breaker.
//!
//! Every lane collects rows, and whenever it has a run's worth of them sorts them into a run; the source merges the
//! runs of all lanes. Rows are compared by keys of bytes ([`keys`]), so that neither sorting nor merging knows types.
//!
//! With a small fetch each lane keeps only rows that can be among the first: a run is cut to that many rows, runs are
//! merged before they become many, and rows behind the last row of any full run are dropped before they are copied.
//!
//! Invariants:
//! 1. Rows of a run are in key order, rows of equal keys in the order in which the lane took them.
//! 2. A run's chunks hold their rows and keys by themselves: the merge reads each chunk once, from first row to last,
//!    and drops it behind itself. This is also the form in which runs can be spilled and read back block by block.
//! 3. With a fetch of `n`, a row is dropped only if `n` rows that do not come after it are kept somewhere.
//!
//! Everything is charged to the lanes' accounts; runs keep their slabs charged after their lane has ended. Runs do not
//! spill yet: what does not fit ends in a memory error.

mod keys;
mod merge;
mod run;
mod sink;
mod source;

use crate::data::DataType;
use crate::exec::{Handoff, SinkBox, SourceBox};
use crate::expr::{ColumnId, Expr};
use std::sync::Arc;

/// One key of an order.
#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    /// What to order by.
    pub(crate) expr: Expr,
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before values, whichever way values go.
    pub(crate) nulls_first: bool,
}

/// What to sort and how.
#[derive(Clone, Debug)]
pub(crate) struct SortSpec {
    /// Columns of the input, which are those of the output.
    pub(crate) layout: Vec<ColumnId>,
    /// Their types.
    pub(crate) types: Vec<DataType>,
    /// Most significant first.
    pub(crate) keys: Vec<SortKey>,
    /// Only the first so many rows are wanted.
    pub(crate) fetch: Option<u64>,
}

/// A sink that takes rows and a source that emits them in order, on a single lane.
pub(crate) fn sort(spec: SortSpec) -> (SinkBox, SourceBox) {
    let (sink, source) = pair(spec);
    (SinkBox::new(sink), SourceBox::new(source))
}

fn pair(spec: SortSpec) -> (sink::SortSink, source::SortSource) {
    let spec = Arc::new(spec);
    let handoff = Handoff::new();
    (sink::SortSink::new(Arc::clone(&spec), handoff.clone()), source::SortSource::new(spec, handoff))
}

impl SortSpec {
    /// The name of both halves in plans and metrics.
    fn name(&self) -> String {
        if self.fetch.is_some() { "TopN".to_owned() } else { "Sort".to_owned() }
    }

    /// Bytes of a row in flat columns, strings at the size of their view.
    fn row_bytes(&self) -> usize {
        self.types.iter().map(DataType::value_bytes).sum()
    }
}

#[cfg(test)]
mod tests;

//! Rows in flight.

use super::buffer::Buf;
use super::vector::Vector;
use crate::mem::{Account, Denied};

/// Rows of a batch that are alive: ascending positions.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    indices: Buf<u32>,
}

impl Selection {
    /// Wraps ascending positions.
    pub(crate) fn new(indices: Buf<u32>) -> Self {
        debug_assert!(indices.windows(2).all(|w| w[0] < w[1]), "selections ascend");
        Self { indices }
    }

    /// The positions.
    pub(crate) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The positions, taken out.
    pub(crate) fn into_indices(self) -> Buf<u32> {
        self.indices
    }

    /// Number of rows alive.
    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The first `len` of them.
    pub(crate) fn truncated(&self, start: usize, len: usize) -> Self {
        Self { indices: self.indices.slice(start, len) }
    }
}

/// Rows of a table of which all that have a value strictly between two come together, on one lane: where the values of a
/// column ascend at large, however they are mixed at small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// No value of the cluster is less.
    pub(crate) least: i64,
    /// No value of the cluster is greater.
    pub(crate) greatest: i64,
}

impl Cluster {
    /// Of rows without values.
    pub(crate) const NONE: Self = Self { least: i64::MAX, greatest: i64::MIN };

    /// Whether all rows with `value` are in this cluster, if any is.
    #[inline]
    pub(crate) fn is_whole(self, value: i64) -> bool {
        self.least < value && value < self.greatest
    }
}

/// Columns of equal length with, perhaps, a selection of their rows: the unit pushed through pipelines.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    columns: Vec<Vector>,
    physical_rows: usize,
    selection: Option<Selection>,
    cluster: Option<Cluster>,
}

impl Batch {
    /// All rows of `columns`, each of length `rows`. A batch without columns still has rows.
    pub(crate) fn new(columns: Vec<Vector>, rows: usize) -> Self {
        debug_assert!(columns.iter().all(|c| c.len() == rows), "columns of a batch are equally long");
        Self { columns, physical_rows: rows, selection: None, cluster: None }
    }

    /// The same rows, said to be of a cluster.
    #[must_use]
    pub(crate) fn with_cluster(mut self, cluster: Option<Cluster>) -> Self {
        self.cluster = cluster;
        self
    }

    /// The cluster its rows are of, if it came from a scan that was asked for clusters.
    pub(crate) fn cluster(&self) -> Option<Cluster> {
        self.cluster
    }

    /// The same columns, of which only `selection` is alive (`None`: all).
    #[must_use]
    pub(crate) fn with_selection(mut self, selection: Option<Selection>) -> Self {
        self.selection = selection;
        self
    }

    /// Other columns over the same rows and selection.
    #[must_use]
    pub(crate) fn with_columns(&self, columns: Vec<Vector>) -> Self {
        Self {
            selection: self.selection.clone(),
            cluster: self.cluster,
            ..Self::new(columns, self.physical_rows)
        }
    }

    /// The columns, over all physical rows.
    pub(crate) fn columns(&self) -> &[Vector] {
        &self.columns
    }

    /// Column `index`.
    pub(crate) fn column(&self, index: usize) -> &Vector {
        &self.columns[index]
    }

    /// Rows of each column, selected or not.
    pub(crate) fn physical_rows(&self) -> usize {
        self.physical_rows
    }

    /// Rows alive.
    pub(crate) fn rows(&self) -> usize {
        self.selection.as_ref().map_or(self.physical_rows, Selection::len)
    }

    /// Which rows are alive; `None` if all are.
    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// Only the rows alive, without a selection.
    pub(crate) fn compact(self, account: &Account) -> Result<Self, Denied> {
        let Some(selection) = &self.selection else { return Ok(self) };
        let gathered = self.columns.iter().map(|c| c.gather(selection.indices(), account));
        let columns = gathered.collect::<Result<_, _>>()?;
        Ok(Self::new(columns, selection.len()).with_cluster(self.cluster))
    }

    /// Rows `start..start + len` of those alive.
    pub(crate) fn slice(&self, start: usize, len: usize, account: &Account) -> Result<Self, Denied> {
        match &self.selection {
            Some(selection) => Ok(self.clone().with_selection(Some(selection.truncated(start, len)))),
            None => {
                let parts = self.columns.iter().map(|c| c.slice(start, len, account));
                Ok(Self::new(parts.collect::<Result<_, _>>()?, len).with_cluster(self.cluster))
            }
        }
    }
}

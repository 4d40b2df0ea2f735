//! Which side of a join is in the table, and what follows from it.
//!
//! Invariants:
//! 1. Spilled rows of either side are flat columns, and, with keys, the word of their key at the end: what was a build row
//!    can be looked up, and what was a probe row can be found.
//! 2. Roles and their reverse give the same rows, in another order.

use super::keys::KeyPlan;
use super::spec::HashJoinKind;
use super::store::FIRST_CHUNK_ROWS;
use crate::data::{DataType, PhysicalType};
use crate::expr::{ColumnId, Expr};
use crate::mem::size_class_bytes;
use std::sync::Arc;

/// A guess at the length of strings, where a size is needed before there are any.
const STRING_BYTES: usize = 32;
pub(super) const PAGE_BYTES: usize = 4096;

/// Where a column that is put together from both sides comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A column of the probe side, by position.
    Probe(usize),
    /// A stored column.
    Build(usize),
    /// The mark.
    Mark,
}

/// A column with its type.
#[derive(Clone)]
pub(super) struct JoinColumn {
    pub(super) origin: Origin,
    pub(super) data_type: DataType,
}

/// What is known of how rows of one side meet those of the other.
pub(super) struct Roles {
    pub(super) kind: HashJoinKind,
    pub(super) keys: Arc<KeyPlan>,
    /// Columns kept of build rows.
    pub(super) stored_types: Vec<DataType>,
    pub(super) probe_types: Vec<DataType>,
    /// The stored column of each key, where words alone do not tell whether keys are equal.
    pub(super) key_columns: Vec<usize>,
    /// The same of probe rows; `None` if a key is not one of their columns.
    pub(super) probe_key_columns: Option<Vec<usize>>,
    pub(super) output: Vec<JoinColumn>,
    pub(super) residual: Vec<Expr>,
    /// What the residual is evaluated over.
    pub(super) residual_layout: Vec<ColumnId>,
    pub(super) residual_columns: Vec<JoinColumn>,
}

impl Roles {
    /// The same join with probe rows in the table; `None` if that cannot give its rows.
    pub(super) fn reversed(&self) -> Option<Self> {
        let swap = |columns: &[JoinColumn]| columns.iter().map(JoinColumn::swapped).collect();
        Some(Self {
            kind: self.kind.reversed()?,
            keys: Arc::clone(&self.keys),
            stored_types: self.probe_types.clone(),
            probe_types: self.stored_types.clone(),
            key_columns: self.probe_key_columns.clone()?,
            probe_key_columns: Some(self.key_columns.clone()),
            output: swap(&self.output),
            residual: self.residual.clone(),
            residual_layout: self.residual_layout.clone(),
            residual_columns: swap(&self.residual_columns),
        })
    }

    /// Whether rows are looked up by key; else every build row is a candidate.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.types.is_empty()
    }

    /// Whether the first match of a probe row tells all.
    pub(super) fn is_settled_by_first_match(&self) -> bool {
        self.residual.is_empty() && self.kind.asks_whether_probe_rows_match()
    }

    /// Whether it counts which probe rows have a match.
    pub(super) fn asks_matches(&self) -> bool {
        self.kind.keeps_probe_rows() || self.kind.asks_whether_probe_rows_match()
    }

    /// Whether it counts for which probe rows the residual is null.
    pub(super) fn asks_unknown(&self) -> bool {
        matches!(self.kind, HashJoinKind::ProbeMark { .. }) && !self.residual.is_empty()
    }

    /// About the bytes of a build row in a table.
    pub(super) fn table_row_bytes(&self) -> usize {
        let columns: usize = self.stored_types.iter().map(|t| column_bytes(t, FIRST_CHUNK_ROWS)).sum();
        // Its word, entry, and slot.
        columns / FIRST_CHUNK_ROWS + 40
    }

    /// What the first chunk of a lane takes, with its part of the directory.
    pub(super) fn store_floor_bytes(&self) -> usize {
        let kinds_of_chunks = if self.kind.keeps_null_keys() { 2 } else { 1 };
        kinds_of_chunks * chunk_bytes(&self.stored_types) + directory_floor_bytes()
    }

    /// What a lane of the probe takes for rows: to be spilled, or of a part of either side.
    pub(super) fn drain_floor_bytes(&self) -> usize {
        (chunk_bytes(&self.probe_types) + directory_floor_bytes()).max(self.store_floor_bytes())
    }
}

impl JoinColumn {
    fn swapped(&self) -> Self {
        let origin = match self.origin {
            Origin::Probe(at) => Origin::Build(at),
            Origin::Build(at) => Origin::Probe(at),
            Origin::Mark => Origin::Mark,
        };
        Self { origin, data_type: self.data_type.clone() }
    }
}

impl HashJoinKind {
    /// The kind that gives the same rows with its sides swapped, if there is one.
    fn reversed(self) -> Option<Self> {
        match self {
            Self::Inner => Some(Self::Inner),
            Self::ProbeOuter => Some(Self::BuildOuter),
            Self::BuildOuter => Some(Self::ProbeOuter),
            Self::FullOuter => Some(Self::FullOuter),
            Self::ProbeSemi => Some(Self::BuildSemi),
            Self::BuildSemi => Some(Self::ProbeSemi),
            Self::ProbeAnti { null_aware: false } => Some(Self::BuildAnti),
            Self::BuildAnti => Some(Self::ProbeAnti { null_aware: false }),
            // What they answer for a row depends on the other side as a whole.
            Self::ProbeAnti { null_aware: true } | Self::ProbeMark { .. } | Self::ProbeSingle => None,
        }
    }
}

/// Words, then entries twice as wide, slots, flags, and what ordering them takes.
fn directory_floor_bytes() -> usize {
    3 * size_class_bytes(FIRST_CHUNK_ROWS * 16) + 3 * PAGE_BYTES
}

/// A least chunk, with its words.
fn chunk_bytes(types: &[DataType]) -> usize {
    types.iter().map(chunk_column_bytes).sum::<usize>() + size_class_bytes(FIRST_CHUNK_ROWS * 8)
}

/// A column of a least chunk. Its strings may take less than they would like: then it is spilled before it is full.
fn chunk_column_bytes(data_type: &DataType) -> usize {
    let strings = match data_type.physical() {
        PhysicalType::View | PhysicalType::Nested => 2 * PAGE_BYTES,
        _ => 0,
    };
    size_class_bytes(FIRST_CHUNK_ROWS * data_type.value_bytes()) + strings + PAGE_BYTES
}

/// About the bytes of a column of `rows` rows.
pub(super) fn column_bytes(data_type: &DataType, rows: usize) -> usize {
    let strings = match data_type.physical() {
        PhysicalType::View | PhysicalType::Nested => size_class_bytes(rows * STRING_BYTES),
        _ => 0,
    };
    size_class_bytes(rows * data_type.value_bytes()) + strings + PAGE_BYTES
}

//! Pairs of rows with equal keys, and the rows that are made of them.

use super::plan::{JoinColumn, Origin, Plan};
use crate::data::key_bits::resize;
use crate::data::{Batch, BufMut, DataType, FlatVector, Scalar, Vector};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};
use std::ops::Range;

/// Pairs of a row of the probe batch and a row of one batch or block of the build side.
pub(super) struct Pairs {
    positions: BufMut<u32>,
    rows: BufMut<u32>,
}

impl Pairs {
    /// None.
    pub(super) const fn new() -> Self {
        Self { positions: BufMut::empty(), rows: BufMut::empty() }
    }

    /// Forgets them and makes room for `most`.
    pub(super) fn restart(&mut self, most: usize, account: &Account) -> Result<(), Denied> {
        resize(&mut self.positions, most, account)?;
        resize(&mut self.rows, most, account)?;
        self.set_len(0);
        Ok(())
    }

    /// Pairs a probe row with build rows from `start` on, to `end` or as far as there is room; where that was.
    pub(super) fn add(&mut self, position: usize, start: usize, end: usize, most: usize) -> usize {
        let from = self.len();
        let count = (end - start).min(most - from);
        self.set_len(from + count);
        self.positions[from..].fill(position as u32);
        for (to, row) in self.rows[from..].iter_mut().zip(start..) {
            *to = row as u32;
        }
        start + count
    }

    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Number of pairs.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Keeps the pairs at ascending `places`.
    pub(super) fn keep(&mut self, places: &[u32]) {
        for (to, &from) in places.iter().enumerate() {
            self.positions[to] = self.positions[from as usize];
            self.rows[to] = self.rows[from as usize];
        }
        self.set_len(places.len());
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.set_len(0);
    }

    fn set_len(&mut self, len: usize) {
        self.positions.set_len(len);
        self.rows.set_len(len);
    }
}

impl Plan {
    /// The pairs `some` as rows of `columns`, which are not of the mark.
    pub(super) fn join(
        columns: &[JoinColumn],
        probe: &[FlatVector],
        build: &[FlatVector],
        pairs: &Pairs,
        some: Range<usize>,
        account: &Account,
    ) -> Result<Batch> {
        let (positions, rows) = (&pairs.positions()[some.clone()], &pairs.rows()[some]);
        let is_whole = |column: &FlatVector| {
            rows.len() == column.len() && positions.iter().zip(0..).all(|(&position, row)| position == row)
        };
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) if is_whole(&probe[at]) => Ok(Vector::Flat(probe[at].clone())),
            Origin::Probe(at) => Ok(Vector::Flat(probe[at].gather(positions, account)?)),
            Origin::Build(at) => Ok(Vector::Flat(build[at].gather(rows, account)?)),
            Origin::Mark => Err(Error::internal("only a mark join has a mark")),
        };
        Ok(Batch::new(columns.iter().map(column).collect::<Result<_>>()?, rows.len()))
    }

    /// Output columns over all rows of `probe`, with nulls for the build side and the mark.
    pub(super) fn probe_columns(&self, probe: &[FlatVector], rows: usize) -> Vec<Vector> {
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) => Vector::Flat(probe[at].clone()),
            Origin::Build(_) | Origin::Mark => nulls(&column.data_type, rows),
        };
        self.output.iter().map(column).collect()
    }

    /// The `rows` of `build`, with nulls for the probe side.
    pub(super) fn build_rows(&self, build: &[FlatVector], rows: &[u32], account: &Account) -> Result<Batch> {
        let column = |column: &JoinColumn| match column.origin {
            Origin::Build(at) => Ok(Vector::Flat(build[at].gather(rows, account)?)),
            Origin::Probe(_) | Origin::Mark => Ok(nulls(&column.data_type, rows.len())),
        };
        Ok(Batch::new(self.output.iter().map(column).collect::<Result<_>>()?, rows.len()))
    }
}

fn nulls(data_type: &DataType, len: usize) -> Vector {
    Vector::Constant { value: Scalar::null(data_type.clone()), len }
}

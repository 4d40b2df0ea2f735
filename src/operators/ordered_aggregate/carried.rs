//! The group that did not end with its batch.

use super::super::held::{HeldMemory, HeldReader, HeldRows};
use super::super::rows::RowsBuilder;
use super::OrderedCall;
use super::counts::Counts;
use super::ranks::Rank;
use crate::data::{Batch, BitmapMut, DataType, FlatVector, Scalar, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::functions::Ordered;

/// See the module.
pub(super) struct Carried {
    /// Its keys, one row each.
    keys: Vec<FlatVector>,
    /// Values that are not null, with their counts, if a number among them tells which are taken.
    pub(super) held: HeldRows,
    /// How often values count together.
    total: u64,
    /// The first value that counts most, and how often.
    most: Option<(FlatVector, u64)>,
}

/// The values of a batch, in the columns that are held of them.
pub(super) struct BatchValues<'a> {
    pub(super) columns: &'a [FlatVector],
    pub(super) types: &'a [DataType],
    pub(super) counts: &'a Counts,
}

impl Carried {
    /// The group of `row`, which has the keys `groups`.
    pub(super) fn new(groups: &[Vector], row: usize, cx: &LaneCx<'_>) -> Result<Self> {
        let keys = copied(groups, row, cx)?;
        Ok(Self { keys, held: HeldRows::default(), total: 0, most: None })
    }

    /// Counts in the values from `start` to `end`, none of which is null; after a refusal it can be called again.
    pub(super) fn add(
        &mut self,
        calls: &[OrderedCall],
        values: &BatchValues<'_>,
        (start, end): (usize, usize),
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        if start == end {
            return Ok(());
        }
        if calls.iter().any(|call| call.kind == Ordered::Mode) {
            let (row, count) = values.counts.most(start, end);
            if self.most.as_ref().is_none_or(|(_, most)| count > *most) {
                self.most = Some((one(&values.columns[0], row, cx)?, count));
            }
        }
        if calls.iter().any(|call| call.kind != Ordered::Mode) {
            self.held.add(values.types, values.columns, (start, end), memory, cx)?;
        }
        self.total += values.counts.total(start, end);
        Ok(())
    }

    /// Its row: keys and results; after a refusal it can be asked for again.
    pub(super) fn finish(
        &mut self,
        calls: &[OrderedCall],
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<Batch> {
        self.held.close()?;
        let rank = |call: &OrderedCall| if self.total == 0 { None } else { call.rank(self.total) };
        let ranks: Vec<Option<Rank>> = calls.iter().map(rank).collect();
        let mut wanted: Vec<u64> = ranks.iter().flatten().flat_map(|rank| [rank.below, rank.above]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let values = self.values_at(&wanted, memory, cx)?;
        let value_at = |at: u64| match wanted.binary_search(&at) {
            Ok(place) => Ok(&values[place]),
            Err(_) => Err(Error::internal("a value was not looked for")),
        };
        let mut columns: Vec<Vector> = self.keys.iter().cloned().map(Vector::Flat).collect();
        for (call, rank) in calls.iter().zip(ranks) {
            let result = match (rank, &self.most) {
                (Some(rank), _) => {
                    let pair = [value_at(rank.below)?, value_at(rank.above)?];
                    call.between(pair, &[rank.weight], BitmapMut::ones(cx.account, 1)?, cx.account)?
                }
                (None, Some((most, _))) if self.total > 0 => Vector::Flat(most.clone()),
                (None, _) => Vector::Constant { value: Scalar::null(call.data_type.clone()), len: 1 },
            };
            columns.push(result);
        }
        Ok(Batch::new(columns, 1))
    }

    /// The values numbered `wanted`, which ascend.
    fn values_at(&self, wanted: &[u64], memory: &HeldMemory, cx: &LaneCx<'_>) -> Result<Vec<FlatVector>> {
        let mut values = Vec::with_capacity(wanted.len());
        let mut reader = HeldReader::default();
        let mut before = 0;
        while values.len() < wanted.len() {
            let Some((_, block)) = reader.next(&self.held, memory, cx)? else {
                return Err(Error::internal("a group has fewer values than were counted"));
            };
            let Some((value, counts)) = block.columns.split_first() else {
                return Err(Error::internal("a value is a column"));
            };
            let counts = counts.first().map(|counts| Vector::Flat(counts.clone()));
            let counts = Counts::new(counts.as_ref(), cx.account)?;
            let end = before + counts.total(0, block.rows);
            while let Some(at) = wanted.get(values.len()).filter(|at| **at < end) {
                let row = counts.row_of(at - before, 0, block.rows);
                // Gathered strings would keep their block in memory.
                values.push(one(value, row, cx)?);
            }
            before = end;
        }
        Ok(values)
    }
}

fn one(column: &FlatVector, row: usize, cx: &LaneCx<'_>) -> Result<FlatVector> {
    let value = copied(&[Vector::Flat(column.clone())], row, cx)?.pop();
    value.ok_or_else(|| Error::internal("a column was copied"))
}

/// A row in memory of the lane's own.
fn copied(columns: &[Vector], row: usize, cx: &LaneCx<'_>) -> Result<Vec<FlatVector>> {
    let Some(first) = columns.first() else { return Ok(Vec::new()) };
    let mut builder = RowsBuilder::with_room(columns.len(), 1);
    builder.append(&Batch::new(columns.to_vec(), first.len()), &[row as u32], cx.account)?;
    builder.take()
}

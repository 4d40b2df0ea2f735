//! The group that did not end with its batch.

use super::super::held::{HeldMemory, HeldReader, HeldRows, made_final};
use super::super::rows::RowsBuilder;
use super::OrderedCall;
use super::ranks::Rank;
use crate::data::{Batch, Bitmap, BitmapMut, DataType, FlatVector, Scalar, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::functions::Ordered;

/// See the module.
pub(super) struct Carried {
    /// Its keys, one row each.
    keys: Vec<FlatVector>,
    /// Values that are not null, if their number tells which are taken.
    held: HeldRows,
    rows: usize,
    runs: Runs,
}

/// The values of a batch.
pub(super) struct Values<'a> {
    pub(super) column: &'a FlatVector,
    pub(super) data_type: &'a DataType,
    /// Which are equal to the one before, if a mode is wanted.
    pub(super) same: Option<&'a Bitmap>,
}

/// Equal values one after the other.
#[derive(Default)]
struct Runs {
    /// The value of the last one, once it has left its batch.
    last: Option<FlatVector>,
    last_rows: usize,
    longest: Option<FlatVector>,
    longest_rows: usize,
}

impl Carried {
    /// The group of `row`, which has the keys `groups`.
    pub(super) fn new(groups: &[Vector], row: usize, cx: &LaneCx<'_>) -> Result<Self> {
        let keys = copied(groups, row, cx).map_err(|error| made_final(error, cx))?;
        Ok(Self { keys, held: HeldRows::default(), rows: 0, runs: Runs::default() })
    }

    /// Counts in the values from `start` to `end`, none of which is null.
    pub(super) fn add(
        &mut self,
        calls: &[OrderedCall],
        values: &Values<'_>,
        (start, end): (usize, usize),
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        if start == end {
            return Ok(());
        }
        self.rows += end - start;
        if let Some(same) = values.same {
            let range = (start, end);
            match self.runs.add(values.column, range, same, cx) {
                // Values that are held may be in the way.
                Err(error) if error.is_refusal() => {
                    self.spill(values.data_type, memory, cx)?;
                    let added = self.runs.add(values.column, range, same, cx);
                    added.map_err(|error| made_final(error, cx))?;
                }
                added => added?,
            }
        }
        if calls.iter().any(|call| call.kind != Ordered::Mode) {
            let (types, columns) =
                (std::slice::from_ref(values.data_type), std::slice::from_ref(values.column));
            self.held.add(types, columns, (start, end), memory, cx)?;
        }
        Ok(())
    }

    /// Brings its values to disk; the bytes freed.
    pub(super) fn spill(
        &mut self,
        data_type: &DataType,
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        self.held.spill(std::slice::from_ref(data_type), memory, cx)
    }

    /// Its row: keys and results.
    pub(super) fn finish(
        mut self,
        calls: &[OrderedCall],
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<Batch> {
        self.held.close()?;
        self.runs.close();
        let rank = |call: &OrderedCall| if self.rows == 0 { None } else { call.rank(self.rows) };
        let ranks: Vec<Option<Rank>> = calls.iter().map(rank).collect();
        let mut wanted: Vec<usize> =
            ranks.iter().flatten().flat_map(|rank| [rank.below, rank.above]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let values = self.values_at(&wanted, memory, cx)?;
        let value_at = |at: usize| match wanted.binary_search(&at) {
            Ok(place) => Ok(&values[place]),
            Err(_) => Err(Error::internal("a value was not looked for")),
        };
        let mut columns: Vec<Vector> = self.keys.into_iter().map(Vector::Flat).collect();
        for (call, rank) in calls.iter().zip(ranks) {
            let result = match (rank, &self.runs.longest) {
                (Some(rank), _) => {
                    let pair = [value_at(rank.below)?, value_at(rank.above)?];
                    call.between(pair, &[rank.weight], BitmapMut::ones(cx.account, 1)?, cx.account)?
                }
                (None, Some(longest)) if self.rows > 0 => Vector::Flat(longest.clone()),
                (None, _) => Vector::Constant { value: Scalar::null(call.data_type.clone()), len: 1 },
            };
            columns.push(result);
        }
        Ok(Batch::new(columns, 1))
    }

    /// The values numbered `wanted`, which ascend.
    fn values_at(&self, wanted: &[usize], memory: &HeldMemory, cx: &LaneCx<'_>) -> Result<Vec<FlatVector>> {
        let mut values = Vec::with_capacity(wanted.len());
        let mut reader = HeldReader::default();
        while values.len() < wanted.len() {
            let Some((before, block)) = reader.next(&self.held, memory, cx)? else {
                return Err(Error::internal("a group has fewer values than were counted"));
            };
            while let Some(at) = wanted.get(values.len()).filter(|at| **at < before + block.rows) {
                let row = (at - before) as u32;
                let value = block.columns.first().ok_or_else(|| Error::internal("a value is a column"))?;
                values.push(value.gather(&[row], cx.account)?);
            }
        }
        Ok(values)
    }
}

impl Runs {
    /// Counts in more values, or, if memory for one of them is refused, none.
    fn add(
        &mut self,
        column: &FlatVector,
        (start, end): (usize, usize),
        same: &Bitmap,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        // The run that goes on.
        let mut first = start;
        while self.last_rows > 0 && first < end && same.get(first) {
            first += 1;
        }
        let last_rows = self.last_rows + first - start;
        if first == end {
            self.last_rows = last_rows;
            return Ok(());
        }
        let is_longest = last_rows > self.longest_rows;
        let mut longest_rows = self.longest_rows.max(last_rows);
        let mut best = None;
        for next in first + 1..end {
            if same.get(next) {
                continue;
            }
            if next - first > longest_rows {
                (best, longest_rows) = (Some(first), next - first);
            }
            first = next;
        }
        let one = |row| Ok::<_, Error>(copied(&[Vector::Flat(column.clone())], row, cx)?.pop());
        let (best, last) = (best.map(one).transpose()?, one(first)?);
        let ended = std::mem::replace(&mut self.last, last);
        self.last_rows = end - first;
        self.longest_rows = longest_rows;
        match best {
            Some(best) => self.longest = best,
            None if is_longest => self.longest = ended,
            None => {}
        }
        Ok(())
    }

    /// Ends the last run.
    fn close(&mut self) {
        if self.last_rows > self.longest_rows {
            (self.longest, self.longest_rows) = (self.last.take(), self.last_rows);
        }
    }
}

/// A row in memory of the lane's own.
fn copied(columns: &[Vector], row: usize, cx: &LaneCx<'_>) -> Result<Vec<FlatVector>> {
    let Some(first) = columns.first() else { return Ok(Vec::new()) };
    let mut builder = RowsBuilder::with_room(columns.len(), 1);
    builder.append(&Batch::new(columns.to_vec(), first.len()), &[row as u32], cx.account)?;
    builder.take()
}

//! Where the rows of a side come from, in order, with their keys.
//!
//! Invariants:
//! 1. Rows come in the order of their keys. What a sort has ordered does; what is only said to be in order is checked,
//!    and an error if it is not.

use super::super::sort::{KeyEncoder, SortSpec};
use super::super::sort::{Keys, Sorted, SortedRows, SortedSide};
use super::cursor::Key;
use crate::data::{Batch, BufMut, FlatVector, StringViews, Values};
use crate::error::{Error, Result};
use crate::exec::{InnerLane, InnerRun, LaneCx, OpenCx, Pull, SourceBox, Wait};
use crate::expr::{EvalCx, Evaluator, Expr};
use crate::mem::{Account, Knobs};

const PAGE_BYTES: usize = 4096;
/// A guess, for floors, of what a key takes.
const KEY_BYTES: usize = 16;

/// Where a side's rows come from.
pub(super) enum SideInput {
    /// From a sort.
    Sorted(SortedSide),
    /// From a source that emits them in order.
    Streamed { source: SourceBox, spec: SortSpec, kept: Vec<usize> },
}

/// The same while it runs, before the lane starts.
pub(super) enum SideRun {
    /// With the memory for its blocks, and for the rows in hand: what one side's strings take is not the other's.
    Sorted {
        blocks: Account,
        rows: Account,
    },
    Streamed(InnerRun),
}

/// The same on the lane.
pub(super) enum SideRows {
    /// With the memory for the rows in hand.
    Sorted(SortedRows, Account),
    Streamed(Box<Streamed>),
}

/// Rows of a source, which get their keys here.
pub(super) struct Streamed {
    lane: InnerLane,
    /// For messages.
    name: String,
    kept: Vec<usize>,
    evaluator: Evaluator,
    encoder: KeyEncoder,
    /// Numbers of the rows of a batch.
    numbers: BufMut<u32>,
    /// The key of the last row, if there was one.
    last: Option<BufMut<u8>>,
}

/// Keys of a batch.
pub(super) enum BatchKeys {
    Views(StringViews),
    Encoded(Keys),
}

/// Rows that come next: kept columns, keys, and how many.
pub(super) struct NextRows {
    pub(super) columns: Vec<FlatVector>,
    pub(super) keys: BatchKeys,
    pub(super) rows: usize,
}

/// What a side answers.
pub(super) enum Next {
    Rows(NextRows),
    Wait(Wait),
    End,
}

impl BatchKeys {
    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::Views(views) => views.get(row),
            Self::Encoded(keys) => keys.get(row),
        }
    }
}

impl SideInput {
    /// Memory of the lane for a batch of its rows, where that is not an account of its own.
    pub(super) fn lane_bytes(&self, knobs: &Knobs) -> usize {
        match self {
            Self::Sorted(_) => 0,
            Self::Streamed { source, spec, .. } => {
                let scratch = Evaluator::scratch_bytes(&key_exprs(spec), knobs.batch_rows);
                let key_bytes = knobs.batch_rows * (spec.keys.len() * KEY_BYTES + 3 * size_of::<u32>());
                // Flattened, at worst, beside what the source holds.
                let batch_bytes = knobs.batch_rows * (spec.row_bytes() + 1) + spec.columns_bytes();
                source.need(knobs).lane_bytes + scratch + key_bytes + batch_bytes + 6 * PAGE_BYTES
            }
        }
    }

    /// Memory of the run.
    pub(super) fn shared_bytes(&self, knobs: &Knobs) -> usize {
        match self {
            Self::Sorted(side) => side.read_floor_bytes(knobs) + Self::batch_bytes(side, knobs),
            Self::Streamed { source, .. } => source.need(knobs).shared_bytes,
        }
    }

    /// Memory for a batch of sorted rows with their keys.
    fn batch_bytes(side: &SortedSide, knobs: &Knobs) -> usize {
        side.batch_bytes(knobs) + knobs.batch_rows * (size_of::<u128>() + KEY_BYTES) + 2 * PAGE_BYTES
    }

    /// Memory to write its rows to disk once more, if that may be.
    pub(super) fn spill_bytes(&self, knobs: &Knobs) -> usize {
        match self {
            Self::Sorted(side) => side.spill_floor_bytes(knobs),
            Self::Streamed { .. } => 0,
        }
    }

    /// Starts the run.
    pub(super) fn open(&self, quantum_bytes: usize, cx: &OpenCx<'_>) -> Result<SideRun> {
        Ok(match self {
            Self::Sorted(side) => {
                let knobs = &cx.query.knobs;
                let batch_bytes = Self::batch_bytes(side, knobs);
                SideRun::Sorted {
                    blocks: cx.account(side.read_floor_bytes(knobs), quantum_bytes, 4 << 20),
                    rows: cx.account(batch_bytes, quantum_bytes, batch_bytes),
                }
            }
            Self::Streamed { source, .. } => SideRun::Streamed(source.open_inner(cx)?),
        })
    }

    /// Starts the lane.
    pub(super) fn rows(&self, run: SideRun, spill: &Account, cx: &LaneCx<'_>) -> Result<SideRows> {
        match (self, run) {
            (Self::Sorted(side), SideRun::Sorted { blocks, rows }) => {
                Ok(SideRows::Sorted(side.rows(blocks, spill, true, cx)?, rows))
            }
            (Self::Streamed { source, spec, kept }, SideRun::Streamed(run)) => {
                Ok(SideRows::Streamed(Box::new(Streamed {
                    lane: run.lane(cx)?,
                    name: source.name(),
                    kept: kept.clone(),
                    evaluator: Evaluator::new(&key_exprs(spec), &spec.layout)?,
                    encoder: KeyEncoder::new(&spec.keys)?,
                    numbers: BufMut::empty(),
                    last: None,
                })))
            }
            (Self::Sorted(_), SideRun::Streamed(_)) | (Self::Streamed { .. }, SideRun::Sorted { .. }) => {
                Err(Error::internal("a side of a merge join is not what it was opened as"))
            }
        }
    }
}

fn key_exprs(spec: &SortSpec) -> Vec<Expr> {
    spec.keys.iter().map(|key| key.expr.clone()).collect()
}

impl SideRows {
    /// The next rows.
    pub(super) fn next(&mut self, spill: &Account, cx: &LaneCx<'_>) -> Result<Next> {
        match self {
            Self::Sorted(rows, account) => match rows.next(spill, account, cx)? {
                Sorted::Rows(rows, mut columns) => {
                    let Some(FlatVector { values: Values::View(keys), .. }) = columns.pop() else {
                        return Err(Error::internal("sorted rows without their keys"));
                    };
                    Ok(Next::Rows(NextRows { columns, keys: BatchKeys::Views(keys), rows }))
                }
                Sorted::Wait(wait) => Ok(Next::Wait(wait)),
                Sorted::End => Ok(Next::End),
            },
            Self::Streamed(streamed) => match streamed.lane.pull(cx)? {
                Pull::Emit(batch) => streamed.with_keys(batch, cx).map(Next::Rows),
                Pull::Wait(wait) => Ok(Next::Wait(wait)),
                Pull::Done => Ok(Next::End),
            },
        }
    }

    /// Gives back memory of a source that is read.
    pub(super) fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        match self {
            Self::Sorted(..) => Ok(0),
            Self::Streamed(streamed) => streamed.lane.reclaim(target_bytes, cx),
        }
    }
}

impl Streamed {
    fn with_keys(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<NextRows> {
        let batch = batch.compact(cx.account)?;
        let rows = batch.rows();
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let columns = self.evaluator.evaluate(&batch, &mut eval)?;
        let columns = columns.iter().map(|c| c.flatten(cx.account)).collect::<Result<Vec<_>, _>>()?;
        self.numbers.reserve(cx.account, rows)?;
        for row in self.numbers.len()..rows {
            self.numbers.push(row as u32);
        }
        let mut keys = Keys::new(cx.account)?;
        self.encoder.encode(&columns, &self.numbers[..rows], &mut keys, cx.account)?;
        drop(columns);
        let mut before = Key::of(self.last.as_deref().unwrap_or_else(|| keys.get(0)));
        for row in 0..rows {
            let key = Key::of(keys.get(row));
            if key.cmp(&before).is_lt() {
                let name = &self.name;
                return Err(Error::value(format!(
                    "the rows of '{name}' are not in the order that the table declares; write it anew, or turn the \
                     sort-merge join off"
                )));
            }
            before = key;
        }
        let last = before.bytes;
        let copied = BufMut::copy_of(cx.account, last)?;
        self.last = Some(copied);
        let kept = self.kept.iter().map(|&at| batch.column(at).flatten(cx.account));
        let columns = kept.collect::<Result<Vec<_>, _>>()?;
        Ok(NextRows { columns, keys: BatchKeys::Encoded(keys), rows })
    }
}

//! The operator.

use super::super::changes::{Changes, ChangesLocal};
use super::super::held::HeldMemory;
use super::super::sort::{SortSpec, Victim};
use super::carried::{BatchValues, Carried};
use super::counts::Counts;
use super::{OrderedAggregateSpec, OrderedCall};
use crate::data::{Batch, BitmapMut, BufMut, DataType, Scalar, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Pull, Transform};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr};
use crate::mem::{Account, Knobs};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A buffer is at least this large.
const BUFFER_BYTES: usize = 4 << 10;

/// See the module.
pub(super) struct OrderedAggregate {
    layout: Vec<ColumnId>,
    /// Keys, then the value, then how often it counts, if that is said.
    expressions: Vec<Expr>,
    calls: Vec<OrderedCall>,
    /// Of what is held: the value, and how often it counts.
    held_types: Vec<DataType>,
    groups: Changes,
}

/// What lanes share, of which one gets rows.
pub(super) struct Shared {
    /// Of held rows, until that lane takes them.
    accounts: Mutex<Option<[Account; 2]>>,
    /// Whether a row is owed for no rows at all.
    owes_row: AtomicBool,
}

/// The lane's state.
pub(super) struct Local {
    evaluator: Evaluator,
    groups: ChangesLocal,
    memory: Option<HeldMemory>,
    carried: Option<Carried>,
    /// What comes out after the row of a carried group.
    pending: Option<Batch>,
}

/// A batch, with what is known of its rows.
struct Rows<'a> {
    groups: &'a [Vector],
    values: BatchValues<'a>,
}

impl OrderedAggregate {
    pub(super) fn new(spec: OrderedAggregateSpec) -> Self {
        let OrderedAggregateSpec { layout, groups: mut expressions, value, count, calls } = spec;
        let groups = Changes::new(expressions.iter().map(Expr::data_type).collect());
        let held: Vec<Expr> = [value].into_iter().chain(count).collect();
        let held_types = held.iter().map(Expr::data_type).collect();
        expressions.extend(held);
        Self { layout, expressions, calls, held_types, groups }
    }

    /// Values as they are held.
    fn held_spec(&self) -> SortSpec {
        SortSpec { layout: Vec::new(), types: self.held_types.clone(), keys: Vec::new(), fetch: None }
    }

    fn has_groups(&self) -> bool {
        self.key_columns() > 0
    }

    fn key_columns(&self) -> usize {
        self.expressions.len() - self.held_types.len()
    }

    /// The results of groups that lie within a batch: each begins at one of `starts`, the last ends where the last of
    /// these is.
    fn results(&self, rows: &Rows<'_>, starts: &[u32], cx: &LaneCx<'_>) -> Result<Batch> {
        let account = cx.account;
        let firsts = &starts[..starts.len() - 1];
        let mut columns = Vec::with_capacity(self.key_columns() + self.calls.len());
        for key in rows.groups {
            columns.push(key.gather(firsts, account)?);
        }
        let mut below = BufMut::<u32>::with_len(account, firsts.len())?;
        let mut above = BufMut::<u32>::with_len(account, firsts.len())?;
        let mut weights = BufMut::<f64>::with_len(account, firsts.len())?;
        for call in &self.calls {
            let mut known = BitmapMut::with_len(account, firsts.len())?;
            for (group, range) in starts.windows(2).enumerate() {
                let (start, end) = (range[0] as usize, range[1] as usize);
                let end = rows.counted(start, end);
                // A null group is made of any rows.
                (below[group], above[group], weights[group]) = (range[0], range[0], 0.0);
                if start == end {
                    continue;
                }
                known.set(group, true);
                let counts = rows.values.counts;
                match call.rank(counts.total(start, end)) {
                    Some(rank) => {
                        below[group] = counts.row_of(rank.below, start, end) as u32;
                        above[group] = counts.row_of(rank.above, start, end) as u32;
                        weights[group] = rank.weight;
                    }
                    None => {
                        let (most, _) = counts.most(start, end);
                        (below[group], above[group]) = (most as u32, most as u32);
                    }
                }
            }
            let value = &rows.values.columns[0];
            let (below, above) = (value.gather(&below, account)?, value.gather(&above, account)?);
            columns.push(call.between([&below, &above], &weights, known, account)?);
        }
        Ok(Batch::new(columns, firsts.len()))
    }

    /// The memory of held rows.
    fn memory<'a>(
        &self,
        shared: &Shared,
        memory: &'a mut Option<HeldMemory>,
        cx: &LaneCx<'_>,
    ) -> Result<&'a HeldMemory> {
        if memory.is_none() {
            let accounts = shared.accounts.lock().take();
            let [rows, spill] =
                accounts.ok_or_else(|| Error::internal("rows in order come on a single lane"))?;
            let victim = Victim::register(self.name(), &cx.query.pool);
            victim.exempt(&rows);
            victim.exempt(&spill);
            *memory = Some(HeldMemory { rows, spill, victim });
        }
        memory.as_ref().ok_or_else(|| Error::internal("the memory of held rows is gone"))
    }
}

impl Rows<'_> {
    /// The end of the values that count, of the rows from `start` to `end` of a group: nulls come last.
    fn counted(&self, start: usize, end: usize) -> usize {
        let Some(validity) = &self.values.columns[0].validity else { return end };
        let (mut from, mut to) = (start, end);
        while from < to {
            let middle = from.midpoint(to);
            if validity.get(middle) { from = middle + 1 } else { to = middle }
        }
        from
    }
}

impl Transform for OrderedAggregate {
    type Shared = Shared;
    type Local = Local;

    fn name(&self) -> String {
        "OrderedAggregate".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let rows = knobs.batch_rows;
        let width = |e: &Expr| e.data_type().value_bytes() + 1;
        // What is evaluated, the carried group's keys and its most frequent value, results, and the two values that each lies
        // between; strings have bytes besides.
        let columns = 3 * self.expressions.len() + 2 + (3 + 4) * self.calls.len();
        let evaluated: usize = self.expressions.iter().map(width).sum();
        let results: usize = self.calls.iter().map(|call| call.data_type.value_bytes() + 1).sum();
        let taken = 2 * (self.held_types[0].value_bytes() + 1);
        let ranks = 3 * size_of::<u32>() + size_of::<f64>();
        let counts = (self.held_types.len() - 1) * size_of::<u64>();
        let scratch = Evaluator::scratch_bytes(&self.expressions, rows) + self.groups.scratch_bytes(rows);
        let lane_bytes = scratch
            + rows * (2 * evaluated + results + taken + ranks + counts)
            + (columns + 8) * BUFFER_BYTES;
        let held = self.held_spec();
        let shared_bytes = held.read_floor_bytes(knobs) + held.spill_floor_bytes(knobs);
        Need { lane_bytes, shared_bytes }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<Shared> {
        let knobs = &cx.query.knobs;
        let quantum_bytes = (cx.query.pool.limit_bytes() / 64).clamp(4 << 10, 256 << 10);
        let held = self.held_spec();
        let spill_bytes = held.spill_floor_bytes(knobs);
        let rows = cx.account(held.read_floor_bytes(knobs), quantum_bytes, 4 << 20);
        let spill = cx.account(spill_bytes, 4 << 10, spill_bytes);
        Ok(Shared {
            accounts: Mutex::new(Some([rows, spill])),
            owes_row: AtomicBool::new(!self.has_groups()),
        })
    }

    fn local(&self, _shared: &Shared, _cx: &LaneCx<'_>) -> Result<Local> {
        Ok(Local {
            evaluator: Evaluator::new(&self.expressions, &self.layout)?,
            groups: self.groups.local()?,
            memory: None,
            carried: None,
            pending: None,
        })
    }

    fn push(&self, shared: &Shared, local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let Local { evaluator, groups, memory, carried, pending } = local;
        shared.owes_row.store(false, Relaxed);
        let memory = self.memory(shared, memory, cx)?;
        memory.rows.relieve();
        if memory.victim.take_request()
            && let Some(carried) = carried
        {
            carried.held.spill(&self.held_types, memory, cx)?;
        }
        let batch = batch.compact(cx.account)?;
        let count = batch.rows();
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let mut columns = evaluator.evaluate(&batch, &mut eval)?;
        let held = columns.split_off(self.key_columns());
        let counts = Counts::new(held.get(1), cx.account)?;
        let held = held.iter().map(|column| column.flatten(cx.account)).collect::<Result<Vec<_>, _>>()?;
        let same = groups.same_as_before(&columns, count, &mut eval)?;
        let values = BatchValues { columns: &held, types: &self.held_types, counts: &counts };
        let rows = Rows { groups: &columns, values };

        let mut starts = BufMut::<u32>::with_capacity(cx.account, count + 1)?;
        (0..count).filter(|&row| !same.get(row)).for_each(|row| starts.push(row as u32));
        let first = starts.first().map_or(count, |&first| first as usize);
        let add = |carried: &mut Carried, start: usize, end: usize| {
            let range = (start, rows.counted(start, end));
            carried.add(&self.calls, &rows.values, range, memory, cx)
        };
        if let Some(carried) = carried {
            add(carried, 0, first)?;
        }
        let Some(&last) = starts.last() else { return Ok(Output::NeedInput) };
        let ended = carried.take().map(|c| c.finish(&self.calls, memory, cx)).transpose()?;
        let within = (starts.len() > 1).then(|| self.results(&rows, &starts, cx)).transpose()?;
        let mut next = Carried::new(&columns, last as usize, cx)?;
        add(&mut next, last as usize, count)?;
        *carried = Some(next);
        Ok(match (ended, within) {
            (Some(ended), within @ Some(_)) => {
                *pending = within;
                Output::EmitMore(ended)
            }
            (Some(only), None) | (None, Some(only)) => Output::Emit(only),
            (None, None) => Output::NeedInput,
        })
    }

    fn resume(&self, _shared: &Shared, local: &mut Local, _cx: &LaneCx<'_>) -> Result<Output> {
        Ok(local.pending.take().map_or(Output::NeedInput, Output::Emit))
    }

    fn flush(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        let Some(carried) = local.carried.take() else { return Ok(Output::Done(None)) };
        let memory = self.memory(shared, &mut local.memory, cx)?;
        Ok(Output::Done(Some(carried.finish(&self.calls, memory, cx)?)))
    }

    fn has_drain(&self) -> bool {
        !self.has_groups()
    }

    fn drain(&self, shared: &Shared, _local: &mut Local, _cx: &LaneCx<'_>) -> Result<Pull> {
        if !shared.owes_row.swap(false, Relaxed) {
            return Ok(Pull::Done);
        }
        let null = |call: &OrderedCall| Scalar::null(call.data_type.clone());
        let columns = self.calls.iter().map(|call| Vector::Constant { value: null(call), len: 1 });
        Ok(Pull::Emit(Batch::new(columns.collect(), 1)))
    }

    fn reclaim(
        &self,
        _shared: &Shared,
        local: &mut Local,
        _target_bytes: usize,
        cx: &LaneCx<'_>,
    ) -> Result<usize> {
        match (&mut local.carried, &local.memory) {
            (Some(carried), Some(memory)) => carried.held.spill(&self.held_types, memory, cx),
            _ => Ok(0),
        }
    }
}

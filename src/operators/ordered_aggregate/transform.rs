//! The operator.

use super::super::changes::{Changes, ChangesLocal};
use super::super::held::HeldMemory;
use super::super::sort::{SortSpec, Victim};
use super::carried::{BatchValues, Carried};
use super::counts::Counts;
use super::pushed::{Pushed, Rows, Seen};
use super::{OrderedAggregateSpec, OrderedCall};
use crate::data::{Batch, BitmapMut, BufMut, DataType, Scalar, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Pull, Retry, Transform, Wait};
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
    /// What was pushed, until it is done with.
    pushed: Option<Pushed>,
    /// What comes out after the row of a carried group.
    pending: Option<Batch>,
    waiting: Retry,
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

    /// What is known of the rows of `batch`.
    fn look_at(&self, batch: &mut Batch, local: &mut Local, cx: &LaneCx<'_>) -> Result<Seen> {
        *batch = batch.clone().compact(cx.account)?;
        let rows = batch.rows();
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let mut groups = local.evaluator.evaluate(batch, &mut eval)?;
        let held = groups.split_off(self.key_columns());
        let counts = Counts::new(held.get(1), cx.account)?;
        let held = held.iter().map(|column| column.flatten(cx.account)).collect::<Result<Vec<_>, _>>()?;
        let mut starts = BufMut::<u32>::with_capacity(cx.account, rows + 1)?;
        let same = local.groups.same_as_before(&groups, rows, &mut eval)?;
        (0..rows).filter(|&row| !same.get(row)).for_each(|row| starts.push(row as u32));
        Ok(Seen { groups, held, counts, starts, rows })
    }

    /// Goes on with the batch that was pushed, as far as memory goes.
    fn go_on(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        loop {
            let Some(mut pushed) = local.pushed.take() else { return Ok(Output::NeedInput) };
            match self.advance(shared, local, &mut pushed, cx) {
                Ok(()) => {
                    local.waiting.end();
                    return Ok(match (pushed.ended, pushed.within) {
                        (Some(ended), within @ Some(_)) => {
                            local.pending = within;
                            Output::EmitMore(ended)
                        }
                        (Some(only), None) | (None, Some(only)) => Output::Emit(only),
                        (None, None) => Output::NeedInput,
                    });
                }
                Err(error) if error.is_refusal() => {
                    local.pushed = Some(pushed);
                    if let Some(wait) = self.make_room(shared, local, error, cx)? {
                        return Ok(Output::Wait(wait));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes room for what was `refused`, so that it can be tried again, or says what to wait for.
    ///
    /// # Errors
    /// `BudgetTooSmall` once nobody else is about to give back anything.
    fn make_room(
        &self,
        shared: &Shared,
        local: &mut Local,
        refused: Error,
        cx: &LaneCx<'_>,
    ) -> Result<Option<Wait>> {
        let Local { carried, memory, waiting, .. } = local;
        let memory = self.memory(shared, memory, cx)?;
        if let Some(carried) = carried
            && carried.held.spill(&self.held_types, memory, cx)? > 0
        {
            return Ok(None);
        }
        waiting.wait(refused.refused_bytes(), cx).map(Some).ok_or_else(|| cx.made_final(refused))
    }

    /// Goes through a batch: counts in the rows of the group carried, ends it, works out the groups within the batch, and
    /// begins the one that is carried on.
    fn advance(
        &self,
        shared: &Shared,
        local: &mut Local,
        pushed: &mut Pushed,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let Pushed { batch, seen, is_added, ended, within, next } = pushed;
        let seen = match seen {
            Some(seen) => seen,
            none => none.insert(self.look_at(batch, local, cx)?),
        };
        let Local { memory, carried, .. } = local;
        let memory = self.memory(shared, memory, cx)?;
        let Seen { groups, held, counts, starts, rows: count } = seen;
        let values = BatchValues { columns: held, types: &self.held_types, counts };
        let rows = Rows { groups, values };
        let add = |carried: &mut Carried, start: usize, end: usize| {
            let range = (start, rows.counted(start, end));
            carried.add(&self.calls, &rows.values, range, memory, cx)
        };
        if !*is_added {
            if let Some(carried) = carried {
                add(carried, 0, starts.first().map_or(*count, |&first| first as usize))?;
            }
            *is_added = true;
        }
        let Some(&last) = starts.last() else { return Ok(()) };
        if let Some(ending) = carried {
            *ended = Some(ending.finish(&self.calls, memory, cx)?);
            *carried = None;
        }
        if starts.len() > 1 && within.is_none() {
            *within = Some(self.results(&rows, starts, cx)?);
        }
        let mut begun = match next.take() {
            Some(next) => next,
            None => Carried::new(groups, last as usize, cx)?,
        };
        let added = add(&mut begun, last as usize, *count);
        match added {
            Ok(()) => *carried = Some(begun),
            Err(_) => *next = Some(begun),
        }
        added
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
            pushed: None,
            pending: None,
            waiting: Retry::default(),
        })
    }

    fn push(&self, shared: &Shared, local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        shared.owes_row.store(false, Relaxed);
        let memory = self.memory(shared, &mut local.memory, cx)?;
        memory.rows.relieve();
        if memory.victim.take_request()
            && let Some(carried) = &mut local.carried
        {
            carried.held.spill(&self.held_types, memory, cx)?;
        }
        local.pushed = Some(Pushed::new(batch));
        self.go_on(shared, local, cx)
    }

    fn resume(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        match local.pending.take() {
            Some(batch) => Ok(Output::Emit(batch)),
            None => self.go_on(shared, local, cx),
        }
    }

    fn flush(&self, shared: &Shared, local: &mut Local, cx: &LaneCx<'_>) -> Result<Output> {
        loop {
            let Some(carried) = &mut local.carried else { return Ok(Output::Done(None)) };
            let memory = self.memory(shared, &mut local.memory, cx)?;
            match carried.finish(&self.calls, memory, cx) {
                Ok(row) => {
                    local.carried = None;
                    local.waiting.end();
                    return Ok(Output::Done(Some(row)));
                }
                Err(error) if error.is_refusal() => {
                    if let Some(wait) = self.make_room(shared, local, error, cx)? {
                        return Ok(Output::Wait(wait));
                    }
                }
                Err(error) => return Err(error),
            }
        }
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

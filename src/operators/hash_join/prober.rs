//! The matching of a lane: a batch of probe rows against a table in memory.
//!
//! Invariants:
//! 1. A lane works on one batch at a time; until all its pairs have been made the batch is the lane's `work`.
//! 2. In each round, pairs are made, then their keys compared where words do not tell, then the residual asked; what
//!    remains are matches.
//! 3. No call makes more than [`MOST_ROUNDS`] rounds: one that has found nothing by then lets others have their turn.
//! 4. Where the table is a part of the build rows, what a batch is answered in the end is decided with the last part:
//!    until then it is only carried on which rows have a match.

use super::keys::KeyEncoder;
use super::pairs::{Candidates, Pairs, Round, rows_by_position};
use super::roles::{JoinColumn, Origin, Roles};
use super::spec::HashJoinKind;
use super::table::Table;
use crate::data::{Batch, BitmapMut, BufMut, DataType, FlatVector, Scalar, Selection, Values, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Output, Wait, WaitReason};
use crate::expr::kernels::boolean::true_bits;
use crate::expr::{EvalCx, Evaluator, Expr, Predicate};
use crate::mem::{Account, Denied};

/// Rounds of a call without rows to emit.
const MOST_ROUNDS: usize = 16;
/// Below one row alive in this many, copying survivors costs less than what follows saves.
const SPARSE: usize = 4;
/// Below this many rows a copy per column costs more than it can save.
const SMALL_ROWS: usize = 256;

/// See the module.
pub(super) struct Prober {
    evaluator: Option<Evaluator>,
    encoder: KeyEncoder,
    residual: Residual,
    candidates: Candidates,
    pairs: Pairs,
    /// The batch in work.
    work: Option<Work>,
    /// What is known of the last batch, of which only a part of the build rows was asked.
    carried: Option<Matches>,
}

/// What pairs with equal keys must satisfy.
enum Residual {
    /// Nothing.
    Nothing,
    /// A conjunction that is true.
    Filter(Predicate),
    /// A conjunction of which it counts whether it is null, too.
    Answer(Evaluator),
}

/// What is known of each row of a batch, where that is asked.
#[derive(Default)]
pub(super) struct Matches {
    /// Rows with a match.
    pub(super) matched: Option<BitmapMut>,
    /// Rows for which the residual was null.
    pub(super) unknown: Option<BitmapMut>,
}

/// Which part of the build rows a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All that could match.
    Whole,
    /// One of several, the last of them or not.
    OneOf { is_last: bool },
}

/// A batch some of whose pairs are still to be made.
struct Work {
    batch: Batch,
    /// The values of its keys.
    keys: Vec<FlatVector>,
    matches: Matches,
    share: Share,
    has_emitted: bool,
}

impl Matches {
    /// Nothing known yet of `rows` rows, in `account`.
    pub(super) fn none_of(roles: &Roles, rows: u64, account: &Account) -> Result<Self, Denied> {
        let bits = |is_asked: bool| {
            let len = usize::try_from(rows).unwrap_or(usize::MAX - u64::BITS as usize);
            is_asked.then(|| BitmapMut::with_len(account, len)).transpose()
        };
        Ok(Self { matched: bits(roles.asks_matches())?, unknown: bits(roles.asks_unknown())? })
    }

    /// What is known of the `rows` rows from `start` on.
    pub(super) fn of_rows(&self, start: usize, rows: usize, account: &Account) -> Result<Self> {
        let part = |bits: &Option<BitmapMut>| -> Result<Option<BitmapMut>> {
            let Some(bits) = bits else { return Ok(None) };
            let mut part = BitmapMut::with_len(account, rows)?;
            part.fill_from(|row| bits.get(start + row));
            Ok(Some(part))
        };
        Ok(Self { matched: part(&self.matched)?, unknown: part(&self.unknown)? })
    }

    /// Notes what was `carried` of the `rows` rows from `start` on.
    pub(super) fn note(&mut self, start: usize, rows: usize, carried: &Self) {
        let note = |to: &mut Option<BitmapMut>, from: &Option<BitmapMut>| {
            if let (Some(to), Some(from)) = (to, from) {
                (0..rows).filter(|&row| from.get(row)).for_each(|row| to.set(start + row, true));
            }
        };
        note(&mut self.matched, &carried.matched);
        note(&mut self.unknown, &carried.unknown);
    }
}

impl Prober {
    /// A lane's of `roles`. `evaluator` computes the keys of rows that come without words.
    pub(super) fn new(roles: &Roles, evaluator: Option<Evaluator>) -> Result<Self> {
        let residual = match (&roles.residual[..], roles.kind) {
            ([], _) => Residual::Nothing,
            (conjuncts, HashJoinKind::ProbeMark { .. }) => {
                let all = match conjuncts {
                    [one] => one.clone(),
                    several => Expr::And(several.to_vec()),
                };
                Residual::Answer(Evaluator::new(&[all], &roles.residual_layout)?)
            }
            (conjuncts, _) => Residual::Filter(Predicate::new(conjuncts, &roles.residual_layout)?),
        };
        Ok(Self {
            evaluator,
            encoder: KeyEncoder::new(&roles.keys),
            residual,
            candidates: Candidates::new(),
            pairs: Pairs::new(),
            work: None,
            carried: None,
        })
    }

    /// Turns the keys of `batch` into words; their values.
    pub(super) fn encode(
        &mut self,
        roles: &Roles,
        batch: &Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Vec<FlatVector>> {
        let keys = match &mut self.evaluator {
            Some(evaluator) => {
                evaluator.evaluate(batch, &mut EvalCx { account: cx.account, ids: &cx.query.ids })?
            }
            None => Vec::new(),
        };
        let rows = batch.physical_rows();
        self.encoder.encode(&roles.keys, &keys, rows, batch.selection(), cx.account)
    }

    /// The same of spilled rows, whose columns are in `batch`, and which bring their `words` if there are keys.
    pub(super) fn encode_spilled(
        &mut self,
        roles: &Roles,
        batch: &Batch,
        words: &[u64],
        cx: &LaneCx<'_>,
    ) -> Result<Vec<FlatVector>> {
        let Some(columns) = roles.probe_key_columns.as_ref().filter(|_| roles.has_keys()) else {
            return self.encode(roles, batch, cx);
        };
        self.encoder.take_words(words, cx.account)?;
        columns.iter().map(|&at| Ok(batch.column(at).flatten(cx.account)?)).collect()
    }

    /// What was encoded last.
    pub(super) fn encoder(&mut self) -> &mut KeyEncoder {
        &mut self.encoder
    }

    /// Starts with the batch that was encoded last. `matches` is what is known of it from other parts of the build.
    pub(super) fn start(
        &mut self,
        roles: &Roles,
        table: &Table,
        (batch, keys): (Batch, Vec<FlatVector>),
        (share, mut matches): (Share, Matches),
        account: &Account,
    ) -> Result<()> {
        self.candidates.start(table, &self.encoder, account)?;
        let rows = batch.physical_rows();
        if matches.matched.is_none() && roles.asks_matches() {
            matches.matched = Some(BitmapMut::with_len(account, rows)?);
        }
        if matches.unknown.is_none() && roles.asks_unknown() {
            matches.unknown = Some(BitmapMut::with_len(account, rows)?);
        }
        self.work = Some(Work { batch, keys, matches, share, has_emitted: false });
        Ok(())
    }

    /// What is known of the last batch, to be asked of further parts of the build.
    pub(super) fn take_carried(&mut self) -> Matches {
        self.carried.take().unwrap_or_default()
    }

    /// Makes pairs of the batch in work until there is something to emit or it is done.
    pub(super) fn advance(&mut self, roles: &Roles, table: &Table, cx: &LaneCx<'_>) -> Result<Output> {
        for _ in 0..MOST_ROUNDS {
            cx.check()?;
            let Self { encoder, residual, candidates, pairs, work: slot, carried, .. } = self;
            let Some(work) = slot else { return Ok(Output::NeedInput) };
            let round = Round {
                roles,
                table,
                keys: encoder,
                settled: work.matches.matched.as_ref().filter(|_| roles.kind.asks_whether_probe_rows_match()),
                most: cx.batch_rows(),
                account: cx.account,
            };
            candidates.pair(&round, pairs)?;
            let are_done = candidates.are_done();
            if pairs.len() == 0 && are_done {
                return match slot.take() {
                    Some(Work { matches, share: Share::OneOf { is_last: false }, .. }) => {
                        *carried = Some(matches);
                        Ok(Output::NeedInput)
                    }
                    Some(work) => roles.finish_batch(table, work, cx.account),
                    None => Ok(Output::NeedInput),
                };
            }
            for (key, &column) in work.keys.iter().zip(&roles.key_columns) {
                table.store.retain_equal(column, key, pairs)?;
            }
            roles.apply_residual(table, residual, work, pairs, cx)?;
            note_matches(roles.kind, table, &mut work.matches, pairs)?;
            if pairs.len() == 0 || !roles.kind.emits_pairs() {
                continue;
            }
            if !roles.kind.keeps_probe_rows() {
                let batch = roles.join(table, &work.batch, pairs, cx.account)?;
                if are_done {
                    *slot = None;
                    return Ok(Output::Emit(batch));
                }
                return Ok(Output::EmitMore(batch));
            }
            let (alive, physical) = (work.batch.rows(), work.batch.physical_rows());
            let is_first = work.share == Share::Whole && !work.has_emitted;
            if are_done && is_first && alive * 2 >= physical && pairs.are_unique() {
                let batch = roles.join_in_place(table, &work.batch, pairs, cx.account)?;
                *slot = None;
                return Ok(Output::Emit(batch));
            }
            work.has_emitted = true;
            return Ok(Output::EmitMore(roles.join(table, &work.batch, pairs, cx.account)?));
        }
        cx.waker.wake_by_ref();
        Ok(Output::Wait(Wait::registered(WaitReason::Turn, ())))
    }
}

impl Roles {
    /// Keeps the pairs for which the residual is true.
    fn apply_residual(
        &self,
        table: &Table,
        residual: &mut Residual,
        work: &mut Work,
        pairs: &mut Pairs,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        if matches!(residual, Residual::Nothing) || pairs.len() == 0 {
            return Ok(());
        }
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) => Ok(work.batch.column(at).gather(pairs.positions(), cx.account)?),
            Origin::Build(at) => table.store.gather(at, pairs.rows(), false, cx.account),
            Origin::Mark => Err(Error::internal("a residual reads the mark it decides")),
        };
        let columns = self.residual_columns.iter().map(column).collect::<Result<_>>()?;
        let batch = Batch::new(columns, pairs.len());
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        match residual {
            Residual::Nothing => {}
            Residual::Filter(predicate) => {
                if let Some(selection) = predicate.select(&batch, &mut eval)? {
                    pairs.keep(selection.indices());
                }
            }
            Residual::Answer(evaluator) => {
                let answers = evaluator.evaluate(&batch, &mut eval)?;
                let is_true = true_bits(&answers[0], pairs.len(), cx.account)?;
                if let Some(unknown) = &mut work.matches.unknown {
                    for (at, (position, _)) in pairs.iter().enumerate() {
                        if answers[0].is_null(at) {
                            unknown.set(position, true);
                        }
                    }
                }
                let mut places = BufMut::with_capacity(cx.account, is_true.count_ones())?;
                is_true.ones().for_each(|at| places.push(at as u32));
                pairs.keep(&places);
            }
        }
        Ok(())
    }

    /// The pairs as rows.
    fn join(&self, table: &Table, batch: &Batch, pairs: &Pairs, account: &Account) -> Result<Batch> {
        let positions = pairs.positions();
        let has_build_columns = self.output.iter().any(|c| matches!(c.origin, Origin::Build(_)));
        if !has_build_columns && pairs.are_unique() {
            let columns = self.probe_columns(batch);
            let selection = Selection::new(BufMut::copy_of(account, positions)?.freeze());
            return compact(Batch::new(columns, batch.physical_rows()), Some(selection), account);
        }
        let is_whole = positions.len() == batch.physical_rows()
            && positions.iter().zip(0..).all(|(&position, row)| position == row);
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) if is_whole => Ok(batch.column(at).clone()),
            Origin::Probe(at) => Ok(batch.column(at).gather(positions, account)?),
            Origin::Build(at) => table.store.gather(at, pairs.rows(), false, account),
            Origin::Mark => Err(unmarked()),
        };
        let columns = self.output.iter().map(column).collect::<Result<_>>()?;
        Ok(Batch::new(columns, positions.len()))
    }

    /// The whole batch with what its rows are paired with, once each at most, or nulls.
    fn join_in_place(&self, table: &Table, batch: &Batch, pairs: &Pairs, account: &Account) -> Result<Batch> {
        let rows = rows_by_position(pairs, batch.physical_rows(), account)?;
        let has_missing = pairs.len() < rows.len();
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) => Ok(batch.column(at).clone()),
            Origin::Build(at) => table.store.gather(at, &rows, has_missing, account),
            Origin::Mark => Err(unmarked()),
        };
        Ok(batch.with_columns(self.output.iter().map(column).collect::<Result<_>>()?))
    }

    /// Output columns over the rows of `batch`, with nulls for the build side.
    fn probe_columns(&self, batch: &Batch) -> Vec<Vector> {
        let column = |column: &JoinColumn| match column.origin {
            Origin::Probe(at) => batch.column(at).clone(),
            Origin::Build(_) | Origin::Mark => nulls(&column.data_type, batch.physical_rows()),
        };
        self.output.iter().map(column).collect()
    }

    /// What is left to emit of a batch all whose pairs have been made.
    fn finish_batch(&self, table: &Table, work: Work, account: &Account) -> Result<Output> {
        let Work { batch, keys, matches: Matches { matched, unknown }, .. } = work;
        let Some(matched) = matched else { return Ok(Output::NeedInput) };
        let has_build_rows = table.build_rows > 0;
        let is_null_key = |row: usize| keys.iter().any(|key| key.is_null(row));
        let mut columns = self.probe_columns(&batch);
        let selection = match self.kind {
            HashJoinKind::ProbeSemi => alive_where(&batch, account, |row| matched.get(row))?,
            HashJoinKind::ProbeAnti { null_aware } => alive_where(&batch, account, |row| {
                !(matched.get(row) || null_aware && has_build_rows && is_null_key(row))
            })?,
            HashJoinKind::ProbeMark { null_aware } => {
                let is_unknown = |row: usize| {
                    !matched.get(row)
                        && (unknown.as_ref().is_some_and(|unknown| unknown.get(row))
                            || null_aware && has_build_rows && (table.has_null_key || is_null_key(row)))
                };
                let mut validity = BitmapMut::with_len(account, batch.physical_rows())?;
                validity.fill_from(|row| !is_unknown(row));
                let validity = validity.freeze();
                let has_nulls = validity.count_ones() < validity.len();
                let mark = Vector::Flat(FlatVector {
                    values: Values::Bool(matched.freeze()),
                    validity: has_nulls.then_some(validity),
                    bounds: None,
                });
                for (column, planned) in columns.iter_mut().zip(&self.output) {
                    if planned.origin == Origin::Mark {
                        *column = mark.clone();
                    }
                }
                batch.selection().cloned()
            }
            HashJoinKind::ProbeOuter | HashJoinKind::FullOuter | HashJoinKind::ProbeSingle => {
                alive_where(&batch, account, |row| !matched.get(row))?
            }
            HashJoinKind::Inner
            | HashJoinKind::BuildOuter
            | HashJoinKind::BuildSemi
            | HashJoinKind::BuildAnti => return Ok(Output::NeedInput),
        };
        let joined = compact(Batch::new(columns, batch.physical_rows()), selection, account)?;
        Ok(if joined.rows() == 0 { Output::NeedInput } else { Output::Emit(joined) })
    }
}

/// Remembers who has a match.
fn note_matches(kind: HashJoinKind, table: &Table, matches: &mut Matches, pairs: &Pairs) -> Result<()> {
    if let Some(flags) = &table.flags {
        pairs.rows().iter().for_each(|&row| flags.set(row));
    }
    let Some(matched) = &mut matches.matched else { return Ok(()) };
    for (position, _) in pairs.iter() {
        if kind == HashJoinKind::ProbeSingle && matched.get(position) {
            let message = "a scalar subquery returned more than one row; use LIMIT 1 or an aggregate";
            return Err(Error::plan(message, None));
        }
        matched.set(position, true);
    }
    Ok(())
}

/// The rows alive for which `f` is true; `None` if all rows are.
pub(super) fn alive_where(
    batch: &Batch,
    account: &Account,
    f: impl Fn(usize) -> bool,
) -> Result<Option<Selection>> {
    // One more, so that every row may be written before it is known whether it counts.
    let mut kept = BufMut::<u32>::with_len(account, batch.rows() + 1)?;
    let rows: &mut [u32] = &mut kept;
    let mut count = 0;
    let mut put = |row: u32| {
        rows[count] = row;
        count += usize::from(f(row as usize));
    };
    match batch.selection() {
        Some(selection) => selection.indices().iter().for_each(|&row| put(row)),
        None => (0..batch.physical_rows() as u32).for_each(put),
    }
    kept.set_len(count);
    Ok((count < batch.physical_rows()).then(|| Selection::new(kept.freeze())))
}

/// The rows of `selection`, copied if they are few.
fn compact(batch: Batch, selection: Option<Selection>, account: &Account) -> Result<Batch> {
    let batch = batch.with_selection(selection);
    let (alive, physical) = (batch.rows(), batch.physical_rows());
    let is_sparse = alive > 0 && physical >= SMALL_ROWS && alive * SPARSE < physical;
    Ok(if is_sparse { batch.compact(account)? } else { batch })
}

pub(super) fn nulls(data_type: &DataType, len: usize) -> Vector {
    Vector::Constant { value: Scalar::null(data_type.clone()), len }
}

fn unmarked() -> Error {
    Error::internal("only a mark join has a mark")
}

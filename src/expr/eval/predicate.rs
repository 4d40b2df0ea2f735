//! Rows that pass a conjunction.

use super::EvalCx;
use super::constant::fold;
use super::dictionary::Caches;
use super::program::Program;
use super::run::{Frame, Run, constant_truth, is_about_values};
use crate::data::{Batch, Selection, Vector};
use crate::error::Result;
use crate::expr::kernels::boolean::true_bits;
use crate::expr::kernels::indices::positions;
use crate::expr::{ColumnId, Expr};
use std::borrow::Cow;

/// Batches between two looks at the order.
const REORDER_BATCHES: u32 = 16;
/// A conjunct at least this costly is computed for the rows alive alone once half have gone; cheaper ones run over
/// all rows until few are left.
const COSTLY: u32 = 6;
const SPARSE_COSTLY: usize = 2;
const SPARSE_CHEAP: usize = 16;

/// Selects the rows for which every conjunct is true. One per lane.
#[derive(Debug)]
pub(crate) struct Predicate {
    program: Program,
    caches: Caches,
    /// Numbers of roots in the order they are tried.
    order: Vec<usize>,
    /// Per root.
    tallies: Vec<Tally>,
    batches: u32,
    /// A bit per row still alive.
    mask: Vec<u64>,
}

/// What a conjunct was given and let through.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tried_rows: u64,
    passed_rows: u64,
}

impl Predicate {
    /// Compiles `conjuncts` for batches whose columns are named `layout` by position.
    ///
    /// # Errors
    /// An internal error if a conjunct reads a column that is not in the layout.
    pub(crate) fn new(conjuncts: &[Expr], layout: &[ColumnId]) -> Result<Self> {
        let mut folded = Vec::new();
        conjuncts.iter().cloned().map(fold).for_each(|e| e.into_conjuncts(&mut folded));
        let program = Program::new(&folded, layout)?;
        let mut order: Vec<usize> = (0..program.roots.len()).collect();
        order.sort_by_key(|i| program.nodes[program.roots[*i]].cost);
        let tallies = vec![Tally::default(); order.len()];
        Ok(Self { program, caches: Caches::default(), order, tallies, batches: 0, mask: Vec::new() })
    }

    /// The alive physical rows that pass; `None` if all that are alive do. Null counts as false.
    ///
    /// # Errors
    /// Value errors of rows that all other conjuncts let through; memory errors.
    pub(crate) fn select(&mut self, batch: &Batch, cx: &mut EvalCx<'_>) -> Result<Option<Selection>> {
        let rows = batch.physical_rows();
        set_alive(&mut self.mask, batch);
        let mut state = State {
            run: Run { nodes: &self.program.nodes, caches: &mut self.caches, cx },
            frame: Frame::new(Cow::Borrowed(batch.columns()), rows, batch.rows(), self.program.nodes.len()),
            mask: &mut self.mask,
        };
        // A conjunct that raises an error may be guarded by one that comes later: it is tried again at the end.
        let mut deferred = Vec::new();
        for &at in &self.order {
            let before = state.frame.alive;
            if before == 0 {
                break;
            }
            match state.narrow(self.program.roots[at]) {
                Err(error) if is_about_values(&error) => deferred.push(at),
                other => other?,
            }
            let tally = &mut self.tallies[at];
            tally.tried_rows += before as u64;
            tally.passed_rows += state.frame.alive as u64;
        }
        for at in deferred {
            if state.frame.alive > 0 {
                state.narrow(self.program.roots[at])?;
            }
        }
        let alive = state.frame.alive;
        self.batches += 1;
        if self.batches.is_multiple_of(REORDER_BATCHES) {
            self.reorder();
        }
        if alive == batch.rows() {
            return Ok(None);
        }
        Ok(Some(Selection::new(positions(&self.mask, cx.account)?)))
    }

    /// Cheapest per row removed first.
    fn reorder(&mut self) {
        let Self { program, tallies, order, .. } = self;
        let rank = |at: usize| {
            let Tally { tried_rows, passed_rows } = tallies[at];
            let cost = f64::from(program.nodes[program.roots[at]].cost) + 0.1;
            let removed = (tried_rows - passed_rows) as f64 + 1.0;
            cost * (tried_rows as f64 + 1.0) / removed
        };
        order.sort_by(|a, b| rank(*a).total_cmp(&rank(*b)));
        for tally in tallies {
            // Older batches count for less and less.
            tally.tried_rows /= 2;
            tally.passed_rows /= 2;
        }
    }
}

/// One bit per row of `batch` that is alive.
fn set_alive(mask: &mut Vec<u64>, batch: &Batch) {
    let rows = batch.physical_rows();
    mask.clear();
    match batch.selection() {
        Some(selection) => {
            mask.resize(rows.div_ceil(64), 0);
            for &row in selection.indices() {
                mask[row as usize / 64] |= 1 << (row % 64);
            }
        }
        None => {
            mask.resize(rows.div_ceil(64), u64::MAX);
            if let (tail @ 1.., Some(last)) = (rows % 64, mask.last_mut()) {
                *last = (1 << tail) - 1;
            }
        }
    }
}

struct State<'a, 'cx, 'b> {
    run: Run<'a, 'cx>,
    /// Its `alive` follows the mask.
    frame: Frame<'b>,
    mask: &'a mut Vec<u64>,
}

impl State<'_, '_, '_> {
    /// Clears the bits of rows for which the root is not true. On error nothing changes.
    fn narrow(&mut self, root: usize) -> Result<()> {
        let (rows, alive) = (self.frame.rows, self.frame.alive);
        let sparse = if self.run.nodes[root].cost >= COSTLY { SPARSE_COSTLY } else { SPARSE_CHEAP };
        if alive * sparse < rows {
            return self.narrow_alive(root);
        }
        match self.run.eval_plain(root, &mut self.frame) {
            Err(error) if is_about_values(&error) && alive < rows => self.narrow_alive(root),
            result => {
                let result = result?;
                self.keep(&result)
            }
        }
    }

    /// The root over all rows says which stay.
    fn keep(&mut self, result: &Vector) -> Result<()> {
        if let Some(truth) = constant_truth(result) {
            if !truth {
                self.mask.fill(0);
                self.frame.alive = 0;
            }
            return Ok(());
        }
        let bits = true_bits(result, self.frame.rows, self.run.account())?;
        let mut alive = 0;
        for (word, bits) in self.mask.iter_mut().zip(bits.words()) {
            *word &= bits;
            alive += word.count_ones() as usize;
        }
        self.frame.alive = alive;
        Ok(())
    }

    /// The root over the rows alive alone says which stay.
    fn narrow_alive(&mut self, root: usize) -> Result<()> {
        let account = self.run.account();
        let indices = positions(self.mask, account)?;
        let mut part = self.run.gathered(&[root], &self.frame, &indices)?;
        let result = self.run.eval_plain(root, &mut part)?;
        if constant_truth(&result).is_some() {
            return self.keep(&result);
        }
        let bits = true_bits(&result, indices.len(), account)?;
        let mut alive = indices.len();
        for (at, &row) in indices.iter().enumerate() {
            if !bits.get(at) {
                self.mask[row as usize / 64] &= !(1 << (row % 64));
                alive -= 1;
            }
        }
        self.frame.alive = alive;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BufMut, DataType, Scalar, Value};
    use crate::expr::kernels::testing::{Lab, Random};
    use crate::expr::{ArithmeticOp, CompareOp, Evaluator, arithmetic, compare};

    fn column(id: u32, data_type: &DataType) -> Expr {
        Expr::Column { id: ColumnId(id), data_type: data_type.clone(), nullable: true }
    }

    #[test]
    fn selections_agree_with_values_whatever_the_representation() {
        let lab = Lab::new();
        let mut random = Random::new(41);
        let (a, b) = (DataType::Int64, DataType::Utf8);
        let layout = [ColumnId(0), ColumnId(1)];
        let limit = |v| Expr::Literal(Scalar::int(DataType::Int32, v));
        let conjuncts = [
            compare(CompareOp::GtEq, column(0, &a), limit(-4)).expect("typed"),
            compare(CompareOp::NotEq, column(1, &b), Expr::Literal(Scalar::utf8("ab"))).expect("typed"),
            Expr::Like {
                operand: Box::new(column(1, &b)),
                pattern: Box::new(Expr::Literal(Scalar::utf8("a%"))),
                escape: None,
                ignore_case: false,
            },
        ];
        let mut predicate = Predicate::new(&conjuncts, &layout).expect("compiles");
        let whole = Expr::And(conjuncts.to_vec());
        for round in 0..60 {
            let rows = 1 + random.below(300) as usize;
            let (left, right) = (random.scalars(&a, rows), random.scalars(&b, rows));
            let right = if round % 2 == 0 { lab.flat(&b, &right) } else { lab.dict(&b, &right) };
            let batch = Batch::new(vec![lab.flat(&a, &left), right], rows);
            let alive: Vec<u32> = (0..rows as u32).filter(|_| round % 3 > 0 || random.below(3) > 0).collect();
            let indices = BufMut::copy_of(&lab.account, &alive).expect("fits").freeze();
            let selection = (alive.len() < rows).then(|| Selection::new(indices));
            let batch = batch.with_selection(selection);
            let values = Evaluator::new(std::slice::from_ref(&whole), &layout)
                .and_then(|mut e| e.evaluate(&batch, &mut lab.cx()))
                .expect("no error");
            let is_true =
                |row: &u32| values[0].scalar(*row as usize, &DataType::Boolean).value == Value::Boolean(true);
            let want: Vec<u32> = alive.iter().copied().filter(is_true).collect();
            let got = predicate.select(&batch, &mut lab.cx()).expect("no error");
            let got = got.map_or_else(|| alive.clone(), |s| s.indices().to_vec());
            assert_eq!(got, want, "round {round}");
        }
    }

    #[test]
    fn a_later_conjunct_guards_an_earlier_one() {
        let lab = Lab::new();
        let t = DataType::Int32;
        let one = Expr::Literal(Scalar::int(t.clone(), 1));
        let max = Expr::Literal(Scalar::int(t.clone(), i32::MAX.into()));
        let plus = arithmetic(ArithmeticOp::Add, column(0, &t), one.clone()).expect("typed");
        let fails = compare(CompareOp::Gt, plus, one).expect("typed");
        let guard = compare(CompareOp::Lt, column(0, &t), max).expect("typed");
        let scalars = [i32::MAX, 5, 0].map(|v| Scalar::int(t.clone(), v.into()));
        let batch = Batch::new(vec![lab.flat(&t, &scalars)], 3);
        let mut both = Predicate::new(&[fails.clone(), guard], &[ColumnId(0)]).expect("compiles");
        let selected = both.select(&batch, &mut lab.cx()).expect("guarded").expect("not all");
        assert_eq!(selected.indices(), [1]);
        let mut alone = Predicate::new(&[fails], &[ColumnId(0)]).expect("compiles");
        assert!(alone.select(&batch, &mut lab.cx()).is_err());
    }
}

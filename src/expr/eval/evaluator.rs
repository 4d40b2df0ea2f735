//! Values of expressions.

use super::EvalCx;
use super::constant::fold;
use super::dictionary::Caches;
use super::program::Program;
use super::run::{Frame, Run, is_about_values};
use crate::data::{Batch, DataType, PhysicalType, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::scatter;
use crate::expr::{ColumnId, Expr};
use crate::mem::size_class_bytes;
use std::borrow::Cow;

/// Below one row in this many alive, costly expressions are computed for those rows alone.
const SPARSE: usize = 8;
/// What counts as costly per row.
const COSTLY: u32 = 8;
/// Estimate of a computed string's bytes beyond its view.
const STRING_BYTES: usize = 32;

/// Computes expressions over batches of one layout. One per lane.
#[derive(Debug)]
pub(crate) struct Evaluator {
    program: Program,
    caches: Caches,
}

impl Evaluator {
    /// Compiles `exprs` for batches whose columns are named `layout` by position.
    ///
    /// # Errors
    /// An internal error if an expression reads a column that is not in the layout.
    pub(crate) fn new(exprs: &[Expr], layout: &[ColumnId]) -> Result<Self> {
        let folded: Vec<Expr> = exprs.iter().cloned().map(fold).collect();
        Ok(Self { program: Program::new(&folded, layout)?, caches: Caches::default() })
    }

    /// The value of each expression over all physical rows of `batch`; unspecified in rows that are not selected.
    ///
    /// # Errors
    /// Value errors of selected rows; memory errors.
    pub(crate) fn evaluate(&mut self, batch: &Batch, cx: &mut EvalCx<'_>) -> Result<Vec<Vector>> {
        let Self { program, caches } = self;
        let nodes = &program.nodes;
        let account = cx.account;
        let mut run = Run { nodes, caches, cx };
        let (rows, alive) = (batch.physical_rows(), batch.rows());
        let mut frame = Frame::new(Cow::Borrowed(batch.columns()), rows, alive, nodes.len());
        let mut sparse = match batch.selection() {
            Some(selection) if alive * SPARSE < rows => {
                let costly: Vec<usize> =
                    program.roots.iter().copied().filter(|r| nodes[*r].cost >= COSTLY).collect();
                Some((run.gathered(&costly, &frame, selection.indices())?, selection.indices(), costly))
            }
            _ => None,
        };
        let mut results = Vec::with_capacity(program.roots.len());
        for &root in &program.roots {
            if let Some((part, indices, costly)) = &mut sparse
                && costly.contains(&root)
                && !indices.is_empty()
            {
                let result = run.eval_plain(root, part)?;
                results.push(scatter(result, indices, rows, account)?);
                continue;
            }
            results.push(match (run.eval(root, &mut frame), batch.selection()) {
                (Err(error), Some(selection)) if is_about_values(&error) => {
                    run.eval_rows(root, &frame, selection.indices())?
                }
                (other, _) => other?,
            });
        }
        Ok(results)
    }

    /// At most so many bytes are allocated by an evaluation over batches of `batch_rows` rows, results included.
    pub(crate) fn scratch_bytes(exprs: &[Expr], batch_rows: usize) -> usize {
        exprs.iter().map(|expr| scratch_bytes(expr, batch_rows)).sum()
    }
}

/// At most so many bytes are allocated for `rows` computed values of a type.
pub(super) fn result_bytes(data_type: &DataType, rows: usize) -> usize {
    values_bytes(data_type, rows) + 2 * size_class_bytes(rows.div_ceil(8))
}

fn values_bytes(data_type: &DataType, rows: usize) -> usize {
    let value_bytes = match data_type.physical() {
        PhysicalType::View | PhysicalType::Nested => 16 + STRING_BYTES,
        // A narrow decimal's result may have to be wide.
        PhysicalType::I64 => 16,
        _ => data_type.value_bytes(),
    };
    size_class_bytes(rows * value_bytes)
}

fn scratch_bytes(expr: &Expr, rows: usize) -> usize {
    let mut total = match expr {
        Expr::Literal(_) => 0,
        // Flattened, at worst.
        Expr::Column { data_type, .. } => values_bytes(data_type, rows),
        _ => result_bytes(&expr.data_type(), rows),
    };
    expr.for_each_child(&mut |child| total += scratch_bytes(child, rows));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BufMut, Dictionary, Scalar, Selection};
    use crate::expr::kernels::testing::{Lab, Random};
    use crate::expr::{ArithmeticOp, CompareOp, arithmetic, cast_to, compare};
    use crate::mem::{Account, Pool};
    use std::sync::Arc;

    fn column(id: u32, data_type: &DataType) -> Expr {
        Expr::Column { id: ColumnId(id), data_type: data_type.clone(), nullable: true }
    }

    fn int(v: i128) -> Expr {
        Expr::Literal(Scalar::int(DataType::Int32, v))
    }

    fn selection(lab: &Lab, indices: &[u32]) -> Option<Selection> {
        Some(Selection::new(BufMut::copy_of(&lab.account, indices).expect("fits").freeze()))
    }

    fn ints(v: &[Option<i128>]) -> Vec<Scalar> {
        let t = DataType::Int32;
        v.iter().map(|v| v.map_or(Scalar::null(t.clone()), |v| Scalar::int(t.clone(), v))).collect()
    }

    #[test]
    fn rows_that_do_not_count_raise_nothing() {
        let lab = Lab::new();
        let t = DataType::Int32;
        let max = i128::from(i32::MAX);
        let vector = lab.flat(&t, &ints(&[Some(max), Some(1), None, Some(2)]));
        let plus = arithmetic(ArithmeticOp::Add, column(0, &t), int(1)).expect("typed");
        let layout = [ColumnId(0)];
        let batch = Batch::new(vec![vector], 4);
        let run = |e: &Expr, batch: &Batch| {
            Evaluator::new(std::slice::from_ref(e), &layout)
                .and_then(|mut ev| ev.evaluate(batch, &mut lab.cx()))
        };
        assert!(run(&plus, &batch).is_err());
        let selected = batch.clone().with_selection(selection(&lab, &[1, 2, 3]));
        let result = run(&plus, &selected).expect("row 0 is not selected");
        assert_eq!(result[0].scalar(1, &t).as_int(), Some(2));
        assert!(result[0].is_null(2));
        let small = compare(CompareOp::Lt, column(0, &t), int(max)).expect("typed");
        let case = Expr::Case {
            branches: vec![(small.clone(), plus.clone())],
            otherwise: Some(Box::new(int(0))),
            data_type: t.clone(),
        };
        let result = run(&case, &batch).expect("the branch is not taken in row 0");
        let got: Vec<_> = (0..4).map(|row| result[0].scalar(row, &t).as_int()).collect();
        assert_eq!(got, [Some(0), Some(2), Some(0), Some(3)]);
        let positive = compare(CompareOp::Gt, plus, int(0)).expect("typed");
        let and = Expr::And(vec![small.clone(), positive.clone()]);
        let result = run(&and, &batch).expect("the right side is not reached in row 0");
        assert_eq!(result[0].scalar(0, &DataType::Boolean), Scalar::boolean(false));
        assert_eq!(result[0].scalar(1, &DataType::Boolean), Scalar::boolean(true));
        let or = Expr::Or(vec![Expr::Not(Box::new(small)), positive]);
        assert!(run(&or, &batch).is_ok());
    }

    #[test]
    fn dictionaries_give_what_rows_give() {
        let lab = Lab::new();
        let mut random = Random::new(17);
        for t in [DataType::Int32, DataType::Utf8, DataType::Decimal { precision: 15, scale: 2 }] {
            let c = column(0, &t);
            let value = random.scalars(&t, 40).into_iter().find(|s| !s.is_null()).expect("some value");
            let less = compare(CompareOp::LtEq, c.clone(), Expr::Literal(value.clone())).expect("typed");
            let exprs = [
                less.clone(),
                Expr::Not(Box::new(less.clone())),
                Expr::IsNull(Box::new(c.clone())),
                Expr::InList {
                    operand: Box::new(c.clone()),
                    list: vec![value.clone(), Scalar::null(t.clone())].into(),
                },
                cast_to(c.clone(), &DataType::Utf8).expect("text"),
                Expr::Case {
                    branches: vec![(less, c.clone())],
                    otherwise: Some(Box::new(Expr::Literal(value.clone()))),
                    data_type: t.clone(),
                },
                Expr::Case {
                    branches: vec![(Expr::IsNull(Box::new(c.clone())), Expr::Literal(value))],
                    otherwise: None,
                    data_type: t.clone(),
                },
            ];
            let layout = [ColumnId(0)];
            let mut flat_eval = Evaluator::new(&exprs, &layout).expect("compiles");
            let mut dict_eval = Evaluator::new(&exprs, &layout).expect("compiles");
            for rows in [1, 3, 100, 100] {
                let scalars = random.scalars(&t, rows);
                let flat = Batch::new(vec![lab.flat(&t, &scalars)], rows);
                let dict = Batch::new(vec![lab.dict(&t, &scalars)], rows);
                let want = flat_eval.evaluate(&flat, &mut lab.cx()).expect("no error");
                let twice = [
                    dict_eval.evaluate(&dict, &mut lab.cx()).expect("no error"),
                    dict_eval.evaluate(&dict, &mut lab.cx()).expect("no error"),
                ];
                for got in twice {
                    for (at, expr) in exprs.iter().enumerate() {
                        let t = expr.data_type();
                        for (row, scalar) in scalars.iter().enumerate().take(rows) {
                            let (got, want) = (got[at].scalar(row, &t), want[at].scalar(row, &t));
                            assert_eq!(got, want, "{expr} row {row}: {scalar}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_unused_dictionary_entry_raises_nothing() {
        let lab = Lab::new();
        let t = DataType::Int32;
        let vector = lab.dict(&t, &ints(&[Some(i32::MAX.into()), Some(1), Some(2), Some(3), Some(1)]));
        let plus = arithmetic(ArithmeticOp::Add, column(0, &t), int(1)).expect("typed");
        let mut evaluator = Evaluator::new(&[plus], &[ColumnId(0)]).expect("compiles");
        let batch = Batch::new(vec![vector], 5).with_selection(selection(&lab, &[1, 2, 3, 4]));
        for _ in 0..3 {
            let result = evaluator.evaluate(&batch, &mut lab.cx()).expect("entry 0 is not selected");
            assert_eq!(result[0].scalar(4, &t).as_int(), Some(2));
        }
    }

    #[test]
    fn large_dictionaries_leave_floors_alone() {
        const ROWS: usize = 512;
        let lab = Lab::new();
        let t = DataType::Int64;
        let dictionary = |from: i128| {
            let scalars: Vec<_> = (from..from + 5000).map(|v| Scalar::int(t.clone(), v)).collect();
            let Vector::Flat(values) = lab.flat(&t, &scalars) else { panic!("a flat vector") };
            let mut codes = BufMut::<u32>::with_len(&lab.account, ROWS).expect("fits");
            codes.iter_mut().zip(0..).for_each(|(to, row)| *to = row * 9);
            let dictionary = Arc::new(Dictionary::new(&lab.ids, values));
            Batch::new(vec![Vector::Dict { codes: codes.freeze(), validity: None, dictionary }], ROWS)
        };
        let three = Expr::Literal(Scalar::int(t.clone(), 3));
        let exprs = [arithmetic(ArithmeticOp::Multiply, column(0, &t), three).expect("typed")];
        let floor_bytes = Evaluator::scratch_bytes(&exprs, ROWS);
        for (ample_bytes, remembers) in [(0, false), (16 << 20, true)] {
            let pool = Pool::new("evaluator", floor_bytes + ample_bytes);
            let account = Account::open(&pool, floor_bytes, 0, 0).expect("fits");
            let mut evaluator = Evaluator::new(&exprs, &[ColumnId(0)]).expect("compiles");
            for from in [0, 7000, 8000, 9000, 10_000] {
                let batch = dictionary(from);
                for _ in 0..2 {
                    let mut cx = EvalCx { account: &account, ids: &lab.ids };
                    let result = evaluator.evaluate(&batch, &mut cx).expect("its floor is enough");
                    assert_eq!(result[0].scalar(500, &t).as_int(), Some(3 * (from + 4500)));
                    assert!(account.used_bytes() <= floor_bytes);
                }
                assert_eq!(account.used_bytes(), 0, "nothing is left in it");
            }
            assert_eq!(pool.granted_bytes() > floor_bytes, remembers);
        }
    }

    #[test]
    fn common_parts_are_one_node_and_constants_stay_constant() {
        let t = DataType::Int32;
        let sum = arithmetic(ArithmeticOp::Add, column(0, &t), int(1)).expect("typed");
        let twice = arithmetic(ArithmeticOp::Multiply, sum.clone(), sum.clone()).expect("typed");
        let evaluator = Evaluator::new(&[twice, sum], &[ColumnId(0)]).expect("compiles");
        assert_eq!(evaluator.program.nodes.len(), 4, "column, literal, sum, product");
        let lab = Lab::new();
        let constant = Vector::Constant { value: Scalar::int(t.clone(), 4), len: 7 };
        let mut evaluator = evaluator;
        let result = evaluator.evaluate(&Batch::new(vec![constant], 7), &mut lab.cx()).expect("fits");
        assert!(matches!(&result[0], Vector::Constant { value, len: 7 } if value.as_int() == Some(25)));
        assert!(Evaluator::scratch_bytes(&[column(0, &t)], 1000) >= 4000);
    }
}

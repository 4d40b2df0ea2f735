//! Computes columns.

use crate::data::{Batch, Vector};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Output, Transform, TransformBox};
use crate::expr::{ColumnId, EvalCx, Evaluator, Expr};
use crate::mem::Knobs;

/// Batches of `expressions` over batches of `layout`. Plain columns are passed on without being looked at.
pub(crate) fn project(layout: Vec<ColumnId>, expressions: Vec<Expr>) -> TransformBox {
    TransformBox::new(Project::new(layout, expressions))
}

struct Project {
    layout: Vec<ColumnId>,
    /// Where each output comes from.
    outputs: Vec<From>,
    /// The expressions that are no plain columns.
    computed: Vec<Expr>,
}

enum From {
    /// A column of the input.
    Input(ColumnId),
    /// An expression, by its place among the computed ones.
    Computed(usize),
}

impl Project {
    fn new(layout: Vec<ColumnId>, expressions: Vec<Expr>) -> Self {
        let mut computed = Vec::new();
        let mut from = |expression| match expression {
            Expr::Column { id, .. } => From::Input(id),
            other => {
                computed.push(other);
                From::Computed(computed.len() - 1)
            }
        };
        let outputs = expressions.into_iter().map(&mut from).collect();
        Self { layout, outputs, computed }
    }
}

struct Local {
    evaluator: Option<Evaluator>,
    /// Position in the input of each output that is a column of it.
    positions: Vec<usize>,
}

impl Transform for Project {
    type Shared = ();
    type Local = Local;

    fn name(&self) -> String {
        "Project".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let width: usize = self.computed.iter().map(|e| e.data_type().value_bytes()).sum();
        let scratch = Evaluator::scratch_bytes(&self.computed, knobs.batch_rows);
        Need { lane_bytes: scratch + knobs.batch_rows * width, shared_bytes: 0 }
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Local> {
        let position = |from: &From| match from {
            From::Computed(_) => Ok(usize::MAX),
            From::Input(id) => self.layout.iter().position(|column| column == id).ok_or_else(|| {
                Error::internal(format!("a projection reads column #{} its input lacks", id.0))
            }),
        };
        let positions = self.outputs.iter().map(position).collect::<Result<_>>()?;
        let is_plain = self.computed.is_empty();
        let evaluator = if is_plain { None } else { Some(Evaluator::new(&self.computed, &self.layout)?) };
        Ok(Local { evaluator, positions })
    }

    fn push(&self, _shared: &(), local: &mut Local, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        let mut eval = EvalCx { account: cx.account, ids: &cx.query.ids };
        let computed = match &mut local.evaluator {
            Some(evaluator) => evaluator.evaluate(&batch, &mut eval)?,
            None => Vec::new(),
        };
        let output = |(from, position): (&From, &usize)| -> Vector {
            match from {
                From::Input(_) => batch.column(*position).clone(),
                From::Computed(at) => computed[*at].clone(),
            }
        };
        let columns = self.outputs.iter().zip(&local.positions).map(output).collect();
        Ok(Output::Emit(batch.with_columns(columns)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, above, column, two_columns};
    use super::*;
    use crate::data::{DataType, Scalar};

    #[test]
    fn columns_are_passed_on_and_expressions_computed_over_the_same_rows() {
        let harness = Harness::new(16 << 20);
        let expressions = vec![column(1), above(column(0), 2), column(0), column(1)];
        let transform = Project::new(vec![ColumnId(0), ColumnId(1)], expressions);
        let cx = harness.lane();
        let mut local = transform.local(&(), &cx).expect("valid");
        let input = two_columns(&harness, [(1, 10), (2, 20), (3, 30), (4, 40)]);
        let input = harness.select(input, &[1, 2]);
        let answer = transform.push(&(), &mut local, input, &cx).expect("no error");
        let Output::Emit(batch) = answer else { panic!("{answer:?}") };
        let batch = batch.compact(&harness.account).expect("fits");
        assert_eq!(batch.rows(), 2);
        let row = |row: usize| {
            let int = |at: usize| batch.column(at).scalar(row, &DataType::Int64).as_int();
            (int(0), batch.column(1).scalar(row, &DataType::Boolean), int(2), int(3))
        };
        assert_eq!(row(0), (Some(20), Scalar::boolean(false), Some(2), Some(20)));
        assert_eq!(row(1), (Some(30), Scalar::boolean(true), Some(3), Some(30)));
    }

    #[test]
    fn a_missing_column_is_an_error_of_the_engine() {
        let harness = Harness::new(16 << 20);
        let transform = Project::new(vec![ColumnId(0)], vec![column(7)]);
        assert!(matches!(transform.local(&(), &harness.lane()), Err(Error::Internal(_))));
    }
}

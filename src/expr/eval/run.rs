//! One batch through a program.

use super::EvalCx;
use super::dictionary::Caches;
use super::program::{Node, Op, Prepared};
use crate::data::{FlatVector, Scalar, Value, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::kernels::arithmetic::{ArithmeticTypes, arithmetic, negate};
use crate::expr::kernels::blend::scatter;
use crate::expr::kernels::cast::{CastTypes, cast};
use crate::expr::kernels::operand::{both_valid, validity};
use crate::expr::kernels::{boolean, compare, like};
use crate::expr::{CallTypes, CompareOp};
use crate::mem::Account;
use std::borrow::Cow;

/// The columns nodes are evaluated over, and the results that are shared.
pub(super) struct Frame<'a> {
    pub(super) columns: Cow<'a, [Vector]>,
    pub(super) rows: usize,
    /// Rows that count.
    pub(super) alive: usize,
    /// Results of nodes used more than once.
    results: Vec<Option<Vector>>,
    /// Columns that have been flattened.
    flat: Vec<Option<Vector>>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(columns: Cow<'a, [Vector]>, rows: usize, alive: usize, nodes: usize) -> Self {
        let flat = vec![None; columns.len()];
        Self { columns, rows, alive, results: vec![None; nodes], flat }
    }
}

/// Whether an error is about values, so that fewer rows may not raise it.
pub(super) fn is_about_values(error: &Error) -> bool {
    matches!(error, Error::Data(_))
}

/// Evaluates nodes over frames.
pub(super) struct Run<'a, 'cx> {
    pub(super) nodes: &'a [Node],
    pub(super) caches: &'a mut Caches,
    pub(super) cx: &'a mut EvalCx<'cx>,
}

impl<'cx> Run<'_, 'cx> {
    pub(super) fn account(&self) -> &'cx Account {
        self.cx.account
    }

    /// The value of a node over all rows of the frame.
    pub(super) fn eval(&mut self, id: usize, frame: &mut Frame<'_>) -> Result<Vector> {
        if let Some(result) = &frame.results[id] {
            return Ok(result.clone());
        }
        let result = self.compute(id, frame)?;
        let node = &self.nodes[id];
        if node.uses > 1 && !matches!(node.op, Op::Column(_) | Op::Constant(_)) {
            frame.results[id] = Some(result.clone());
        }
        Ok(result)
    }

    /// As `eval`, as a flat or constant vector.
    pub(super) fn eval_plain(&mut self, id: usize, frame: &mut Frame<'_>) -> Result<Vector> {
        if let Op::Column(position) = self.nodes[id].op
            && let Vector::Dict { .. } = frame.columns[position]
        {
            if let Some(flat) = &frame.flat[position] {
                return Ok(flat.clone());
            }
            let flat = Vector::Flat(frame.columns[position].flatten(self.account())?);
            frame.flat[position] = Some(flat.clone());
            return Ok(flat);
        }
        match self.eval(id, frame)? {
            dict @ Vector::Dict { .. } => Ok(Vector::Flat(dict.flatten(self.account())?)),
            plain @ (Vector::Flat(_) | Vector::Constant { .. }) => Ok(plain),
        }
    }

    /// The value of a node in the rows named; unspecified in the others, which cannot raise errors.
    pub(super) fn eval_rows(&mut self, id: usize, frame: &Frame<'_>, indices: &[u32]) -> Result<Vector> {
        if indices.is_empty() {
            let value = Scalar::null(self.nodes[id].data_type.clone());
            return Ok(Vector::Constant { value, len: frame.rows });
        }
        let mut part = self.gathered(std::slice::from_ref(&id), frame, indices)?;
        let result = self.eval_plain(id, &mut part)?;
        scatter(result, indices, frame.rows, self.account())
    }

    /// A frame of the rows named, with the columns the nodes read.
    pub(super) fn gathered(
        &self,
        ids: &[usize],
        frame: &Frame<'_>,
        indices: &[u32],
    ) -> Result<Frame<'static>> {
        let rows = indices.len();
        let mut columns = Vec::with_capacity(frame.columns.len());
        for (position, column) in frame.columns.iter().enumerate() {
            let is_read = ids.iter().any(|id| self.nodes[*id].columns.contains(&position));
            columns.push(if is_read { column.gather(indices, self.account())? } else { absent(rows) });
        }
        Ok(Frame::new(Cow::Owned(columns), rows, rows, self.nodes.len()))
    }

    fn compute(&mut self, id: usize, frame: &mut Frame<'_>) -> Result<Vector> {
        let node = &self.nodes[id];
        match &node.op {
            Op::Column(position) => return Ok(frame.columns[*position].clone()),
            Op::Constant(value) => return Ok(Vector::Constant { value: value.clone(), len: frame.rows }),
            _ if frame.rows == 0 => {
                return Ok(Vector::Constant { value: Scalar::null(node.data_type.clone()), len: 0 });
            }
            _ => {}
        }
        if let Some(result) = self.over_dictionary(id, frame)? {
            return Ok(result);
        }
        match &node.op {
            Op::And => self.connective(true, node, frame),
            Op::Or => self.connective(false, node, frame),
            Op::Case => self.case(node, frame),
            _ => {
                let inputs = node.inputs.iter().map(|input| self.eval_plain(*input, frame));
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                self.apply(node, &inputs, frame.rows)
            }
        }
    }

    /// An operation whose inputs are all evaluated in every row.
    fn apply(&mut self, node: &Node, inputs: &[Vector], rows: usize) -> Result<Vector> {
        let is_null = |v: &Vector| matches!(v, Vector::Constant { value, .. } if value.is_null());
        if is_strict(&node.op) && inputs.iter().any(is_null) {
            return Ok(Vector::Constant { value: Scalar::null(node.data_type.clone()), len: rows });
        }
        let are_constant = inputs.iter().all(|v| matches!(v, Vector::Constant { .. }));
        if are_constant && node.is_deterministic {
            let one = |v: &Vector| match v {
                Vector::Constant { value, .. } => Vector::Constant { value: value.clone(), len: 1 }
                    .flatten(self.account())
                    .map(Vector::Flat),
                other @ (Vector::Flat(_) | Vector::Dict { .. }) => Ok(other.clone()),
            };
            let inputs = inputs.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            let result = self.kernel(node, &inputs, 1)?;
            return Ok(Vector::Constant { value: result.scalar(0, &node.data_type), len: rows });
        }
        self.kernel(node, inputs, rows)
    }

    fn kernel(&mut self, node: &Node, inputs: &[Vector], rows: usize) -> Result<Vector> {
        let account = self.account();
        let types = &node.input_types;
        match (&node.op, inputs) {
            (Op::Compare(op), [left, right]) => compare::compare(*op, left, right, &types[0], rows, account),
            (Op::Arithmetic(op), [left, right]) => {
                let types = ArithmeticTypes { left: &types[0], right: &types[1], result: &node.data_type };
                arithmetic(*op, left, right, types, rows, account)
            }
            (Op::Negate, [operand]) => negate(operand, &node.data_type, account),
            (Op::Not, [operand]) => boolean::not(operand, rows, account),
            (Op::IsNull, [operand]) => boolean::is_null(operand, rows, account),
            (Op::InList(_), [operand]) => match &node.prepared {
                Prepared::Set(set) => set.contains(operand, &types[0], rows, account),
                Prepared::Nothing | Prepared::Pattern(_) => Err(Error::internal("lists are prepared")),
            },
            (Op::Like { escape, ignore_case }, [operand, pattern]) => {
                let manner = (*escape, *ignore_case);
                like_bits(&node.prepared, operand, pattern, rows, manner, account)
            }
            (Op::Cast { is_try }, [operand]) => {
                let flat = operand.flatten(account)?;
                let types = CastTypes { from: &types[0], to: &node.data_type, is_try: *is_try };
                cast(&flat, types, account)
            }
            (Op::Call(function), arguments) => {
                let call = CallTypes { arguments: types, result: &node.data_type };
                let result = function.evaluate(call, arguments, rows, self.cx)?;
                if function.is_strict() { with_nulls_of(result, arguments, account) } else { Ok(result) }
            }
            (op, inputs) => Err(Error::internal(format!("{op:?} with {} inputs", inputs.len()))),
        }
    }
}

/// What stands for a column nobody reads.
pub(super) fn absent(rows: usize) -> Vector {
    Vector::Constant { value: Scalar::null(crate::data::DataType::Null), len: rows }
}

/// Whether a null input makes the result null whatever the others.
fn is_strict(op: &Op) -> bool {
    match op {
        Op::Compare(op) => !matches!(op, CompareOp::IsDistinct | CompareOp::IsNotDistinct),
        Op::Arithmetic(_) | Op::Negate | Op::Not | Op::InList(_) | Op::Like { .. } | Op::Cast { .. } => true,
        Op::Call(function) => function.is_strict(),
        Op::Column(_) | Op::Constant(_) | Op::And | Op::Or | Op::IsNull | Op::Case => false,
    }
}

/// `result` with nulls also where an argument is null.
fn with_nulls_of(result: Vector, arguments: &[Vector], account: &Account) -> Result<Vector> {
    let mut valid = None;
    for argument in arguments {
        valid = both_valid(valid.as_ref(), validity(argument), account)?;
    }
    if valid.is_none() || matches!(&result, Vector::Constant { value, .. } if value.is_null()) {
        return Ok(result);
    }
    let mut flat = result.flatten(account)?;
    flat.validity = both_valid(valid.as_ref(), flat.validity.as_ref(), account)?;
    Ok(Vector::Flat(flat))
}

fn like_bits(
    prepared: &Prepared,
    operand: &Vector,
    pattern: &Vector,
    rows: usize,
    manner: (Option<char>, bool),
    account: &Account,
) -> Result<Vector> {
    let strings = |vector: &Vector| match vector.flatten(account)?.values {
        Values::View(strings) => Ok(strings),
        _ => Err(Error::internal("LIKE is for strings")),
    };
    let texts = strings(operand)?;
    let bits = match prepared {
        Prepared::Pattern(matcher) => matcher.bits(&texts, account)?,
        Prepared::Nothing | Prepared::Set(_) => {
            use crate::expr::kernels::operand::Operand::Slice;
            let patterns = strings(pattern)?;
            let (text, pattern) =
                ((Slice(&texts.views), &*texts.buffers), (Slice(&patterns.views), &*patterns.buffers));
            like::dynamic_bits(text, pattern, rows, manner, account)?
        }
    };
    let validity = both_valid(validity(operand), validity(pattern), account)?;
    Ok(Vector::Flat(FlatVector { values: Values::Bool(bits.freeze()), validity, bounds: None }))
}

/// Whether a boolean result is the same everywhere: its truth, null being false.
pub(super) fn constant_truth(vector: &Vector) -> Option<bool> {
    match vector {
        Vector::Constant { value, .. } => Some(value.value == Value::Boolean(true)),
        Vector::Flat(_) | Vector::Dict { .. } => None,
    }
}

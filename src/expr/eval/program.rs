//! Expressions compiled to a graph in which equal sub-expressions are one node.

use crate::data::{DataType, PhysicalType, Scalar, Value};
use crate::error::{Error, Result};
use crate::expr::kernels::in_list::InSet;
use crate::expr::kernels::like::Matcher;
use crate::expr::{ArithmeticOp, ColumnId, CompareOp, Expr, ScalarFunction};
use std::sync::Arc;

/// What a node does with its inputs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// Column at a position of the batch.
    Column(usize),
    Constant(Scalar),
    Compare(CompareOp),
    Arithmetic(ArithmeticOp),
    Negate,
    And,
    Or,
    Not,
    IsNull,
    InList(Arc<[Scalar]>),
    Like {
        escape: Option<char>,
        ignore_case: bool,
    },
    /// Inputs are condition and value of each branch in turn, then the value otherwise if the count is odd.
    Case,
    Cast {
        is_try: bool,
    },
    Call(Arc<dyn ScalarFunction>),
}

/// What was made ready at compile time.
#[derive(Clone, Debug)]
pub(super) enum Prepared {
    Nothing,
    Set(InSet),
    Pattern(Matcher),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) inputs: Vec<usize>,
    /// Types of the inputs.
    pub(super) input_types: Vec<DataType>,
    pub(super) data_type: DataType,
    pub(super) prepared: Prepared,
    /// Positions of the columns it reads, directly or not, ascending.
    pub(super) columns: Vec<usize>,
    pub(super) is_deterministic: bool,
    /// How many nodes and roots read it.
    pub(super) uses: usize,
    /// Rough work per row, its inputs' included; an integer comparison is 1.
    pub(super) cost: u32,
}

/// Compiled expressions.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) nodes: Vec<Node>,
    /// The node of each expression.
    pub(super) roots: Vec<usize>,
}

impl Program {
    /// Compiles expressions over batches whose columns are named `layout`.
    pub(super) fn new<'a>(exprs: impl IntoIterator<Item = &'a Expr>, layout: &[ColumnId]) -> Result<Self> {
        let mut program = Self { nodes: Vec::new(), roots: Vec::new() };
        for expr in exprs {
            let root = program.intern(expr, layout)?;
            program.nodes[root].uses += 1;
            program.roots.push(root);
        }
        Ok(program)
    }

    fn intern(&mut self, expr: &Expr, layout: &[ColumnId]) -> Result<usize> {
        let op = match expr {
            Expr::Column { id, .. } => match layout.iter().position(|c| c == id) {
                Some(position) => Op::Column(position),
                None => {
                    return Err(Error::internal(format!("column {expr} is not in the layout {layout:?}")));
                }
            },
            Expr::Literal(scalar) => Op::Constant(scalar.clone()),
            Expr::Compare { op, .. } => Op::Compare(*op),
            Expr::Arithmetic { op, .. } => Op::Arithmetic(*op),
            Expr::Negate(_) => Op::Negate,
            Expr::And(_) => Op::And,
            Expr::Or(_) => Op::Or,
            Expr::Not(_) => Op::Not,
            Expr::IsNull(_) => Op::IsNull,
            Expr::InList { list, .. } => Op::InList(Arc::clone(list)),
            Expr::Like { escape, ignore_case, .. } => Op::Like { escape: *escape, ignore_case: *ignore_case },
            Expr::Case { .. } => Op::Case,
            Expr::Cast { is_try, .. } => Op::Cast { is_try: *is_try },
            Expr::Call { function, .. } => Op::Call(Arc::clone(function)),
        };
        let mut children = Vec::new();
        expr.for_each_child(&mut |child| children.push(child));
        let inputs =
            children.into_iter().map(|child| self.intern(child, layout)).collect::<Result<Vec<_>>>()?;
        let data_type = expr.data_type();
        let is_deterministic = match &op {
            Op::Call(function) => function.is_deterministic(),
            _ => true,
        } && inputs.iter().all(|i| self.nodes[*i].is_deterministic);
        let is_same = |node: &Node| {
            node.is_deterministic
                && node.inputs == inputs
                && node.data_type == data_type
                && same(&node.op, &op)
        };
        if is_deterministic && let Some(found) = self.nodes.iter().position(is_same) {
            return Ok(found);
        }
        for &input in &inputs {
            self.nodes[input].uses += 1;
        }
        let mut columns: Vec<usize> = inputs.iter().flat_map(|i| self.nodes[*i].columns.clone()).collect();
        if let Op::Column(position) = op {
            columns.push(position);
        }
        columns.sort_unstable();
        columns.dedup();
        let input_types: Vec<DataType> = inputs.iter().map(|i| self.nodes[*i].data_type.clone()).collect();
        let prepared = match (&op, inputs.get(1).map(|i| &self.nodes[*i].op)) {
            (Op::InList(list), _) => Prepared::Set(InSet::new(list)),
            (
                Op::Like { escape, ignore_case },
                Some(Op::Constant(Scalar { value: Value::Utf8(pattern), .. })),
            ) => Prepared::Pattern(Matcher::new(pattern, *escape, *ignore_case)),
            _ => Prepared::Nothing,
        };
        let own = own_cost(&op, input_types.first().unwrap_or(&data_type), &data_type);
        let cost = inputs.iter().fold(own, |sum, i| sum.saturating_add(self.nodes[*i].cost));
        self.nodes.push(Node {
            op,
            inputs,
            input_types,
            data_type,
            prepared,
            columns,
            is_deterministic,
            uses: 0,
            cost,
        });
        Ok(self.nodes.len() - 1)
    }
}

/// Whether two operations do the same. Literals 0.0 and -0.0 are equal values but not the same.
fn same(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (
            Op::Constant(Scalar { value: Value::Float(a), data_type: at }),
            Op::Constant(Scalar { value: Value::Float(b), data_type: bt }),
        ) => a.to_bits() == b.to_bits() && at == bt,
        (a, b) => a == b,
    }
}

fn own_cost(op: &Op, input: &DataType, output: &DataType) -> u32 {
    let is_text = |t: &DataType| t.physical() == PhysicalType::View;
    match op {
        Op::Column(_) | Op::Constant(_) => 0,
        Op::Compare(_) if is_text(input) => 6,
        Op::Compare(_) | Op::Negate | Op::And | Op::Or | Op::Not | Op::IsNull => 1,
        Op::Arithmetic(ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo) => 4,
        Op::Arithmetic(_) => 1,
        Op::InList(list) => 2 + list.len().min(16) as u32,
        Op::Like { .. } => 30,
        Op::Case => 4,
        Op::Cast { .. } if is_text(input) || is_text(output) => 60,
        Op::Cast { .. } => 2,
        Op::Call(_) => 20,
    }
}

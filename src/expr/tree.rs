//! The expression tree.

use super::eval::EvalCx;
use crate::data::{DataType, Scalar, Vector};
use crate::error::Result;
use std::fmt;
use std::sync::Arc;

/// The name of a column within one query; unique, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ColumnId(pub(crate) u32);

/// Comparison operators. The distinct forms treat null as a value and never answer null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CompareOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    IsDistinct,
    IsNotDistinct,
}

/// Arithmetic operators on two operands of one type, or on the pairs coercion allows (dates and integers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    /// Floating-point division (DuckDB's `/`); division by zero is null.
    Divide,
    /// Integer division (DuckDB's `//`); division by zero is null.
    IntegerDivide,
    /// Remainder; by zero it is null.
    Modulo,
}

/// A bound, typed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// A column of the input.
    Column { id: ColumnId, data_type: DataType, nullable: bool },
    /// A value.
    Literal(Scalar),
    /// A comparison of two operands of the same type.
    Compare { op: CompareOp, left: Box<Expr>, right: Box<Expr> },
    /// Arithmetic; decimal operands keep their own scales, `data_type` says the result's.
    Arithmetic { op: ArithmeticOp, left: Box<Expr>, right: Box<Expr>, data_type: DataType },
    /// Unary minus.
    Negate(Box<Expr>),
    /// Conjunction of at least two operands.
    And(Vec<Expr>),
    /// Disjunction of at least two operands.
    Or(Vec<Expr>),
    /// Negation.
    Not(Box<Expr>),
    /// `IS NULL`; never null itself.
    IsNull(Box<Expr>),
    /// Membership in a list of values of the operand's type, nulls included; three-valued.
    InList { operand: Box<Expr>, list: Arc<[Scalar]> },
    /// `LIKE` (or `ILIKE`) with `%`, `_` and an optional escape character.
    Like { operand: Box<Expr>, pattern: Box<Expr>, escape: Option<char>, ignore_case: bool },
    /// The value of the first branch whose condition is true, else `otherwise`, else null.
    Case { branches: Vec<(Expr, Expr)>, otherwise: Option<Box<Expr>>, data_type: DataType },
    /// A conversion; `is_try` makes failures null instead of an error.
    Cast { operand: Box<Expr>, data_type: DataType, is_try: bool },
    /// A scalar function.
    Call { function: Arc<dyn ScalarFunction>, arguments: Vec<Expr>, data_type: DataType },
}

/// The types of a call, as coerced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTypes<'a> {
    pub(crate) arguments: &'a [DataType],
    pub(crate) result: &'a DataType,
}

/// A scalar function of the library.
pub(crate) trait ScalarFunction: Send + Sync + 'static {
    /// The name it is called by, lower case.
    fn name(&self) -> &'static str;
    /// Other names, lower case.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }
    /// The types the arguments must be coerced to, and the type of the result.
    ///
    /// # Errors
    /// A plan error that says what the function takes.
    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)>;
    /// The type of the result once the arguments themselves are known, where a constant decides it (the digits of
    /// `round`). `arguments` have been coerced to the signature's types.
    fn refined(&self, _arguments: &[Expr], result: DataType) -> DataType {
        result
    }
    /// The results for `rows` rows of arguments that have the signature's types and are flat or constant.
    fn evaluate(
        &self,
        types: CallTypes<'_>,
        arguments: &[Vector],
        rows: usize,
        cx: &mut EvalCx<'_>,
    ) -> Result<Vector>;
    /// Whether a null argument makes the result null. Then results are unspecified, and errors must not be raised,
    /// in rows where some argument is null; the evaluator fills the nulls in.
    fn is_strict(&self) -> bool {
        true
    }
    /// Whether equal arguments give equal results (then it may be folded and evaluated on dictionaries).
    fn is_deterministic(&self) -> bool {
        true
    }
}

impl fmt::Debug for dyn ScalarFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn ScalarFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl CompareOp {
    /// The operator with its operands exchanged.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::LtEq => Self::GtEq,
            Self::Gt => Self::Lt,
            Self::GtEq => Self::LtEq,
            Self::Eq | Self::NotEq | Self::IsDistinct | Self::IsNotDistinct => self,
        }
    }

    /// The operator that is true exactly where this one is false (nulls aside).
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Eq => Self::NotEq,
            Self::NotEq => Self::Eq,
            Self::Lt => Self::GtEq,
            Self::LtEq => Self::Gt,
            Self::Gt => Self::LtEq,
            Self::GtEq => Self::Lt,
            Self::IsDistinct => Self::IsNotDistinct,
            Self::IsNotDistinct => Self::IsDistinct,
        }
    }
}

impl Expr {
    /// The type of its value.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Column { data_type, .. }
            | Self::Arithmetic { data_type, .. }
            | Self::Case { data_type, .. }
            | Self::Cast { data_type, .. }
            | Self::Call { data_type, .. } => data_type.clone(),
            Self::Literal(scalar) => scalar.data_type.clone(),
            Self::Negate(operand) => operand.data_type(),
            Self::Compare { .. }
            | Self::And(_)
            | Self::Or(_)
            | Self::Not(_)
            | Self::IsNull(_)
            | Self::InList { .. }
            | Self::Like { .. } => DataType::Boolean,
        }
    }

    /// Whether it may be null.
    pub(crate) fn is_nullable(&self) -> bool {
        match self {
            Self::Column { nullable, .. } => *nullable,
            Self::Literal(scalar) => scalar.is_null(),
            Self::IsNull(_) => false,
            Self::Compare { op: CompareOp::IsDistinct | CompareOp::IsNotDistinct, .. } => false,
            Self::Arithmetic {
                op: ArithmeticOp::Divide | ArithmeticOp::IntegerDivide | ArithmeticOp::Modulo,
                ..
            }
            | Self::Case { otherwise: None, .. }
            | Self::Cast { is_try: true, .. }
            | Self::Call { .. } => true,
            Self::InList { operand, list } => operand.is_nullable() || list.iter().any(Scalar::is_null),
            Self::Compare { .. }
            | Self::Arithmetic { .. }
            | Self::Negate(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Not(_)
            | Self::Like { .. }
            | Self::Case { .. }
            | Self::Cast { .. } => {
                let mut nullable = false;
                self.for_each_child(&mut |child| nullable |= child.is_nullable());
                nullable
            }
        }
    }

    /// Calls `f` on each direct operand.
    pub(crate) fn for_each_child<'a>(&'a self, f: &mut dyn FnMut(&'a Self)) {
        match self {
            Self::Column { .. } | Self::Literal(_) => {}
            Self::Compare { left, right, .. } | Self::Arithmetic { left, right, .. } => {
                f(left);
                f(right);
            }
            Self::Negate(e) | Self::Not(e) | Self::IsNull(e) | Self::Cast { operand: e, .. } => f(e),
            Self::InList { operand, .. } => f(operand),
            Self::Like { operand, pattern, .. } => {
                f(operand);
                f(pattern);
            }
            Self::And(list) | Self::Or(list) | Self::Call { arguments: list, .. } => list.iter().for_each(f),
            Self::Case { branches, otherwise, .. } => {
                for (condition, value) in branches {
                    f(condition);
                    f(value);
                }
                if let Some(otherwise) = otherwise {
                    f(otherwise);
                }
            }
        }
    }

    /// The same expression with `f` applied to each direct operand.
    #[must_use]
    pub(crate) fn map_children(self, f: &mut dyn FnMut(Self) -> Self) -> Self {
        let mut boxed = |e: Box<Self>| Box::new(f(*e));
        match self {
            Self::Column { .. } | Self::Literal(_) => self,
            Self::Compare { op, left, right } => Self::Compare { op, left: boxed(left), right: boxed(right) },
            Self::Arithmetic { op, left, right, data_type } => {
                Self::Arithmetic { op, left: boxed(left), right: boxed(right), data_type }
            }
            Self::Negate(e) => Self::Negate(boxed(e)),
            Self::Not(e) => Self::Not(boxed(e)),
            Self::IsNull(e) => Self::IsNull(boxed(e)),
            Self::Cast { operand, data_type, is_try } => {
                Self::Cast { operand: boxed(operand), data_type, is_try }
            }
            Self::InList { operand, list } => Self::InList { operand: boxed(operand), list },
            Self::Like { operand, pattern, escape, ignore_case } => {
                Self::Like { operand: boxed(operand), pattern: boxed(pattern), escape, ignore_case }
            }
            Self::And(list) => Self::And(list.into_iter().map(f).collect()),
            Self::Or(list) => Self::Or(list.into_iter().map(f).collect()),
            Self::Call { function, arguments, data_type } => {
                Self::Call { function, arguments: arguments.into_iter().map(f).collect(), data_type }
            }
            Self::Case { branches, otherwise, data_type } => {
                let branches = branches.into_iter().map(|(c, v)| (f(c), f(v))).collect();
                Self::Case { branches, otherwise: otherwise.map(|e| Box::new(f(*e))), data_type }
            }
        }
    }

    /// Calls `f` for each column it reads, with repetitions.
    pub(crate) fn for_each_column(&self, f: &mut dyn FnMut(ColumnId)) {
        if let Self::Column { id, .. } = self {
            f(*id);
        }
        self.for_each_child(&mut |child| child.for_each_column(f));
    }

    /// Number of nodes of the tree.
    pub(crate) fn node_count(&self) -> usize {
        let mut nodes = 1;
        self.for_each_child(&mut |child| nodes += child.node_count());
        nodes
    }

    /// Splits a conjunction, nested ones too, into its operands.
    pub(crate) fn into_conjuncts(self, out: &mut Vec<Self>) {
        match self {
            Self::And(list) => list.into_iter().for_each(|e| e.into_conjuncts(out)),
            other => out.push(other),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, list: &[Self], separator: &str| {
            list.iter()
                .enumerate()
                .try_for_each(|(i, e)| write!(f, "{}{e}", if i > 0 { separator } else { "" }))
        };
        match self {
            Self::Column { id, .. } => write!(f, "#{}", id.0),
            Self::Literal(scalar) => write!(f, "{scalar}"),
            Self::Compare { op, left, right } => write!(f, "({left} {} {right})", op.symbol()),
            Self::Arithmetic { op, left, right, .. } => write!(f, "({left} {} {right})", op.symbol()),
            Self::Negate(e) => write!(f, "(-{e})"),
            Self::And(operands) => {
                f.write_str("(")?;
                list(f, operands, " AND ")?;
                f.write_str(")")
            }
            Self::Or(operands) => {
                f.write_str("(")?;
                list(f, operands, " OR ")?;
                f.write_str(")")
            }
            Self::Not(e) => write!(f, "(NOT {e})"),
            Self::IsNull(e) => write!(f, "({e} IS NULL)"),
            Self::InList { operand, list } => {
                write!(f, "({operand} IN (")?;
                for (i, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("))")
            }
            Self::Like { operand, pattern, ignore_case, .. } => {
                write!(f, "({operand} {} {pattern})", if *ignore_case { "ILIKE" } else { "LIKE" })
            }
            Self::Case { branches, otherwise, .. } => {
                f.write_str("CASE")?;
                for (condition, value) in branches {
                    write!(f, " WHEN {condition} THEN {value}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            Self::Cast { operand, data_type, is_try } => {
                write!(f, "{}({operand} AS {data_type})", if *is_try { "TRY_CAST" } else { "CAST" })
            }
            Self::Call { function, arguments, .. } => {
                write!(f, "{}(", function.name())?;
                list(f, arguments, ", ")?;
                f.write_str(")")
            }
        }
    }
}

impl CompareOp {
    /// How SQL writes it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::NotEq => "<>",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
            Self::IsDistinct => "IS DISTINCT FROM",
            Self::IsNotDistinct => "IS NOT DISTINCT FROM",
        }
    }
}

impl ArithmeticOp {
    /// How SQL writes it.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::IntegerDivide => "//",
            Self::Modulo => "%",
        }
    }
}

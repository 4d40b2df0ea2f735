//! Typed expressions over named columns, and their vectorised evaluation.
//!
//! Owns: [`ColumnId`], the bound expression tree [`Expr`], coercion rules, the scalar-function trait, and the
//! evaluator that runs a compiled expression over batches.
//!
//! Invariants:
//! 1. An [`Expr`] is fully typed: every node knows its type, and operands have been coerced when it was built.
//! 2. A column is named by an id that is unique in its query, never by position; positions exist only in compiled
//!    expressions.
//! 3. An expression contains no subquery: the binder turns those into plan nodes whose output is a column.
//! 4. Evaluation over rows that are not selected has no visible effect: neither values nor errors.
//!
//! Must not know: plans, operators, SQL text.

mod coerce;
mod eval;
pub(crate) mod kernels;
mod tree;

pub(crate) use coerce::{arithmetic, call, cast_to, common_type, compare};
pub(crate) use eval::{EvalCx, Evaluator, Predicate, evaluate_constant};
pub(crate) use tree::{ArithmeticOp, CallTypes, ColumnId, CompareOp, Expr, ScalarFunction};

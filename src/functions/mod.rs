//! The function library: scalar functions and aggregates, one a file.
//!
//! Owns: the registry, [`AggregateFunction`] and [`Accumulator`], every built-in function.
//!
//! Invariants:
//! 1. A function is one file and one line in its family's list.
//! 2. Every aggregate that has a state exports it as columns and merges such columns back; export then merge loses nothing.
//!
//! Must not know: plans, operators, SQL text.

pub(crate) mod aggregate;
pub(crate) mod scalar;

pub(crate) use aggregate::{
    Accumulator, AggregateCall, AggregateFunction, Evaluation, GroupIds, Ordered, OrderedArguments, Rows,
};

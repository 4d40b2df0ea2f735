//! Aggregates of rows that come in order, group by group, and within a group in the order of a value.
//!
//! Owns: medians and other quantiles, modes. The sort below has done the work, in any memory; what is left is to count the
//! rows of a group and to take some of them (the ordered aggregates of Kohn, Leis and Neumann, "Building Advanced SQL
//! Analytics From Low-Level Plan Operators", SIGMOD 2021, section 3.3).
//!
//! Invariants:
//! 1. A value comes once with how often it counts, or as often as it counts. If a mode is asked, no value of a group comes
//!    twice.
//! 2. A group that lies within a batch is answered there, together with others. The last group of a batch is [carried]:
//!    there may be more of it. Its values are held, on disk if memory is short, until the next group begins.
//! 3. Nulls come last and do not count.
//! 4. What is held is registered as something that can be spilled.
//!
//! Must not know: how rows were brought into order.
//!
//! [carried]: carried

mod carried;
mod counts;
mod pushed;
mod ranks;
mod transform;

#[cfg(test)]
mod tests;

use crate::data::DataType;
use crate::exec::TransformBox;
use crate::expr::{ColumnId, Expr};
use crate::functions::Ordered;

/// What to compute. Rows come in the order of `groups`, and of `value` with nulls last, on a single lane.
pub(crate) struct OrderedAggregateSpec {
    /// Columns of the input.
    pub(crate) layout: Vec<ColumnId>,
    /// None make one group of all rows, even if there are none.
    pub(crate) groups: Vec<Expr>,
    /// What all calls are about.
    pub(crate) value: Expr,
    /// How often it counts, a `BIGINT` above 0; once if that is not said.
    pub(crate) count: Option<Expr>,
    pub(crate) calls: Vec<OrderedCall>,
}

/// An aggregate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OrderedCall {
    pub(crate) kind: Ordered,
    /// From 0 to 1; of a mode it means nothing.
    pub(crate) fraction: f64,
    /// Of the result.
    pub(crate) data_type: DataType,
}

/// One row a group: its keys, then the result of each call.
pub(crate) fn ordered_aggregate(spec: OrderedAggregateSpec) -> TransformBox {
    TransformBox::new(transform::OrderedAggregate::new(spec))
}

//! Aggregate functions and the contract of their state.
//!
//! Most functions keep a state; those that need the rows of a group in order ([`Ordered`]) are computed from sorted rows.
//!
//! State is columnar: an accumulator holds the states of all groups of one aggregate, indexed by a dense group
//! number, so that updating, exporting and merging are loops over columns.
//!
//! Invariants:
//! 1. `resize` and `reserve` are the only calls that may be refused memory for state, and a refusal changes no
//!    state. `update` and `merge` after them take no more of it, so a batch is counted wholly or not at all.
//! 2. A group nobody counted into exports a state that merges as nothing.

mod support;

use crate::data::{DataType, Scalar, Value, Vector};
use crate::error::{Error, Result};
use crate::expr::{EvalCx, Expr};
use crate::mem::{Account, Denied};
use std::fmt;
use std::sync::Arc;

/// An aggregate in a query.
#[derive(Clone, Debug)]
pub(crate) struct AggregateCall {
    /// Which aggregate.
    pub(crate) function: Arc<dyn AggregateFunction>,
    /// Its arguments, coerced to the function's signature.
    pub(crate) arguments: Vec<Expr>,
    /// Only distinct argument rows count.
    pub(crate) distinct: bool,
    /// Only rows for which this is true count.
    pub(crate) filter: Option<Expr>,
    /// Type of the result.
    pub(crate) data_type: DataType,
}

/// What a call takes of a group's values in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OrderedArguments<'a> {
    /// How.
    pub(crate) kind: Ordered,
    /// The values.
    pub(crate) value: &'a Expr,
    /// Of a median the middle; of a mode it means nothing.
    pub(crate) fraction: f64,
    /// How often a value counts, if each comes once with that.
    pub(crate) count: Option<&'a Expr>,
}

/// Where a median is.
const MIDDLE: f64 = 0.5;

impl AggregateCall {
    /// Whether it takes of values in order.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self.function.evaluation(), Evaluation::Ordered(_))
    }

    /// Its arguments, if it takes of values in order.
    pub(crate) fn ordered(&self) -> Option<OrderedArguments<'_>> {
        let Evaluation::Ordered(kind) = self.function.evaluation() else { return None };
        let fraction = match self.arguments.get(1) {
            Some(Expr::Literal(Scalar { value: Value::Float(fraction), .. })) => *fraction,
            _ => MIDDLE,
        };
        Some(OrderedArguments {
            kind,
            value: self.arguments.first()?,
            fraction,
            count: self.arguments.get(2),
        })
    }

    /// How many rows there are.
    pub(crate) fn count_rows() -> Result<Self> {
        let function = built_in("count")?;
        let (arguments, data_type) = (vec![], DataType::Int64);
        Ok(Self { function, arguments, distinct: false, filter: None, data_type })
    }

    /// The same of values that come once each, in column `value`, and count as often as `count` says.
    pub(crate) fn over_counted(mut self, value: Expr, count: Option<Expr>) -> Self {
        let fraction = self.ordered().map_or(MIDDLE, |arguments| arguments.fraction);
        let fraction = Expr::Literal(Scalar::float(fraction));
        self.arguments = match count {
            Some(count) => vec![value, fraction, count],
            None => vec![value, fraction],
        };
        self
    }
}

impl PartialEq for AggregateCall {
    fn eq(&self, other: &Self) -> bool {
        *self.function == *other.function
            && self.arguments == other.arguments
            && self.distinct == other.distinct
            && self.filter == other.filter
            && self.data_type == other.data_type
    }
}

/// An aggregate function of the library.
pub(crate) trait AggregateFunction: Send + Sync + 'static {
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
    /// How its results come about.
    fn evaluation(&self) -> Evaluation<'_>;
}

/// How the results of an aggregate function come about.
pub(crate) enum Evaluation<'a> {
    /// From states, into which rows are counted in any order.
    States(&'a dyn StatefulAggregate),
    /// From the rows of a group in the order of the first argument; those where it is null do not count.
    Ordered(Ordered),
}

/// What is taken of `n` values in order, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// The value at `(n - 1) * fraction`, between two values if need be. Where a type has no values in between, the same
    /// as `Discrete`.
    Continuous,
    /// The first value that at least `n * fraction` values are not above.
    Discrete,
    /// The one that is there most often, the least of several.
    Mode,
}

/// An aggregate function whose state is kept by group.
pub(crate) trait StatefulAggregate: AggregateFunction {
    /// Types of the columns its state is exported as.
    fn state_types(&self, arguments: &[DataType]) -> Vec<DataType>;
    /// No groups yet.
    fn accumulator(&self, arguments: &[DataType]) -> Box<dyn Accumulator>;
}

/// Which rows of the argument vectors count: all `0..n`, or those at positions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<'a> {
    /// The first `n`, all.
    All(usize),
    /// Those at ascending positions.
    At(&'a [u32]),
}

/// The group of each row that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GroupIds<'a> {
    /// All belong to group 0.
    One,
    /// Group numbers, one per row that counts, all below `groups`. When `groups` is small (at most 16, say) kernels
    /// may keep all sums in registers.
    Each { ids: &'a [u32], groups: usize },
}

/// Which groups to export or finish, and in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GroupSet<'a> {
    /// `len` groups from `start` on.
    Range { start: usize, len: usize },
    /// Those listed.
    At(&'a [u32]),
}

impl Rows<'_> {
    /// Number of rows that count.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All(n) => *n,
            Self::At(positions) => positions.len(),
        }
    }

    /// Position in the vectors of the row that counts as number `k`.
    #[inline(always)]
    pub(crate) fn position(&self, k: usize) -> usize {
        match self {
            Self::All(_) => k,
            Self::At(positions) => positions[k] as usize,
        }
    }
}

impl<'a> GroupSet<'a> {
    /// The `len` groups from place `from` on.
    pub(crate) fn slice(&self, from: usize, len: usize) -> GroupSet<'a> {
        match self {
            Self::Range { start, .. } => GroupSet::Range { start: start + from, len },
            Self::At(groups) => GroupSet::At(&groups[from..from + len]),
        }
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Range { len, .. } => *len,
            Self::At(groups) => groups.len(),
        }
    }

    /// The group at place `i`.
    #[inline(always)]
    pub(crate) fn group(&self, i: usize) -> usize {
        match self {
            Self::Range { start, .. } => start + i,
            Self::At(groups) => groups[i] as usize,
        }
    }
}

/// The states of all groups of one aggregate.
pub(crate) trait Accumulator: Send + Sync {
    /// Makes room for groups `0..groups`; new ones start empty. Never shrinks.
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied>;
    /// Makes room for what `update` (or `merge`) of these rows may have to keep beyond the fixed part of the
    /// states, such as the bytes of strings. Groups must have been made room for.
    fn reserve(&mut self, _rows: Rows<'_>, _columns: &[Vector], _account: &Account) -> Result<(), Denied> {
        Ok(())
    }
    /// Counts argument rows in. `arguments` cover all physical rows; `rows` says which count.
    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()>;
    /// Counts exported states in; `states` has the columns of `state_types`.
    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()>;
    /// The states of `groups` as columns of `state_types`.
    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>>;
    /// The results of `groups`.
    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector>;
    /// Forgets all groups and gives their memory back.
    fn clear(&mut self);
    /// Bytes of memory behind it.
    fn allocated_bytes(&self) -> usize;
}

impl fmt::Debug for dyn AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn AggregateFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// Declares the library: one file and one line here for each function.
macro_rules! library {
    ($($file:ident::$function:ident),* $(,)?) => {
        $(mod $file;)*
        /// The files of the library.
        #[cfg(test)]
        const FILES: &[&str] = &[$(stringify!($file)),*];
        /// All functions of the library.
        fn library() -> Vec<Arc<dyn AggregateFunction>> {
            vec![$(Arc::new($file::$function)),*]
        }
    };
}

library! {
    any_value::AnyValue,
    avg::Avg,
    bool_and::BoolAnd,
    bool_or::BoolOr,
    count::Count,
    first::First,
    max::Max,
    median::Median,
    min::Min,
    mode::Mode,
    quantile_cont::QuantileCont,
    quantile_disc::QuantileDisc,
    stddev_pop::StddevPop,
    stddev_samp::StddevSamp,
    sum::Sum,
    var_pop::VarPop,
    var_samp::VarSamp,
}

/// The aggregate called `name` (any case).
pub(crate) fn find(name: &str) -> Option<Arc<dyn AggregateFunction>> {
    let is_called = |called: &str| called.eq_ignore_ascii_case(name);
    library().into_iter().find(|f| is_called(f.name()) || f.aliases().iter().any(|a| is_called(a)))
}

/// The aggregate called `name`, which is one of the library's.
pub(crate) fn built_in(name: &str) -> Result<Arc<dyn AggregateFunction>> {
    find(name).ok_or_else(|| Error::internal(format!("the library has no {name}")))
}

/// The only argument's type, or a plan error that says what `name` takes.
fn one_argument<'a>(name: &str, takes: &str, arguments: &'a [DataType]) -> Result<&'a DataType> {
    match arguments {
        [one] => Ok(one),
        _ => Err(Error::plan(
            format!("{name} takes one argument ({takes}), but has {}; write {name}(x)", arguments.len()),
            None,
        )),
    }
}

/// A plan error: `name` does not take `given`.
fn wrong_type(name: &str, takes: &str, given: &DataType) -> Error {
    Error::plan(format!("{name} takes {takes}, not {given}; cast the argument"), None)
}

#[cfg(test)]
mod tests;

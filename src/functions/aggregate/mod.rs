//! Aggregate functions and the contract of their state.
//!
//! State is columnar: an accumulator holds the states of all groups of one aggregate, indexed by a dense group
//! number, so that updating, exporting and merging are loops over columns.

use crate::data::{DataType, Vector};
use crate::error::Result;
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

/// The states of all groups of one aggregate.
pub(crate) trait Accumulator: Send {
    /// Makes room for groups `0..groups`; new ones start empty. Never shrinks.
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied>;
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
    /// The states of groups `start..start + len` as columns of `state_types`.
    fn export(&self, start: usize, len: usize, account: &Account) -> Result<Vec<Vector>>;
    /// The results of groups `start..start + len`.
    fn finish(&self, start: usize, len: usize, account: &Account) -> Result<Vector>;
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

/// The aggregate called `name` (any case).
pub(crate) fn find(_name: &str) -> Option<Arc<dyn AggregateFunction>> {
    None
}

//! Running expressions over batches.
//!
//! Owns: [`EvalCx`], [`Evaluator`], [`Predicate`], constant folding.
//!
//! Invariants:
//! 1. Common sub-expressions of one evaluator are computed once a batch.
//! 2. Kernels run over all physical rows. Where that raises an error and only some rows count, those rows alone are
//!    computed again, so that rows that do not count have no effect.
//! 3. A deterministic sub-expression of one dictionary column is computed once per dictionary where that pays.
//!
//! Must not know: how kernels loop.

mod conditional;
mod constant;
mod dictionary;
mod evaluator;
mod predicate;
mod program;
mod run;

pub(crate) use constant::{evaluate_constant, fold};
pub(crate) use evaluator::Evaluator;
pub(crate) use predicate::Predicate;

use evaluator::result_bytes;

use crate::data::DictionaryIds;
use crate::mem::Account;

/// What evaluation needs from its surroundings.
pub(crate) struct EvalCx<'a> {
    /// Where results are allocated.
    pub(crate) account: &'a Account,
    /// Names for dictionaries it builds.
    pub(crate) ids: &'a DictionaryIds,
}

//! Running expressions over batches.
//!
//! Owns: [`EvalCx`], [`Evaluator`] and the kernels below.

use crate::data::DictionaryIds;
use crate::mem::Account;

/// What evaluation needs from its surroundings.
pub(crate) struct EvalCx<'a> {
    /// Where results are allocated.
    pub(crate) account: &'a Account,
    /// Names for dictionaries it builds.
    pub(crate) ids: &'a DictionaryIds,
}

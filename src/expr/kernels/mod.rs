//! Loops over columns: one kind of operation each, over all rows of its operands.
//!
//! Owns: run-time dispatch to wide vectors, comparison, arithmetic, boolean logic, casts, patterns, list membership,
//! blending and scattering.
//!
//! Invariants:
//! 1. Operands are flat or constant, never dictionaries, and not all constant; nulls of constants were handled.
//! 2. A row that is null in any operand cannot raise an error; its result value is unspecified.
//! 3. Arithmetic never wraps visibly: a kernel is unchecked only where bounds prove the result fits.
//!
//! Must not know: expressions' shape, selections, dictionaries.

pub(crate) mod arithmetic;
pub(crate) mod blend;
pub(crate) mod boolean;
pub(crate) mod cast;
pub(crate) mod compare;
pub(crate) mod decimal;
pub(crate) mod in_list;
pub(crate) mod indices;
pub(crate) mod like;
pub(crate) mod operand;
pub(crate) mod simd;
pub(crate) mod temporal;

#[cfg(test)]
pub(crate) mod testing;

//! What several aggregate functions share: reading arguments, state arrays, grouped kernels.

pub(super) mod bytes;
pub(super) mod input;
pub(super) mod kernels;
pub(super) mod pick;
pub(super) mod quantile;
pub(super) mod states;
pub(super) mod variance;

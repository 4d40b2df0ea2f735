//! Scalar functions.

use crate::expr::ScalarFunction;
use std::sync::Arc;

/// The scalar function called `name` (any case).
pub(crate) fn find(_name: &str) -> Option<Arc<dyn ScalarFunction>> {
    None
}

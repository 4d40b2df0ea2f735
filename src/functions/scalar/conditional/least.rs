//! `least(a, b, …)`.

use super::Extreme;
use crate::expr::CompareOp;

pub(super) const LEAST: Extreme = Extreme { name: "least", wins: CompareOp::Lt };

//! `greatest(a, b, …)`.

use super::Extreme;
use crate::expr::CompareOp;

pub(super) const GREATEST: Extreme = Extreme { name: "greatest", wins: CompareOp::Gt };

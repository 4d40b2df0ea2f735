//! Joins by definition: every pair is looked at.

use super::super::{HashJoinKey, HashJoinKind, HashJoinSpec};
use super::input::{DECIMAL, FLAG, LONG, MARK, NUMBER, PROBE_IDS, REAL, SHORT, Side, TEXT, TYPES, UNIQUE};
use crate::data::{Scalar, Value};
use crate::expr::{ColumnId, CompareOp, Expr};
use std::cmp::Ordering;

pub(in crate::operators) fn expr(first_id: usize, at: usize) -> Expr {
    let id = ColumnId((first_id + at) as u32);
    Expr::Column { id, data_type: TYPES[at].clone(), nullable: true }
}

/// What pairs of rows must satisfy.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Condition {
    /// Columns that must be equal, and whether nulls are.
    pub(in crate::operators) keys: &'static [(usize, bool)],
    /// Whether the probe's number must be greater than the build's.
    pub(in crate::operators) residual: bool,
}

pub(in crate::operators) const CONDITIONS: [Condition; 14] = [
    Condition { keys: &[(LONG, false)], residual: false },
    Condition { keys: &[(LONG, false)], residual: true },
    Condition { keys: &[(LONG, true)], residual: false },
    Condition { keys: &[(SHORT, false), (FLAG, true)], residual: false },
    Condition { keys: &[(LONG, false), (SHORT, false)], residual: true },
    Condition { keys: &[(TEXT, false)], residual: false },
    Condition { keys: &[(TEXT, true), (SHORT, false)], residual: true },
    Condition { keys: &[(DECIMAL, false)], residual: false },
    Condition { keys: &[(DECIMAL, true), (TEXT, true)], residual: false },
    Condition { keys: &[(REAL, false)], residual: false },
    Condition { keys: &[(UNIQUE, false)], residual: false },
    Condition { keys: &[(UNIQUE, false), (TEXT, false)], residual: false },
    Condition { keys: &[], residual: true },
    Condition { keys: &[], residual: false },
];

pub(in crate::operators) const KINDS: [HashJoinKind; 12] = [
    HashJoinKind::Inner,
    HashJoinKind::ProbeOuter,
    HashJoinKind::BuildOuter,
    HashJoinKind::FullOuter,
    HashJoinKind::ProbeSingle,
    HashJoinKind::ProbeSemi,
    HashJoinKind::ProbeAnti { null_aware: false },
    HashJoinKind::ProbeAnti { null_aware: true },
    HashJoinKind::ProbeMark { null_aware: false },
    HashJoinKind::ProbeMark { null_aware: true },
    HashJoinKind::BuildSemi,
    HashJoinKind::BuildAnti,
];

pub(in crate::operators) fn is_null_aware(kind: HashJoinKind) -> bool {
    matches!(
        kind,
        HashJoinKind::ProbeAnti { null_aware: true } | HashJoinKind::ProbeMark { null_aware: true }
    )
}

pub(in crate::operators) fn is_valid(kind: HashJoinKind, condition: Condition) -> bool {
    !is_null_aware(kind) || !condition.residual && matches!(condition.keys, [(_, false)])
}

/// Which sides come out.
pub(in crate::operators) fn emits(kind: HashJoinKind) -> (bool, bool) {
    match kind {
        HashJoinKind::ProbeSemi | HashJoinKind::ProbeAnti { .. } | HashJoinKind::ProbeMark { .. } => {
            (true, false)
        }
        HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => (false, true),
        _ => (true, true),
    }
}

pub(in crate::operators) fn spec(kind: HashJoinKind, condition: Condition) -> HashJoinSpec {
    let ids = |first: usize| (0..TYPES.len()).map(move |at| ColumnId((first + at) as u32));
    let key = |&(at, null_safe): &(usize, bool)| HashJoinKey {
        build: expr(0, at),
        probe: expr(PROBE_IDS, at),
        null_safe,
    };
    let above = Expr::Compare {
        op: CompareOp::Gt,
        left: Box::new(expr(PROBE_IDS, NUMBER)),
        right: Box::new(expr(0, NUMBER)),
    };
    let (emits_probe, emits_build) = emits(kind);
    let mut output = Vec::new();
    if emits_probe {
        output.extend(ids(PROBE_IDS));
    }
    if emits_build {
        output.extend(ids(0));
    }
    if matches!(kind, HashJoinKind::ProbeMark { .. }) {
        output.push(MARK);
    }
    HashJoinSpec {
        kind,
        build_layout: ids(0).collect(),
        build_types: TYPES.to_vec(),
        probe_layout: ids(PROBE_IDS).collect(),
        probe_types: TYPES.to_vec(),
        keys: condition.keys.iter().map(key).collect(),
        residual: if condition.residual { vec![above] } else { Vec::new() },
        output,
        // True or not, it must not matter.
        expected_build_rows: Some(100_000),
        expected_key_range: condition.residual.then_some(-2000..=2000),
    }
}

/// A value that equal values share.
pub(in crate::operators) fn canonical(value: &Value) -> String {
    match value {
        Value::Float(f) if f.is_nan() => "NaN".to_owned(),
        Value::Float(f) => format!("{:?}", f + 0.0),
        other => format!("{other:?}"),
    }
}

/// Whether two values of column `at` are equal; `None` if either is null.
pub(in crate::operators) fn equal(at: usize, a: &Value, b: &Value) -> Option<bool> {
    let typed = |v: &Value| Scalar { data_type: TYPES[at].clone(), value: v.clone() };
    typed(a).compare(&typed(b)).map(Ordering::is_eq)
}

pub(in crate::operators) fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// The answer for a pair: whether it is asked about, and what it is.
pub(in crate::operators) fn answer(
    kind: HashJoinKind,
    condition: Condition,
    build: &[Value],
    probe: &[Value],
) -> (bool, Option<bool>) {
    let key = |&(at, null_safe): &(usize, bool)| match equal(at, &build[at], &probe[at]) {
        None if null_safe => Some(build[at] == Value::Null && probe[at] == Value::Null),
        equal => equal,
    };
    let keys = condition.keys.iter().map(key).fold(Some(true), and);
    let residual = match (&build[NUMBER], &probe[NUMBER]) {
        _ if !condition.residual => Some(true),
        (Value::Int(build), Value::Int(probe)) => Some(probe > build),
        _ => None,
    };
    if is_null_aware(kind) { (true, keys) } else { (keys == Some(true), residual) }
}

pub(in crate::operators) const TOO_MANY: &str =
    "a scalar subquery returned more than one row; use LIMIT 1 or an aggregate";

/// The join by definition, sorted; `None` if it must fail.
pub(in crate::operators) fn expected(
    kind: HashJoinKind,
    condition: Condition,
    build: &Side,
    probe: &Side,
) -> Option<Vec<String>> {
    let nulls = vec![Value::Null; TYPES.len()];
    let (emits_probe, emits_build) = emits(kind);
    let row = |probe: &[Value], build: &[Value], mark: Option<Value>| {
        let probe = probe.iter().filter(|_| emits_probe);
        let build = build.iter().filter(|_| emits_build);
        probe.chain(build).chain(&mark).map(canonical).collect::<Vec<_>>().join("|")
    };
    let mut rows = Vec::new();
    let mut has_match = vec![false; build.rows.len()];
    for p in &probe.rows {
        let answers: Vec<Option<bool>> = build
            .rows
            .iter()
            .map(|b| answer(kind, condition, b, p))
            .map(|(is_asked, answer)| if is_asked { answer } else { Some(false) })
            .collect();
        let matches: Vec<usize> = (0..answers.len()).filter(|&at| answers[at] == Some(true)).collect();
        matches.iter().for_each(|&at| has_match[at] = true);
        let mark = if !matches.is_empty() {
            Some(true)
        } else if answers.contains(&None) {
            None
        } else {
            Some(false)
        };
        match kind {
            HashJoinKind::Inner | HashJoinKind::BuildOuter => {
                rows.extend(matches.iter().map(|&at| row(p, &build.rows[at], None)));
            }
            HashJoinKind::ProbeOuter | HashJoinKind::FullOuter | HashJoinKind::ProbeSingle => {
                if kind == HashJoinKind::ProbeSingle && matches.len() > 1 {
                    return None;
                }
                rows.extend(matches.iter().map(|&at| row(p, &build.rows[at], None)));
                if matches.is_empty() {
                    rows.push(row(p, &nulls, None));
                }
            }
            HashJoinKind::ProbeSemi => rows.extend((mark == Some(true)).then(|| row(p, &nulls, None))),
            HashJoinKind::ProbeAnti { null_aware } => {
                let passes = if null_aware { mark == Some(false) } else { mark != Some(true) };
                rows.extend(passes.then(|| row(p, &nulls, None)));
            }
            HashJoinKind::ProbeMark { .. } => {
                rows.push(row(p, &nulls, Some(mark.map_or(Value::Null, Value::Boolean))));
            }
            HashJoinKind::BuildSemi | HashJoinKind::BuildAnti => {}
        }
    }
    for (at, b) in build.rows.iter().enumerate() {
        match kind {
            HashJoinKind::BuildSemi if has_match[at] => rows.push(row(&nulls, b, None)),
            HashJoinKind::BuildOuter | HashJoinKind::FullOuter | HashJoinKind::BuildAnti
                if !has_match[at] =>
            {
                rows.push(row(&nulls, b, None));
            }
            _ => {}
        }
    }
    rows.sort_unstable();
    Some(rows)
}

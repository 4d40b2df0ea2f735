//! Applies the rules in order, timing each, and in debug builds checks the plan after each.

use super::join_order::JoinOrder;
use super::{RULES, Rule};
use crate::error::{Error, Result};
use crate::expr::{ColumnId, Expr};
use crate::logical::{ColumnIds, Plan};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a rule took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleTiming {
    /// The rule.
    pub(crate) rule: &'static str,
    /// Wall time.
    pub(crate) elapsed: Duration,
}

/// An optimized plan and what it cost to get it.
pub(crate) struct Optimized {
    /// The plan.
    pub(crate) plan: Arc<Plan>,
    /// One entry per rule that ran, in order.
    pub(crate) timings: Vec<RuleTiming>,
}

/// What of the rules is not as usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptimizerSettings {
    /// Names of rules that are left out.
    pub(crate) disabled: HashSet<String>,
    /// For tests: join orders are drawn at random from this seed.
    pub(crate) join_order_seed: Option<u64>,
}

/// Applies all rules but those left out.
///
/// # Errors
/// What a rule fails with; an internal error if a rule broke the plan (debug builds only).
pub(crate) fn optimize(mut plan: Arc<Plan>, settings: &OptimizerSettings) -> Result<Optimized> {
    let mut ids = ColumnIds::after(&plan);
    let mut timings = Vec::with_capacity(RULES.len());
    if cfg!(debug_assertions) {
        verify(&plan, &HashSet::new())
            .map_err(|broken| Error::internal(format!("the binder made a broken plan: {broken}")))?;
    }
    let at_random = settings.join_order_seed.map(JoinOrder::at_random);
    for rule in RULES {
        if settings.disabled.contains(rule.name()) {
            continue;
        }
        let rule = match &at_random {
            Some(at_random) if at_random.name() == rule.name() => at_random,
            Some(_) | None => *rule,
        };
        let started = Instant::now();
        let rewritten = rule.apply(&plan, &mut ids)?;
        timings.push(RuleTiming { rule: rule.name(), elapsed: started.elapsed() });
        if cfg!(debug_assertions) {
            verify(&rewritten, &HashSet::new()).and_then(|()| same_outputs(&plan, &rewritten)).map_err(
                |broken| Error::internal(format!("rule {} broke the plan: {broken}", rule.name())),
            )?;
        }
        plan = rewritten;
    }
    Ok(Optimized { plan, timings })
}

/// Every expression reads only columns its node's inputs produce, or, on the right of a join, those of its left; and
/// no node produces a column twice. `outer` are the columns to the left of the joins around.
fn verify(plan: &Plan, outer: &HashSet<ColumnId>) -> Result<(), String> {
    let mut available: HashSet<ColumnId> = outer.clone();
    match plan {
        Plan::Scan { columns, filter_columns, .. } => {
            available.extend(columns.iter().chain(filter_columns).map(|(column, _)| column.id));
        }
        Plan::Values { columns, rows } => {
            if rows.iter().any(|row| row.len() != columns.len()) {
                return Err("a row of VALUES has not as many values as there are columns".into());
            }
        }
        Plan::Filter { .. }
        | Plan::Project { .. }
        | Plan::Aggregate { .. }
        | Plan::Sort { .. }
        | Plan::Limit { .. } => {
            for input in plan.inputs() {
                verify(input, outer)?;
                available.extend(input.columns().iter().map(|column| column.id));
            }
        }
        Plan::Join { left, right, .. } => {
            verify(left, outer)?;
            available.extend(left.columns().iter().map(|column| column.id));
            verify(right, &available)?;
            available.extend(right.columns().iter().map(|column| column.id));
        }
    }
    let mut missing = None;
    plan.for_each_expr(&mut |e: &Expr| {
        e.for_each_column(&mut |id| {
            if !available.contains(&id) {
                missing.get_or_insert(format!("{e} reads a column its node's inputs do not produce"));
            }
        });
    });
    if let Some(missing) = missing {
        return Err(missing);
    }
    let mut seen = HashSet::new();
    match plan.columns().into_iter().find(|column| !seen.insert(column.id)) {
        Some(twice) => Err(format!("a node produces column \"{}\" twice", twice.field.name)),
        None => Ok(()),
    }
}

/// Columns of the result keep their ids, types and order.
fn same_outputs(before: &Plan, after: &Plan) -> Result<(), String> {
    let outputs = |plan: &Plan| -> Vec<_> {
        plan.columns().into_iter().map(|column| (column.id, column.field.data_type.clone())).collect()
    };
    let (before, after) = (outputs(before), outputs(after));
    if before == after { Ok(()) } else { Err(format!("the outputs were {before:?} and are {after:?}")) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, table};
    use super::*;

    #[test]
    fn rules_have_names_of_their_own_and_can_be_disabled() {
        let names: HashSet<String> = RULES.iter().map(|rule| rule.name().to_owned()).collect();
        assert_eq!(names.len(), RULES.len());
        let plan = bind("select a from t where b > 1 order by a limit 3");
        let all = optimize(Arc::clone(&plan), &OptimizerSettings::default()).expect("optimizes");
        assert_eq!(all.timings.len(), RULES.len());
        let none = optimize(Arc::clone(&plan), &OptimizerSettings { disabled: names, join_order_seed: None })
            .expect("optimizes");
        assert!(none.timings.is_empty());
        assert!(Arc::ptr_eq(&none.plan, &plan));
    }

    #[test]
    fn broken_plans_are_noticed() {
        let scan = table();
        let stranger =
            Expr::Column { id: ColumnId(99), data_type: crate::data::DataType::Boolean, nullable: false };
        let broken = Plan::Filter { input: Arc::clone(&scan), conjuncts: vec![stranger] };
        assert!(verify(&broken, &HashSet::new()).is_err());
        assert!(verify(&scan, &HashSet::new()).is_ok());
        let column = scan.columns()[0].clone();
        let twice = vec![(column.clone(), column.to_expr()), (column.clone(), column.to_expr())];
        let twice = Plan::Project { input: Arc::clone(&scan), columns: twice };
        assert!(verify(&twice, &HashSet::new()).is_err());
        assert!(same_outputs(&scan, &twice).is_err());
    }
}

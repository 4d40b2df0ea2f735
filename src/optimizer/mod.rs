//! Rewrites of logical plans into cheaper ones of the same meaning.
//!
//! Owns: the rules and their order, the runner that applies and checks them, row estimates.
//!
//! Invariants:
//! 1. A rule never changes the result columns (ids, types, order) or, ties and unordered results aside, the rows.
//! 2. A rule applied to its own output changes nothing.
//! 3. Adding a rule is one file and one line in [`RULES`].
//!
//! Must not know: SQL text, physical operators, execution.

mod cardinality;
mod coarser_aggregates;
mod constant_groups;
mod copy;
mod distinct_aggregates;
mod eager_aggregation;
mod early_projection;
mod filter_pushdown;
mod fold_constants;
mod functional_dependencies;
mod inner_joins;
mod join_order;
mod joined_aggregates;
mod limit_pushdown;
mod mark_joins;
mod or_factors;
mod ordered_aggregates;
mod outer_joins;
mod partial_aggregates;
mod projection_pushdown;
mod runner;
mod semi_join_reduction;
mod shared_subplans;
mod sort_keys;
mod split_averages;
mod substitute;
#[cfg(test)]
pub(crate) mod testing;
mod top_n;
#[cfg(test)]
mod tpch_tests;
mod transitive_predicates;
mod unnest;

pub(crate) use cardinality::{distinct as estimate_distinct, estimate_rows};
pub(crate) use runner::{Optimized, OptimizerSettings, optimize};

use crate::error::Result;
use crate::logical::{ColumnIds, Plan};
use std::sync::Arc;

/// A rewrite.
trait Rule: Sync {
    /// Its name, by which it can be disabled.
    fn name(&self) -> &'static str;
    /// Whether some plans cannot be run without it: it removes what no operator does. Such a rule is not optional.
    fn is_needed(&self) -> bool {
        false
    }
    /// Whether it makes shared plans, whose numbers are unique only in a whole plan.
    fn shares(&self) -> bool {
        false
    }
    /// The plan rewritten; `ids` names columns the rule adds.
    ///
    /// # Errors
    /// A plan error for what can never be evaluated, such as a constant that overflows.
    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>>;
}

/// Names of the rules that may be left out, in the order they run.
pub(crate) fn optional_rules() -> impl Iterator<Item = &'static str> {
    RULES.iter().filter(|rule| !rule.is_needed()).map(|rule| rule.name())
}

/// The rules in the order they run.
static RULES: &[&dyn Rule] = &[
    &fold_constants::FoldConstants,
    &unnest::UnnestSubqueries,
    &mark_joins::MarkJoins,
    &outer_joins::OuterJoins,
    &or_factors::OrFactors,
    &joined_aggregates::JoinedAggregates,
    &split_averages::SplitAverages,
    &distinct_aggregates::DistinctAggregates,
    &constant_groups::ConstantGroups,
    &sort_keys::SortKeys,
    &filter_pushdown::FilterPushdown,
    &transitive_predicates::TransitivePredicates,
    &functional_dependencies::FunctionalDependencies,
    &limit_pushdown::LimitPushdown,
    &top_n::TopN,
    &semi_join_reduction::SemiJoinReduction,
    &eager_aggregation::EagerAggregation,
    &join_order::JoinOrder::BY_COST,
    &coarser_aggregates::CoarserAggregates,
    &ordered_aggregates::OrderedAggregates,
    &projection_pushdown::ProjectionPushdown,
    &early_projection::EarlyProjection,
    &shared_subplans::SharedSubplans,
];

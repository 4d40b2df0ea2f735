//! The order of joins: of all the ways to join a set of relations, the one that is likely to touch fewest rows.
//!
//! Joins with nothing between them, or only filters, make a [`Region`]: relations, and what is asked of them. Inner
//! joins may be done in any order. Left, semi, anti, mark and single joins each bring one relation of their own, their
//! right input: a dependent, that is attached to whatever has the relations its condition reads ([`region`] says why
//! that is right). Full joins are relations of the region around them.
//!
//! Up to [`MOST_EXHAUSTIVE`] relations every tree without cross products is considered, by dynamic programming over sets
//! (Moerkotte and Neumann, "Analysis of Two Existing and One New Dynamic Programming Algorithm", VLDB 2006: DPsub);
//! beyond, the pair with the smallest result is joined first, again and again ([`search`]).

mod region;
mod search;
#[cfg(test)]
mod tests;

use super::Rule;
use super::projection_pushdown::exactly;
use crate::error::Result;
use crate::logical::{Column, ColumnIds, Plan};
use region::{Region, is_member};
use search::{Random, Search};
use std::sync::Arc;

/// Relations up to which all trees are considered.
const MOST_EXHAUSTIVE: usize = 12;
/// Relations a region may have; what is beyond is joined as it was written.
const MOST_RELATIONS: usize = 60;

/// A set of relations, one bit each.
type Set = u64;

fn singletons(set: Set) -> Vec<Set> {
    (0..Set::BITS).map(|bit| 1 << bit).filter(|bit| set & bit != 0).collect()
}

/// See the module.
pub(super) struct JoinOrder {
    /// For tests: takes a tree at random instead of the cheapest one.
    seed: Option<u64>,
}

impl JoinOrder {
    /// What it is for.
    pub(super) const BY_COST: Self = Self { seed: None };

    /// Takes any tree without needless cross products, another one for another seed.
    pub(super) fn at_random(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Rule for JoinOrder {
    fn name(&self) -> &'static str {
        "join_order"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let outputs: Vec<Column> = plan.columns().into_iter().cloned().collect();
        Ok(exactly(Orderer { random: self.seed.map(Random::new) }.reorder(plan), &outputs))
    }
}

/// Orders the regions of a plan, one after the other.
struct Orderer {
    random: Option<Random>,
}

impl Orderer {
    fn reorder(&mut self, plan: &Arc<Plan>) -> Arc<Plan> {
        if is_member(plan) {
            let region = Region::of(plan, &mut |relation| self.reorder(relation));
            return self.order(&region);
        }
        self.reorder_inputs(plan)
    }

    fn reorder_inputs(&mut self, plan: &Arc<Plan>) -> Arc<Plan> {
        let Ok(mapped) =
            plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(self.reorder(input)));
        Arc::new(mapped)
    }

    /// The region as the tree that is likely to be cheapest.
    fn order(&mut self, region: &Region) -> Arc<Plan> {
        let mut search = Search::new(region);
        let parts = region.components();
        let exhaustive = region.relations.len() <= MOST_EXHAUSTIVE;
        let mut trees = vec![];
        for &part in &parts {
            trees.extend(match &mut self.random {
                Some(random) => search.join_at_random(singletons(part), random),
                None if exhaustive => search.exhaust(part),
                None => search.join_greedily(singletons(part)),
            });
        }
        // What no predicate connects is multiplied, smallest first.
        search.join_greedily(trees);
        search.plan()
    }
}

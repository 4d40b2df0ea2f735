//! The order of inner joins: of all the ways to join a set of relations, the one that is likely to touch fewest rows.
//!
//! A region of inner joins becomes a graph: relations, and predicates between them. Equalities are kept as classes of
//! expressions that are all equal, so that a relation may join any other with a member of its class. Up to
//! [`MOST_EXHAUSTIVE`] relations every tree without cross products is considered, by dynamic programming over sets
//! (Moerkotte and Neumann, "Analysis of Two Existing and One New Dynamic Programming Algorithm", VLDB 2006: DPsub);
//! beyond, the pair with the smallest result is joined first, again and again.
//!
//! Semi and anti joins above a region that read only one of its relations move onto it if that relation is smaller
//! than the region's result.

use super::Rule;
use super::cardinality::{Sizes, distinct, matching, rows, selectivity, sizes};
use super::projection_pushdown::exactly;
use crate::error::Result;
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{Column, ColumnIds, JoinKey, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// Relations up to which all trees are considered.
const MOST_EXHAUSTIVE: usize = 12;
/// Relations a region may have; what is beyond is joined as it was written.
const MOST_RELATIONS: usize = 60;
/// What holding a row of the build side costs, in units of passing a row on.
const BUILD_COST: f64 = 2.0;

/// See the module.
pub(super) struct JoinOrder;

impl Rule for JoinOrder {
    fn name(&self) -> &'static str {
        "join_order"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let outputs: Vec<Column> = plan.columns().into_iter().cloned().collect();
        Ok(exactly(reorder(plan), &outputs))
    }
}

/// A set of relations, one bit each.
type Set = u64;

fn reorder(plan: &Arc<Plan>) -> Arc<Plan> {
    match plan.as_ref() {
        Plan::Join { kind: JoinKind::Inner, .. } => {
            let mut region = Region::default();
            region.collect(plan);
            region.ordered()
        }
        Plan::Join { kind: kind @ (JoinKind::Semi | JoinKind::Anti { .. }), left, right, keys, filters } => {
            let right = reorder(right);
            if let Plan::Join { kind: JoinKind::Inner, .. } = left.as_ref() {
                let mut region = Region::default();
                region.collect(left);
                let all = region.ordered();
                if let Some(at) = region.only_relation_read(keys, filters)
                    && region.relations[at].rows <= rows(&all).unwrap_or(f64::INFINITY)
                {
                    let moved = Plan::Join {
                        kind: kind.clone(),
                        left: Arc::clone(&region.relations[at].plan),
                        right,
                        keys: keys.clone(),
                        filters: filters.clone(),
                    };
                    region.replace(at, Arc::new(moved));
                    return region.ordered();
                }
                let (kind, keys, filters) = (kind.clone(), keys.clone(), filters.clone());
                return Arc::new(Plan::Join { kind, left: all, right, keys, filters });
            }
            let (kind, keys, filters) = (kind.clone(), keys.clone(), filters.clone());
            Arc::new(Plan::Join { kind, left: reorder(left), right, keys, filters })
        }
        _ => {
            let mapped = plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(reorder(input)));
            match mapped {
                Ok(mapped) => Arc::new(mapped),
            }
        }
    }
}

/// Relations of the region `plan` is the top of.
fn leaves(plan: &Plan) -> usize {
    match plan {
        Plan::Join { kind: JoinKind::Inner, left, right, .. } => leaves(left) + leaves(right),
        _ => 1,
    }
}

/// An input of a region.
struct Relation {
    plan: Arc<Plan>,
    rows: f64,
    /// Rows before its filters.
    base_rows: f64,
}

impl Relation {
    fn new(plan: Arc<Plan>) -> Self {
        let Sizes { rows, base_rows } = sizes(&plan).unwrap_or(Sizes { rows: 1.0, base_rows: 1.0 });
        let rows = rows.max(1.0);
        let base_rows = base_rows.max(rows);
        Self { plan, rows, base_rows }
    }
}

/// Expressions that are equal in every row of the region's result, each over one relation.
struct Class {
    members: Vec<Member>,
    null_safe: bool,
}

struct Member {
    relation: usize,
    expr: Expr,
    /// About how many values it has.
    distinct: f64,
}

/// A predicate over several relations that is no plain equality.
struct Predicate {
    relations: Set,
    expr: Expr,
}

/// Inner joins with nothing between them, taken apart.
#[derive(Default)]
struct Region {
    relations: Vec<Relation>,
    /// Which relation a column comes from.
    origin: HashMap<ColumnId, usize>,
    classes: Vec<Class>,
    predicates: Vec<Predicate>,
}

/// Two relations, and how many values each of the keys between them has on either side.
type KeysBetween = ([usize; 2], Vec<(f64, f64)>);

/// A tree over a set of relations, in the making.
#[derive(Clone)]
struct Candidate {
    cost: f64,
    rows: f64,
    /// The two sets it joins; none for a relation.
    split: Option<(Set, Set)>,
}

impl Region {
    /// Adds the relations and predicates of `plan`.
    fn collect(&mut self, plan: &Arc<Plan>) {
        let Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } = plan.as_ref() else {
            self.add(reorder(plan));
            return;
        };
        if self.relations.len() + leaves(plan) > MOST_RELATIONS {
            // Kept as it is, as one relation.
            let plan = plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(reorder(input)));
            match plan {
                Ok(plan) => self.add(Arc::new(plan)),
            }
            return;
        }
        self.collect(left);
        self.collect(right);
        for key in keys {
            self.add_equality(key.left.clone(), key.right.clone(), key.null_safe);
        }
        for filter in filters {
            self.add_predicate(filter.clone());
        }
    }

    fn add(&mut self, plan: Arc<Plan>) {
        let relation = Relation::new(plan);
        let at = self.relations.len();
        for column in relation.plan.columns() {
            self.origin.insert(column.id, at);
        }
        self.relations.push(relation);
    }

    fn replace(&mut self, at: usize, plan: Arc<Plan>) {
        self.relations[at] = Relation::new(plan);
    }

    /// The relations an expression reads.
    fn read_by(&self, expr: &Expr) -> Set {
        let mut set = 0;
        expr.for_each_column(&mut |id| {
            if let Some(at) = self.origin.get(&id) {
                set |= 1 << at;
            }
        });
        set
    }

    /// The one relation the left sides of a join above the region read; `None` if there are several.
    fn only_relation_read(&self, keys: &[JoinKey], filters: &[Expr]) -> Option<usize> {
        let read = keys.iter().map(|key| &key.left).chain(filters);
        let set = read.fold(0, |set, expr| set | self.read_by(expr));
        (set.count_ones() == 1).then(|| set.trailing_zeros() as usize)
    }

    fn add_equality(&mut self, left: Expr, right: Expr, null_safe: bool) {
        let (from, to) = (self.read_by(&left), self.read_by(&right));
        if from.count_ones() != 1 || to.count_ones() != 1 {
            let op = if null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq };
            self.add_predicate(Expr::Compare { op, left: Box::new(left), right: Box::new(right) });
            return;
        }
        let member = |set: Set, expr: Expr| {
            let relation = set.trailing_zeros() as usize;
            let Relation { plan, base_rows, .. } = &self.relations[relation];
            let distinct = distinct(&expr, plan).unwrap_or(*base_rows).max(1.0);
            Member { relation, expr, distinct }
        };
        let mut all = vec![member(from, left), member(to, right)];
        // Classes that share an expression become one. Null-safe equalities say something else than plain ones.
        let (meeting, apart) = std::mem::take(&mut self.classes).into_iter().partition(|class: &Class| {
            class.null_safe == null_safe
                && class.members.iter().any(|known| all.iter().any(|m| m.expr == known.expr))
        });
        self.classes = apart;
        for member in Vec::into_iter(meeting).flat_map(|class: Class| class.members) {
            if !all.iter().any(|m| m.expr == member.expr) {
                all.push(member);
            }
        }
        self.classes.push(Class { members: all, null_safe });
    }

    fn add_predicate(&mut self, expr: Expr) {
        self.predicates.push(Predicate { relations: self.read_by(&expr), expr });
    }

    /// The region as the tree that is likely to be cheapest.
    fn ordered(&self) -> Arc<Plan> {
        let all: Set = (1 << self.relations.len()) - 1;
        let mut search = Search { region: self, best: HashMap::new() };
        for (at, relation) in self.relations.iter().enumerate() {
            search.best.insert(1 << at, Candidate { cost: 0.0, rows: relation.rows, split: None });
        }
        let parts = self.components();
        let exhaustive = self.relations.len() <= MOST_EXHAUSTIVE;
        for &part in &parts {
            if exhaustive { search.exhaust(part) } else { search.join_greedily(singletons(part)) }
        }
        // What no predicate connects is multiplied, smallest first.
        search.join_greedily(parts);
        let mut used = vec![false; self.predicates.len()];
        search.tree(all, &mut used)
    }

    /// Sets of relations that equalities or other predicates connect.
    fn components(&self) -> Vec<Set> {
        let mut parts = singletons((1 << self.relations.len()) - 1);
        let mut join = |set: Set| {
            let (meeting, mut apart): (Vec<Set>, Vec<Set>) = parts.iter().partition(|part| *part & set != 0);
            apart.push(meeting.into_iter().fold(0, |all, part| all | part));
            parts = apart;
        };
        for class in &self.classes {
            join(class.relations());
        }
        for predicate in self.predicates.iter().filter(|p| p.relations != 0) {
            join(predicate.relations);
        }
        parts
    }

    /// Whether something speaks of both sets.
    fn connects(&self, left: Set, right: Set) -> bool {
        let classes = self.classes.iter().any(|class| {
            let relations = class.relations();
            relations & left != 0 && relations & right != 0
        });
        classes
            || self.predicates.iter().any(|p| {
                p.relations & left != 0 && p.relations & right != 0 && p.relations & !(left | right) == 0
            })
    }

    /// About how many rows the join of two disjoint sets has.
    fn joined_rows(&self, (left, left_rows): (Set, f64), (right, right_rows): (Set, f64)) -> f64 {
        // Keys between the same two relations go together.
        let mut keys: Vec<KeysBetween> = Vec::new();
        for class in &self.classes {
            let of = |side: Set| class.members.iter().find(|m| side >> m.relation & 1 == 1);
            if let (Some(l), Some(r)) = (of(left), of(right)) {
                let (pair, values) = ([l.relation, r.relation], (l.distinct, r.distinct));
                match keys.iter_mut().find(|(known, _)| *known == pair) {
                    Some((_, all)) => all.push(values),
                    None => keys.push((pair, vec![values])),
                }
            }
        }
        let keys = keys.iter().map(|([l, r], values)| {
            matching(values, self.relations[*l].base_rows, self.relations[*r].base_rows)
        });
        let matching: f64 = keys.product();
        let both = left | right;
        let applied = self
            .predicates
            .iter()
            .filter(|p| p.relations & !both == 0 && p.relations & left != 0 && p.relations & right != 0);
        let selectivity: f64 = applied.map(|p| selectivity(&p.expr)).product();
        (left_rows * right_rows * matching * selectivity).max(1.0)
    }
}

impl Class {
    fn relations(&self) -> Set {
        self.members.iter().fold(0, |set, member| set | 1 << member.relation)
    }
}

fn singletons(set: Set) -> Vec<Set> {
    (0..Set::BITS).map(|bit| 1 << bit).filter(|bit| set & bit != 0).collect()
}

/// The cheapest trees found so far.
struct Search<'a> {
    region: &'a Region,
    best: HashMap<Set, Candidate>,
}

impl Search<'_> {
    /// The join of two sets there are trees for.
    fn join(&self, left: Set, right: Set) -> Option<Candidate> {
        let (l, r) = (self.best.get(&left)?, self.best.get(&right)?);
        let rows = self.region.joined_rows((left, l.rows), (right, r.rows));
        // The smaller side is held, the larger one streams past it.
        let own = l.rows.min(r.rows) * BUILD_COST + l.rows.max(r.rows) + rows;
        Some(Candidate { cost: l.cost + r.cost + own, rows, split: Some((left, right)) })
    }

    fn offer(&mut self, set: Set, candidate: Candidate) {
        let is_better = self.best.get(&set).is_none_or(|known| candidate.cost < known.cost);
        if is_better {
            self.best.insert(set, candidate);
        }
    }

    /// Finds the cheapest tree of every connected subset of `all`.
    fn exhaust(&mut self, all: Set) {
        // Subsets in ascending order: those of a set come before it.
        let mut set: Set = 0;
        loop {
            set = set.wrapping_sub(all) & all;
            if set == 0 {
                break;
            }
            if set.count_ones() < 2 {
                continue;
            }
            let lowest = set & set.wrapping_neg();
            let rest = set & !lowest;
            // Every split once: the lowest relation is on the left.
            let mut others: Set = 0;
            loop {
                others = others.wrapping_sub(rest) & rest;
                let (left, right) = (set & !others, others);
                if others != 0
                    && self.region.connects(left, right)
                    && let Some(candidate) = self.join(left, right)
                {
                    self.offer(set, candidate);
                }
                if others == rest {
                    break;
                }
            }
        }
        if !self.best.contains_key(&all) {
            // Connected only through predicates over three relations or more.
            self.join_greedily(singletons(all));
        }
    }

    /// Joins the pair with the smallest result until one tree is left.
    fn join_greedily(&mut self, mut parts: Vec<Set>) {
        while parts.len() > 1 {
            let mut found: Option<(usize, usize, Candidate)> = None;
            let mut is_connected = false;
            for left in 0..parts.len() {
                for right in left + 1..parts.len() {
                    let connects = self.region.connects(parts[left], parts[right]);
                    let Some(candidate) = self.join(parts[left], parts[right]) else { continue };
                    let is_better = found.as_ref().is_none_or(|(_, _, known)| candidate.rows < known.rows);
                    if (connects, is_better) > (is_connected, false) && (connects || !is_connected) {
                        is_connected |= connects;
                        found = Some((left, right, candidate));
                    }
                }
            }
            let Some((left, right, candidate)) = found else { return };
            let set = parts[left] | parts[right];
            parts.swap_remove(right);
            parts[left] = set;
            self.best.insert(set, candidate);
        }
    }

    /// The tree found for `set` as a plan.
    fn tree(&self, set: Set, used: &mut [bool]) -> Arc<Plan> {
        let region = self.region;
        let Some((left, right)) = self.best.get(&set).and_then(|candidate| candidate.split) else {
            let at = set.trailing_zeros() as usize;
            return Arc::clone(&region.relations[at].plan);
        };
        let (left_plan, right_plan) = (self.tree(left, used), self.tree(right, used));
        let mut keys = Vec::new();
        let mut filters = Vec::new();
        for class in &region.classes {
            let of = |side: Set| class.members.iter().filter(move |m| side >> m.relation & 1 == 1);
            let (mut ours, mut theirs) = (of(left), of(right));
            if let (Some(l), Some(r)) = (ours.next(), theirs.next()) {
                let (left, right) = (l.expr.clone(), r.expr.clone());
                keys.push(JoinKey { left, right, null_safe: class.null_safe });
            }
            // Several members over one relation are equal to each other only if somebody checks it, once: where the
            // relation joins for the first time.
            let op = if class.null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq };
            for side in [left, right].into_iter().filter(|side| side.count_ones() == 1) {
                let own: Vec<&Member> = of(side).collect();
                for pair in own.windows(2) {
                    let (left, right) = (Box::new(pair[0].expr.clone()), Box::new(pair[1].expr.clone()));
                    filters.push(Expr::Compare { op, left, right });
                }
            }
        }
        for (predicate, used) in region.predicates.iter().zip(used) {
            if !*used && predicate.relations & !set == 0 {
                *used = true;
                filters.push(predicate.expr.clone());
            }
        }
        Arc::new(Plan::Join { kind: JoinKind::Inner, left: left_plan, right: right_plan, keys, filters })
    }
}

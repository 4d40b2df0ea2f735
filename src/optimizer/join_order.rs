//! The order of inner joins: of all the ways to join a set of relations, the one that is likely to touch fewest rows.
//!
//! A region of inner joins becomes a graph: relations, and predicates between them. Equalities are kept as classes of
//! expressions that are all equal, so that a relation may join any other with a member of its class. Up to
//! [`MOST_EXHAUSTIVE`] relations every tree without cross products is considered, by dynamic programming over sets
//! (Moerkotte and Neumann, "Analysis of Two Existing and One New Dynamic Programming Algorithm", VLDB 2006: DPsub);
//! beyond, the pair with the smallest result is joined first, again and again.
//!
//! Semi and anti joins above a region that read only one of its relations move onto it if that is likely to be cheaper.

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

/// A set of relations, one bit each.
type Set = u64;

/// Orders the regions of a plan, one after the other.
struct Orderer {
    random: Option<Random>,
}

/// Numbers for [`JoinOrder::at_random`] (Steele, Lea and Flood: SplitMix).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

impl Orderer {
    fn reorder(&mut self, plan: &Arc<Plan>) -> Arc<Plan> {
        match plan.as_ref() {
            Plan::Join { kind: JoinKind::Inner, .. } => {
                let mut region = Region::default();
                self.collect(plan, &mut region);
                self.order(&region).0
            }
            Plan::Join {
                kind: kind @ (JoinKind::Semi | JoinKind::Anti { .. }),
                left,
                right,
                keys,
                filters,
            } => {
                let right = self.reorder(right);
                let join = |left: Arc<Plan>| {
                    let (kind, right) = (kind.clone(), Arc::clone(&right));
                    Arc::new(Plan::Join { kind, left, right, keys: keys.clone(), filters: filters.clone() })
                };
                if !matches!(left.as_ref(), Plan::Join { kind: JoinKind::Inner, .. }) {
                    return join(self.reorder(left));
                }
                let mut region = Region::default();
                self.collect(left, &mut region);
                let (above, cost) = self.order(&region);
                let right_rows = rows(&right).unwrap_or(0.0);
                let joined_with = |left: f64| left.min(right_rows) * BUILD_COST + left.max(right_rows);
                let above_cost = cost + joined_with(rows(&above).unwrap_or(0.0));
                if let Some(at) = region.only_relation_read(keys, filters) {
                    let relation = &region.relations[at];
                    let (probed, moved) = (relation.rows, join(Arc::clone(&relation.plan)));
                    region.replace(at, moved);
                    let (below, cost) = self.order(&region);
                    if cost + joined_with(probed) <= above_cost {
                        return below;
                    }
                }
                join(above)
            }
            _ => {
                let Ok(mapped) =
                    plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(self.reorder(input)));
                Arc::new(mapped)
            }
        }
    }

    /// Adds the relations and predicates of `plan`.
    fn collect(&mut self, plan: &Arc<Plan>, region: &mut Region) {
        let Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } = plan.as_ref() else {
            region.add(self.reorder(plan));
            return;
        };
        if region.relations.len() + leaves(plan) > MOST_RELATIONS {
            // Kept as it is, as one relation.
            let Ok(plan) =
                plan.try_map_inputs::<std::convert::Infallible>(&mut |input| Ok(self.reorder(input)));
            region.add(Arc::new(plan));
            return;
        }
        self.collect(left, region);
        self.collect(right, region);
        for key in keys {
            region.add_equality(key.left.clone(), key.right.clone(), key.null_safe);
        }
        for filter in filters {
            region.add_predicate(filter.clone());
        }
    }

    /// The region as the tree that is likely to be cheapest, and its cost.
    fn order(&mut self, region: &Region) -> (Arc<Plan>, f64) {
        let all: Set = (1 << region.relations.len()) - 1;
        let mut search = Search { region, best: HashMap::new() };
        for (at, relation) in region.relations.iter().enumerate() {
            search.best.insert(1 << at, Candidate { cost: 0.0, rows: relation.rows, split: None });
        }
        let parts = region.components();
        let exhaustive = region.relations.len() <= MOST_EXHAUSTIVE;
        for &part in &parts {
            match &mut self.random {
                Some(random) => search.join_at_random(singletons(part), random),
                None if exhaustive => search.exhaust(part),
                None => search.join_greedily(singletons(part)),
            }
        }
        // What no predicate connects is multiplied, smallest first.
        search.join_greedily(parts);
        let mut used = vec![false; region.predicates.len()];
        let cost = search.best.get(&all).map_or(0.0, |candidate| candidate.cost);
        (search.tree(all, &mut used), cost)
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
        let values = |expr: &Expr| {
            let Expr::Column { id, .. } = expr else { return None };
            distinct(expr, &self.relations[*self.origin.get(id)?].plan)
        };
        let selectivity: f64 = applied.map(|p| selectivity(&p.expr, &values)).product();
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

    /// Joins connected pairs at random until no two parts are connected.
    fn join_at_random(&mut self, mut parts: Vec<Set>, random: &mut Random) {
        loop {
            let pairs =
                (0..parts.len()).flat_map(|left| (left + 1..parts.len()).map(move |right| (left, right)));
            let connected: Vec<(usize, usize)> =
                pairs.filter(|(left, right)| self.region.connects(parts[*left], parts[*right])).collect();
            if connected.is_empty() {
                break;
            }
            let (left, right) = connected[random.below(connected.len())];
            let Some(candidate) = self.join(parts[left], parts[right]) else { break };
            let set = parts[left] | parts[right];
            parts.swap_remove(right);
            parts[left] = set;
            self.best.insert(set, candidate);
        }
        // Connected only through predicates over three relations or more.
        self.join_greedily(parts);
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

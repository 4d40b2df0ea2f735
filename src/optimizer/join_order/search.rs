//! The search for a region's cheapest tree.
//!
//! Owns: what trees cost, the best tree known of each set, and how a tree becomes a plan.

use super::region::{Dependent, Member, Region};
use super::{Set, singletons};
use crate::expr::{CompareOp, Expr};
use crate::logical::{JoinKey, JoinKind, Plan};
use std::collections::HashMap;
use std::sync::Arc;

/// What holding a row of the build side costs, in units of passing a row on.
const BUILD_COST: f64 = 2.0;

/// Numbers for a tree at random (Steele, Lea and Flood: SplitMix).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
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

/// A tree over a set of relations, in the making.
#[derive(Clone)]
struct Candidate {
    cost: f64,
    rows: f64,
    /// The dependent all others of the set are joined to; none if that is the core.
    root: Option<usize>,
    /// The two sets it joins, left and right; none for a relation.
    split: Option<(Set, Set)>,
}

/// How two sets may join.
enum Meeting {
    /// Left and right as they are, by an inner join.
    Inner,
    /// The second set is attached to the first by the join of its root.
    Attached { left: Set, right: Set, dependent: usize },
}

/// The cheapest trees found so far.
pub(super) struct Search<'a> {
    region: &'a Region,
    best: HashMap<Set, Candidate>,
}

impl<'a> Search<'a> {
    pub(super) fn new(region: &'a Region) -> Self {
        let relations = region.relations.iter().enumerate().map(|(at, relation)| {
            let root = relation.dependent.is_some().then_some(at);
            (1 << at, Candidate { cost: 0.0, rows: relation.rows, root, split: None })
        });
        Self { region, best: relations.collect() }
    }

    fn dependent(&self, at: usize) -> &'a Dependent {
        self.region.relations[at].dependent.as_ref().expect("the root of a set without core is a dependent")
    }

    /// How two sets there are trees for may join, if they may.
    fn meeting(&self, one: Set, other: Set) -> Option<Meeting> {
        let attached = |left: Set, right: Set| {
            let dependent = self.best.get(&right)?.root?;
            let Dependent { needs, floats, .. } = self.dependent(dependent);
            let may = needs & !left == 0 && (self.best.get(&left)?.root.is_none() || *floats);
            may.then_some(Meeting::Attached { left, right, dependent })
        };
        match (self.best.get(&one)?.root, self.best.get(&other)?.root) {
            (None, None) => Some(Meeting::Inner),
            _ => attached(one, other).or_else(|| attached(other, one)),
        }
    }

    /// Whether some condition speaks of both sets.
    fn are_connected(&self, one: Set, other: Set) -> bool {
        match self.meeting(one, other) {
            Some(Meeting::Inner) => self.region.connects(one, other),
            Some(Meeting::Attached { dependent, .. }) => self.dependent(dependent).needs != 0,
            None => false,
        }
    }

    /// The join of two sets, if there are trees for them and they may join.
    fn join(&self, one: Set, other: Set) -> Option<Candidate> {
        let meeting = self.meeting(one, other)?;
        let (left, right) = match meeting {
            Meeting::Inner => (one, other),
            Meeting::Attached { left, right, .. } => (left, right),
        };
        let (l, r) = (self.best.get(&left)?, self.best.get(&right)?);
        // The smaller side is held and the larger one streams past it, where the kind of join leaves the choice.
        let smaller_held = l.rows.min(r.rows) * BUILD_COST + l.rows.max(r.rows);
        let right_held = r.rows * BUILD_COST + l.rows;
        let (rows, own) = match meeting {
            Meeting::Inner => {
                let pairs = l.rows * r.rows * self.region.keys_matching(left, right);
                (pairs, smaller_held)
            }
            Meeting::Attached { dependent, .. } => {
                let Dependent { kind, matching, .. } = self.dependent(dependent);
                let met = (r.rows * matching).min(1.0);
                match kind {
                    JoinKind::Inner | JoinKind::Left | JoinKind::Full => {
                        ((l.rows * r.rows * matching).max(l.rows), smaller_held)
                    }
                    JoinKind::Single | JoinKind::Mark { .. } => (l.rows, right_held),
                    JoinKind::Semi => (l.rows * met, smaller_held),
                    JoinKind::Anti { null_aware } => {
                        (l.rows * (1.0 - met.min(0.9)), if *null_aware { right_held } else { smaller_held })
                    }
                }
            }
        };
        let cores = [l, r].map(|side| side.root.is_none());
        let passing =
            if l.root.is_none() { self.region.predicates_passing([left, right], cores) } else { 1.0 };
        let rows = (rows * passing).max(1.0);
        Some(Candidate { cost: l.cost + r.cost + own + rows, rows, root: l.root, split: Some((left, right)) })
    }

    /// Finds the cheapest tree of every connected subset of `all`. Returns the sets that are joined: `all`, unless a
    /// condition needs other sets, too.
    pub(super) fn exhaust(&mut self, all: Set) -> Vec<Set> {
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
                let (one, other) = (set & !others, others);
                if others != 0
                    && self.are_connected(one, other)
                    && let Some(candidate) = self.join(one, other)
                {
                    let is_better = self.best.get(&set).is_none_or(|known| candidate.cost < known.cost);
                    if is_better {
                        self.best.insert(set, candidate);
                    }
                }
                if others == rest {
                    break;
                }
            }
        }
        if self.best.contains_key(&all) {
            return vec![all];
        }
        // Connected only through predicates over three relations or more.
        self.join_greedily(singletons(all))
    }

    /// Joins the pair with the smallest result until one tree is left, or what is left needs other sets to join.
    pub(super) fn join_greedily(&mut self, mut parts: Vec<Set>) -> Vec<Set> {
        while parts.len() > 1 {
            let mut found: Option<(usize, usize, Candidate)> = None;
            let mut is_connected = false;
            for left in 0..parts.len() {
                for right in left + 1..parts.len() {
                    let connects = self.are_connected(parts[left], parts[right]);
                    let Some(candidate) = self.join(parts[left], parts[right]) else { continue };
                    let is_better = found.as_ref().is_none_or(|(_, _, known)| candidate.rows < known.rows);
                    if (connects, is_better) > (is_connected, false) && (connects || !is_connected) {
                        is_connected |= connects;
                        found = Some((left, right, candidate));
                    }
                }
            }
            let Some((left, right, candidate)) = found else { break };
            self.merge(&mut parts, left, right, candidate);
        }
        parts
    }

    /// Joins connected pairs at random, and in the end what no two parts are connected by.
    pub(super) fn join_at_random(&mut self, mut parts: Vec<Set>, random: &mut Random) -> Vec<Set> {
        loop {
            let pairs =
                (0..parts.len()).flat_map(|left| (left + 1..parts.len()).map(move |right| (left, right)));
            let connected: Vec<(usize, usize)> =
                pairs.filter(|(left, right)| self.are_connected(parts[*left], parts[*right])).collect();
            if connected.is_empty() {
                // What is left is connected only through predicates over three relations or more.
                return self.join_greedily(parts);
            }
            let (left, right) = connected[random.below(connected.len())];
            let Some(candidate) = self.join(parts[left], parts[right]) else {
                return self.join_greedily(parts);
            };
            self.merge(&mut parts, left, right, candidate);
        }
    }

    fn merge(&mut self, parts: &mut Vec<Set>, left: usize, right: usize, candidate: Candidate) {
        let set = parts[left] | parts[right];
        parts.swap_remove(right);
        parts[left] = set;
        self.best.insert(set, candidate);
    }

    /// The tree found for all relations.
    pub(super) fn plan(&self) -> Arc<Plan> {
        let all = self.region.relations.iter().enumerate().fold(0, |set, (at, _)| set | 1 << at);
        let mut used = vec![false; self.region.predicates.len()];
        self.tree(all, &mut used)
    }

    /// The tree found for `set`; `used` are the predicates that have been asked.
    fn tree(&self, set: Set, used: &mut [bool]) -> Arc<Plan> {
        let region = self.region;
        let candidate =
            self.best.get(&set).expect("a core joins with every set, and dependents with a whole core");
        let Some((left, right)) = candidate.split else {
            return Arc::clone(&region.relations[set.trailing_zeros() as usize].plan);
        };
        let (left_plan, right_plan) = (self.tree(left, used), self.tree(right, used));
        let mut asked: Vec<Expr> = vec![];
        // Several members of a class over one relation are equal to each other only if somebody checks it, once: where
        // the relation joins for the first time.
        for side in [left, right].into_iter().filter(|side| side.count_ones() == 1) {
            for class in &region.classes {
                let own: Vec<&Member> =
                    class.members.iter().filter(|m| side >> m.relation & 1 == 1).collect();
                let op = if class.null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq };
                asked.extend(own.windows(2).map(|pair| {
                    let (left, right) = (Box::new(pair[0].expr.clone()), Box::new(pair[1].expr.clone()));
                    Expr::Compare { op, left, right }
                }));
            }
        }
        if candidate.root.is_none() {
            for (predicate, used) in region.predicates.iter().zip(used) {
                if !*used && predicate.relations & !set == 0 {
                    *used = true;
                    asked.push(predicate.expr.clone());
                }
            }
        }
        let attached = self.best.get(&right).and_then(|right| right.root);
        let Some(dependent) = attached.map(|at| self.dependent(at)) else {
            let keys = region.classes.iter().filter_map(|class| {
                let of = |side: Set| class.members.iter().find(|m| side >> m.relation & 1 == 1);
                let (left, right) = (of(left)?.expr.clone(), of(right)?.expr.clone());
                Some(JoinKey { left, right, null_safe: class.null_safe })
            });
            let (kind, keys) = (JoinKind::Inner, keys.collect());
            return Arc::new(Plan::Join { kind, left: left_plan, right: right_plan, keys, filters: asked });
        };
        let Dependent { kind, keys, filters, .. } = dependent;
        let (kind, keys, filters) = (kind.clone(), keys.clone(), filters.clone());
        let join = Arc::new(Plan::Join { kind, left: left_plan, right: right_plan, keys, filters });
        if asked.is_empty() { join } else { Arc::new(Plan::Filter { input: join, conjuncts: asked }) }
    }
}

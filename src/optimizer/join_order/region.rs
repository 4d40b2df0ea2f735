//! Joins with nothing between them, taken apart: relations, and what is asked of them.
//!
//! Relations of inner joins are the core; they may be joined in any order. Equalities between them are kept as classes
//! of expressions that are all equal, so that a relation may join any other with a member of its class.
//!
//! Every other kind of join is a function of each row of its left input: it keeps, drops or widens that row, whatever
//! rows come with it. So it may be done as soon as what its condition reads is there, before or after other joins. Its
//! right input is a relation, the dependent, that joins in no other way. That covers what is known as the (left)
//! asscom property of these joins, and the associativity of inner with left, semi and anti joins. A left join also
//! associates with a left join on its left side whose right side it reads (`a LEFT b LEFT c` on columns of b and c), if
//! its condition is never true where that right side is null: then b and c may be joined first (Moerkotte, Fender and
//! Eich, "On the Correct and Complete Enumeration of the Core Search Space", SIGMOD 2013).
//!
//! Invariants:
//! 1. A set of relations has one root: its core, or the one dependent of which it does not have all that is read.
//! 2. Predicates are asked of sets whose root is the core only: below, nulls of outer joins may still be missing.
//! 3. Classes have members of the core only; an equality with a dependent's column is a predicate.
//!
//! Must not know: costs.

use super::super::cardinality::{Sizes, distinct, join_matching, matching, selectivity, sizes};
use super::super::outer_joins::rejects_nulls;
use super::super::substitute::is_deterministic;
use super::{MOST_RELATIONS, Set, singletons};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{JoinKey, JoinKind, Plan};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

/// An input of a region.
pub(super) struct Relation {
    pub(super) plan: Arc<Plan>,
    pub(super) rows: f64,
    /// Rows before its filters.
    base_rows: f64,
    /// How it joins, if it is not of the core.
    pub(super) dependent: Option<Dependent>,
}

/// The join whose right input a relation is.
pub(super) struct Dependent {
    pub(super) kind: JoinKind,
    pub(super) keys: Vec<JoinKey>,
    pub(super) filters: Vec<Expr>,
    /// Relations the condition reads, but for its own.
    pub(super) needs: Set,
    /// Whether it may join a dependent it reads before that one joins.
    pub(super) floats: bool,
    /// Of all pairs of rows, the part that meets.
    pub(super) matching: f64,
}

/// Expressions that are equal in every row of the region's result, each over one relation.
pub(super) struct Class {
    pub(super) members: Vec<Member>,
    pub(super) null_safe: bool,
}

pub(super) struct Member {
    pub(super) relation: usize,
    pub(super) expr: Expr,
    /// About how many values it has.
    distinct: f64,
}

/// A predicate that is no plain equality of the core.
pub(super) struct Predicate {
    pub(super) relations: Set,
    pub(super) expr: Expr,
}

/// See the module.
#[derive(Default)]
pub(super) struct Region {
    pub(super) relations: Vec<Relation>,
    /// Which relation a column comes from.
    origin: HashMap<ColumnId, usize>,
    pub(super) classes: Vec<Class>,
    pub(super) predicates: Vec<Predicate>,
}

/// What makes a plan that is no member of a region a relation of it.
type Prepare<'a> = &'a mut dyn FnMut(&Arc<Plan>) -> Arc<Plan>;

/// Two relations, and how many values each of the keys between them has on either side.
type KeysBetween = ([usize; 2], Vec<(f64, f64)>);

/// Whether a plan is taken apart: a join, or a filter that may be asked anywhere above one.
pub(super) fn is_member(plan: &Plan) -> bool {
    match plan {
        Plan::Join { kind: JoinKind::Full, .. } => false,
        Plan::Join { .. } => true,
        Plan::Filter { input, conjuncts } => {
            let reads = |e: &Expr| {
                let mut any = false;
                e.for_each_column(&mut |_| any = true);
                any
            };
            conjuncts.iter().all(|e| reads(e) && is_deterministic(e)) && is_member(input)
        }
        _ => false,
    }
}

/// Relations of the region `plan` is the top of, at most.
fn leaves(plan: &Plan) -> usize {
    match plan {
        Plan::Join { left, right, .. } if is_member(plan) => leaves(left) + leaves(right),
        Plan::Filter { input, .. } if is_member(plan) => leaves(input),
        _ => 1,
    }
}

fn column_ids(plan: &Plan) -> HashSet<ColumnId> {
    plan.columns().into_iter().map(|column| column.id).collect()
}

impl Relation {
    fn new(plan: Arc<Plan>, dependent: Option<Dependent>) -> Self {
        let Sizes { rows, base_rows } = sizes(&plan).unwrap_or(Sizes { rows: 1.0, base_rows: 1.0 });
        let rows = rows.max(1.0);
        Self { plan, rows, base_rows: base_rows.max(rows), dependent }
    }
}

impl Region {
    /// The region of which `plan` is the top; `prepare` is given each relation.
    pub(super) fn of(plan: &Arc<Plan>, prepare: Prepare<'_>) -> Self {
        let mut region = Self::default();
        region.collect(plan, prepare);
        region
    }

    /// Adds the relations and predicates of `plan`.
    fn collect(&mut self, plan: &Arc<Plan>, prepare: Prepare<'_>) {
        if !is_member(plan) {
            self.add(prepare(plan), None);
            return;
        }
        match plan.as_ref() {
            _ if self.relations.len() + leaves(plan) > MOST_RELATIONS => {
                // Kept as it is, as one relation.
                let Ok(kept) = plan.try_map_inputs::<Infallible>(&mut |input| Ok(prepare(input)));
                self.add(Arc::new(kept), None);
            }
            Plan::Filter { input, conjuncts } => {
                self.collect(input, prepare);
                for conjunct in conjuncts {
                    self.add_predicate(conjunct.clone());
                }
            }
            Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } => {
                self.collect(left, prepare);
                self.collect(right, prepare);
                for key in keys {
                    self.add_equality(key.left.clone(), key.right.clone(), key.null_safe);
                }
                for filter in filters {
                    self.add_predicate(filter.clone());
                }
            }
            Plan::Join { left, .. } => {
                let first = self.relations.len();
                self.collect(left, prepare);
                let left_side = range(first, self.relations.len());
                self.collect_dependent(plan, left_side, prepare);
            }
            _ => self.add(prepare(plan), None),
        }
    }

    /// Adds the right side of a join that is not inner, of which `left_side` has been added.
    fn collect_dependent(&mut self, join: &Plan, left_side: Set, prepare: Prepare<'_>) {
        let Plan::Join { kind, left, right, keys, filters } = join else { return };
        let matching = sizes(left).zip(sizes(right)).map_or(1.0, |(left_sizes, right_sizes)| {
            join_matching(keys, filters, [left, right], [left_sizes, right_sizes])
        });
        // A chain of left joins on the right side may be done after this one, or before.
        let mut chain = vec![];
        let mut root = right;
        if *kind == JoinKind::Left {
            while let Plan::Join { kind: JoinKind::Left, left, .. } = root.as_ref() {
                chain.push(root);
                root = left;
            }
            let rest: HashSet<ColumnId> = chain.first().map(|plan| column_ids(plan)).unwrap_or_default();
            let other = &rest - &column_ids(root);
            let reads_other = |e: &Expr| {
                let mut any = false;
                e.for_each_column(&mut |id| any |= other.contains(&id));
                any
            };
            let conditions = || keys.iter().map(|key| &key.right).chain(filters);
            let associates = |plan: &&Arc<Plan>| match plan.as_ref() {
                Plan::Join { left, keys, filters, .. } => rejects(keys, filters, &column_ids(left)),
                _ => false,
            };
            let is_too_large = self.relations.len() + leaves(right) > MOST_RELATIONS;
            if is_too_large || conditions().any(reads_other) || !chain.iter().all(associates) {
                chain.clear();
                root = right;
            }
        }
        let at = self.relations.len();
        let origin = |id: &ColumnId| self.origin.get(id).map_or(0, |at| 1 << *at);
        let mut needs: Set = 0;
        for e in keys.iter().map(|key| &key.left).chain(filters) {
            e.for_each_column(&mut |id| needs |= origin(&id));
        }
        let floats = *kind == JoinKind::Left && needs != 0 && {
            let relations =
                || singletons(needs).into_iter().map(|set| &self.relations[set.trailing_zeros() as usize]);
            let is_left = |relation: &Relation| {
                relation.dependent.as_ref().is_some_and(|dependent| dependent.kind == JoinKind::Left)
            };
            let columns = relations().flat_map(|relation| column_ids(&relation.plan)).collect();
            relations().all(is_left) && rejects(keys, filters, &columns)
        };
        if *kind == JoinKind::Single {
            // Where it is done decides which rows can raise its error: as late as the query says.
            needs = left_side;
        }
        let dependent = Dependent {
            kind: kind.clone(),
            keys: keys
                .iter()
                .cloned()
                .map(|key| JoinKey { left: self.with_nulls(key.left), ..key })
                .collect(),
            filters: filters.iter().cloned().map(|e| self.with_nulls(e)).collect(),
            needs,
            floats,
            matching,
        };
        self.add(prepare(root), Some(dependent));
        if let JoinKind::Mark { column, .. } = kind {
            self.origin.insert(column.id, at);
        }
        // Innermost first: each reads what was added before it.
        for link in chain.into_iter().rev() {
            let left_side = range(at, self.relations.len());
            self.collect_dependent(link, left_side, prepare);
        }
    }

    fn add(&mut self, plan: Arc<Plan>, dependent: Option<Dependent>) {
        let at = self.relations.len();
        for column in plan.columns() {
            self.origin.insert(column.id, at);
        }
        self.relations.push(Relation::new(plan, dependent));
    }

    /// `expr` where columns of left joins' right sides may be null, though below those joins they may not.
    fn with_nulls(&self, expr: Expr) -> Expr {
        match expr {
            Expr::Column { id, data_type, nullable } => {
                let dependent = self.origin.get(&id).and_then(|at| self.relations[*at].dependent.as_ref());
                let nullable = nullable || dependent.is_some_and(|dependent| dependent.kind.nulls_right());
                Expr::Column { id, data_type, nullable }
            }
            _ => expr.map_children(&mut |child| self.with_nulls(child)),
        }
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

    /// The relation, if `set` is one of the core.
    fn only_core(&self, set: Set) -> Option<usize> {
        let at = set.trailing_zeros() as usize;
        (set.count_ones() == 1 && self.relations[at].dependent.is_none()).then_some(at)
    }

    fn add_equality(&mut self, left: Expr, right: Expr, null_safe: bool) {
        let sides = [self.read_by(&left), self.read_by(&right)].map(|set| self.only_core(set));
        let [Some(from), Some(to)] = sides else {
            let op = if null_safe { CompareOp::IsNotDistinct } else { CompareOp::Eq };
            self.add_predicate(Expr::Compare { op, left: Box::new(left), right: Box::new(right) });
            return;
        };
        let member = |relation: usize, expr: Expr| {
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
        let relations = self.read_by(&expr);
        let Some(at) = self.only_core(relations) else {
            self.predicates.push(Predicate { relations, expr });
            return;
        };
        let (input, mut conjuncts) = match self.relations[at].plan.as_ref() {
            Plan::Filter { input, conjuncts } => (Arc::clone(input), conjuncts.clone()),
            _ => (Arc::clone(&self.relations[at].plan), vec![]),
        };
        conjuncts.push(expr);
        self.relations[at] = Relation::new(Arc::new(Plan::Filter { input, conjuncts }), None);
    }

    /// Sets of relations that equalities, other predicates, or conditions of dependents connect.
    pub(super) fn components(&self) -> Vec<Set> {
        let mut parts = singletons(range(0, self.relations.len()));
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
        for (at, relation) in self.relations.iter().enumerate() {
            if let Some(dependent) = &relation.dependent {
                join(dependent.needs | 1 << at);
            }
        }
        parts
    }

    /// Whether an equality or predicate speaks of both sets, and of no others.
    pub(super) fn connects(&self, left: Set, right: Set) -> bool {
        let classes = self.classes.iter().any(|class| {
            let relations = class.relations();
            relations & left != 0 && relations & right != 0
        });
        classes
            || self.predicates.iter().any(|p| {
                p.relations & left != 0 && p.relations & right != 0 && p.relations & !(left | right) == 0
            })
    }

    /// The part of all pairs of rows of two disjoint sets that agree in the equalities between them.
    pub(super) fn keys_matching(&self, left: Set, right: Set) -> f64 {
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
        keys.product()
    }

    /// What predicates let through that can be asked of the join of two sets and of neither alone. `cores` says which
    /// of the sets have the core as their root.
    pub(super) fn predicates_passing(&self, [left, right]: [Set; 2], cores: [bool; 2]) -> f64 {
        let known = |set: Set, is_core: bool, p: &Predicate| is_core && p.relations & !set == 0;
        let applied = self.predicates.iter().filter(|p| {
            p.relations != 0
                && p.relations & !(left | right) == 0
                && !known(left, cores[0], p)
                && !known(right, cores[1], p)
        });
        let values = |expr: &Expr| {
            let Expr::Column { id, .. } = expr else { return None };
            distinct(expr, &self.relations[*self.origin.get(id)?].plan)
        };
        applied.map(|p| selectivity(&p.expr, &values)).product()
    }
}

impl Class {
    fn relations(&self) -> Set {
        self.members.iter().fold(0, |set, member| set | 1 << member.relation)
    }
}

fn range(from: usize, to: usize) -> Set {
    (from..to).fold(0, |set, at| set | 1 << at)
}

/// Whether a join's condition is never true where `columns` of its left side are all null.
fn rejects(keys: &[JoinKey], filters: &[Expr], columns: &HashSet<ColumnId>) -> bool {
    keys.iter()
        .cloned()
        .map(JoinKey::into_conjunct)
        .chain(filters.iter().cloned())
        .any(|e| rejects_nulls(&e, columns))
}

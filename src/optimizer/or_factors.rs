//! What all branches of a disjunction demand is demanded once, outside of it; and where each branch demands something
//! of one table, that table is filtered by the disjunction of those demands (the original stays).

use super::Rule;
use super::substitute::is_deterministic;
use crate::error::Result;
use crate::expr::{ColumnId, Expr};
use crate::logical::{ColumnIds, JoinKind, Plan};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// See the module.
pub(super) struct OrFactors;

/// The table each column comes from, by a number.
type Tables = HashMap<ColumnId, usize>;

impl Rule for OrFactors {
    fn name(&self) -> &'static str {
        "or_factors"
    }

    fn apply(&self, plan: &Arc<Plan>, _ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        let mut tables = Tables::new();
        let mut number = 0;
        plan.for_each_node(&mut |node| {
            number += 1;
            if !matches!(node, Plan::Project { .. }) {
                for column in node.defined_columns() {
                    tables.insert(column.id, number);
                }
            }
        });
        rewrite(plan, &tables)
    }
}

fn rewrite(plan: &Arc<Plan>, tables: &Tables) -> Result<Arc<Plan>> {
    Ok(Arc::new(match plan.try_map_inputs(&mut |input| rewrite(input, tables))? {
        Plan::Filter { input, conjuncts } => {
            Plan::Filter { input, conjuncts: with_implied(factored(conjuncts), tables) }
        }
        Plan::Join { kind, left, right, keys, filters } => {
            let filters = match kind {
                JoinKind::Inner => with_implied(factored(filters), tables),
                JoinKind::Left
                | JoinKind::Full
                | JoinKind::Single
                | JoinKind::Semi
                | JoinKind::Anti { .. }
                | JoinKind::Mark { .. } => factored(filters),
            };
            Plan::Join { kind, left, right, keys, filters }
        }
        other => other,
    }))
}

/// Conjuncts with what the branches of a disjunction have in common as conjuncts of their own.
fn factored(conjuncts: Vec<Expr>) -> Vec<Expr> {
    let mut out = vec![];
    for conjunct in conjuncts {
        match conjunct {
            Expr::Or(branches) => {
                let (common, rest) = factor(branches);
                out.extend(common);
                out.extend(rest);
            }
            other => out.push(other),
        }
    }
    out
}

/// The conjuncts all branches have, and the disjunction of what else they have, if each has more.
fn factor(branches: Vec<Expr>) -> (Vec<Expr>, Option<Expr>) {
    let mut parts: Vec<Vec<Expr>> = branches.into_iter().map(conjuncts_of).collect();
    let Some((first, others)) = parts.split_first() else { return (vec![], None) };
    let is_common = |e: &&Expr| is_deterministic(e) && others.iter().all(|part| part.contains(e));
    let common: Vec<Expr> = first.iter().filter(is_common).cloned().collect();
    for part in &mut parts {
        part.retain(|e| !common.contains(e));
    }
    // A branch that demands nothing else is true wherever the common part is.
    let rest = parts.iter().all(|part| !part.is_empty()).then(|| either(parts));
    (common, rest)
}

fn conjuncts_of(expr: Expr) -> Vec<Expr> {
    let mut conjuncts = vec![];
    expr.into_conjuncts(&mut conjuncts);
    conjuncts
}

fn all(mut conjuncts: Vec<Expr>) -> Expr {
    if conjuncts.len() == 1 { conjuncts.swap_remove(0) } else { Expr::And(conjuncts) }
}

fn either(branches: Vec<Vec<Expr>>) -> Expr {
    Expr::Or(branches.into_iter().map(all).collect())
}

/// Conjuncts with what disjunctions over several tables demand of each one.
fn with_implied(mut conjuncts: Vec<Expr>, tables: &Tables) -> Vec<Expr> {
    let mut implied = vec![];
    for conjunct in &conjuncts {
        let Expr::Or(branches) = conjunct else { continue };
        let read = tables_of(conjunct, tables);
        if read.len() < 2 {
            continue;
        }
        let parts: Vec<Vec<Expr>> = branches.iter().cloned().map(conjuncts_of).collect();
        for table in read {
            let is_about_it = |e: &Expr| is_deterministic(e) && tables_of(e, tables).iter().eq([&table]);
            let demands: Vec<Vec<Expr>> =
                parts.iter().map(|part| part.iter().filter(|e| is_about_it(e)).cloned().collect()).collect();
            if demands.iter().all(|demand: &Vec<Expr>| !demand.is_empty()) {
                implied.push(either(demands));
            }
        }
    }
    for implied in implied {
        if !conjuncts.contains(&implied) {
            conjuncts.push(implied);
        }
    }
    conjuncts
}

fn tables_of(expr: &Expr, tables: &Tables) -> BTreeSet<usize> {
    let mut read = BTreeSet::new();
    // A computed column is a table of its own: it cannot be filtered by further down than it is computed.
    expr.for_each_column(&mut |id| {
        read.insert(tables.get(&id).copied().unwrap_or(usize::MAX - id.0 as usize));
    });
    read
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_rewrites;
    use super::*;

    #[test]
    fn common_parts_come_out() {
        assert_rewrites(
            &OrFactors,
            "select a from t where (a = 1 and b = 2 and c = 'x') or (c = 'y' and a = 1)",
            "Project: a\n  Filter: (a = 1), (((b = 2) AND (c = 'x')) OR (c = 'y'))\n    Scan t: [a, b, c, d]\n",
        );
        assert_rewrites(
            &OrFactors,
            "select a from t where (a = 1 and b = 2) or a = 1",
            "Project: a\n  Filter: (a = 1)\n    Scan t: [a, b, c, d]\n",
        );
    }

    #[test]
    fn each_table_is_filtered_by_what_is_demanded_of_it() {
        assert_rewrites(
            &OrFactors,
            "select a from t, u where (a = 1 and x = 2) or (a = 3 and x = 4 and b > y)",
            "Project: a\n  Filter: (((a = 1) AND (x = 2)) OR ((a = 3) AND (x = 4) AND (b > y))), \
             ((a = 1) OR (a = 3)), ((x = 2) OR (x = 4))\n    \
             InnerJoin\n      Scan t: [a, b, c, d]\n      Scan u: [k, x, y]\n",
        );
        assert_rewrites(
            &OrFactors,
            "select a from t, u where (a = 1 and x = 2) or b = 4",
            "Project: a\n  Filter: (((a = 1) AND (x = 2)) OR (b = 4)), ((a = 1) OR (b = 4))\n    \
             InnerJoin\n      Scan t: [a, b, c, d]\n      Scan u: [k, x, y]\n",
        );
    }
}

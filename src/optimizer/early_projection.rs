//! What is computed above a join from columns of its smaller side alone is computed below it, where the result is narrower
//! than the columns it is computed from: that side is held by the join, written by it if memory is short, and read at
//! random.
//!
//! Only where that costs next to nothing: the join must be expected to keep the rows of that side. And only what cannot
//! fail, for rows that a join drops must raise no error. The rule runs once columns are pruned: a column that something
//! else reads is not saved.

use super::cardinality::estimate_rows;
use super::projection_pushdown::{project, read_by};
use super::substitute::{is_deterministic, is_trivial};
use super::{Result, Rule};
use crate::data::{DataType, Field};
use crate::expr::{ArithmeticOp, ColumnId, Expr};
use crate::logical::{Column, ColumnIds, JoinKind, Plan};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// Of a hundred rows of the side so many must be expected to come out of the join.
const LEAST_KEPT_PERCENT: u64 = 90;
/// A guess of what a string takes beside its view.
const STRING_BYTES: usize = 16;

/// See the module.
pub(super) struct EarlyProjection;

impl Rule for EarlyProjection {
    fn name(&self) -> &'static str {
        "early_projection"
    }

    fn apply(&self, plan: &Arc<Plan>, ids: &mut ColumnIds) -> Result<Arc<Plan>> {
        Ok(rewrite(plan, ids))
    }
}

fn rewrite(plan: &Arc<Plan>, ids: &mut ColumnIds) -> Arc<Plan> {
    if matches!(plan.as_ref(), Plan::Shared { .. }) {
        return Arc::clone(plan);
    }
    let mut plan = Arc::clone(plan);
    // What has moved leaves fewer columns that something else reads.
    while let Plan::Project { input, .. } | Plan::Aggregate { input, .. } = plan.as_ref()
        && let Some(moved) = move_below(&plan, input, ids)
    {
        plan = moved;
    }
    let Ok(mapped) = plan.try_map_inputs::<Infallible>(&mut |input| Ok(rewrite(input, ids)));
    Arc::new(mapped)
}

/// `node`, whose input is a join, with what is better computed below that.
fn move_below(node: &Plan, join: &Arc<Plan>, ids: &mut ColumnIds) -> Option<Arc<Plan>> {
    let Plan::Join { kind: JoinKind::Inner, left, right, keys, filters } = join.as_ref() else { return None };
    let [left_rows, right_rows] = [estimate_rows(left)?, estimate_rows(right)?];
    let is_left = left_rows < right_rows;
    let (side, side_rows) = if is_left { (left, left_rows) } else { (right, right_rows) };
    if estimate_rows(join)?.saturating_mul(100) < side_rows.saturating_mul(LEAST_KEPT_PERCENT) {
        return None;
    }
    // A scan may have an order, of which a merge join makes use only if there is nothing above.
    if matches!(side.as_ref(), Plan::Scan { .. }) {
        return None;
    }
    let columns = side.output_columns();
    let of_join = read_by(keys.iter().flat_map(|key| [&key.left, &key.right]).chain(filters));
    let mut found = Found { side: columns.iter().map(|column| column.id).collect(), ..Found::default() };
    node.for_each_expr(&mut |expr| found.visit(expr));
    found.others.extend(of_join);
    let moved = found.worth_moving(&columns);
    if moved.is_empty() {
        return None;
    }
    let others = found.others_without(&moved);
    let mut outputs: Vec<(Column, Expr)> = columns
        .into_iter()
        .filter(|column| others.contains(&column.id))
        .map(|column| (column.clone(), column.to_expr()))
        .collect();
    let mut moved_to: Vec<(Expr, Expr)> = Vec::new();
    for expr in moved {
        let name = name_of(expr, node).unwrap_or_else(|| format!("computed{}", moved_to.len()));
        let field = Field { name, data_type: expr.data_type(), nullable: expr.is_nullable() };
        let column = Column { id: ids.fresh(), field };
        moved_to.push((expr.clone(), column.to_expr()));
        outputs.push((column, expr.clone()));
    }
    let narrow = project(Arc::clone(side), outputs);
    let (left, right) = if is_left { (&narrow, right) } else { (left, &narrow) };
    let join = Arc::new(Plan::Join {
        kind: JoinKind::Inner,
        left: Arc::clone(left),
        right: Arc::clone(right),
        keys: keys.clone(),
        filters: filters.clone(),
    });
    let Ok(node) = node.try_map_inputs::<Infallible>(&mut |_| Ok(Arc::clone(&join)));
    let Ok(node) = node.try_map_exprs::<Infallible>(&mut |expr| Ok(replaced(expr, &moved_to)));
    Some(Arc::new(node))
}

/// What `node` calls `expr`, if that is all of a column.
fn name_of(expr: &Expr, node: &Plan) -> Option<String> {
    let (Plan::Project { columns, .. } | Plan::Aggregate { groups: columns, .. }) = node else { return None };
    columns.iter().find(|(_, own)| own == expr).map(|(column, _)| column.field.name.clone())
}

/// `expr` with expressions replaced by columns.
fn replaced(expr: Expr, by: &[(Expr, Expr)]) -> Expr {
    match by.iter().find(|(old, _)| *old == expr) {
        Some((_, column)) => column.clone(),
        None => expr.map_children(&mut |child| replaced(child, by)),
    }
}

/// What a node reads of one side of a join.
#[derive(Default)]
struct Found<'a> {
    /// The side's columns.
    side: BTreeSet<ColumnId>,
    /// The largest expressions that read nothing else and may be moved, each once.
    movable: Vec<&'a Expr>,
    /// Columns that are read elsewhere, too.
    others: BTreeSet<ColumnId>,
}

impl<'a> Found<'a> {
    fn visit(&mut self, expr: &'a Expr) {
        if self.is_movable(expr) {
            if !self.movable.contains(&expr) {
                self.movable.push(expr);
            }
            return;
        }
        if let Expr::Column { id, .. } = expr {
            self.others.insert(*id);
        }
        expr.for_each_child(&mut |child| self.visit(child));
    }

    fn is_movable(&self, expr: &Expr) -> bool {
        let read = read_by([expr]);
        !is_trivial(expr)
            && !read.is_empty()
            && read.is_subset(&self.side)
            && is_deterministic(expr)
            && is_total(expr)
    }

    /// Of what is movable, what makes rows narrower together, without any that makes them wider.
    fn worth_moving(&self, columns: &[Column]) -> Vec<&'a Expr> {
        let mut moved = self.movable.clone();
        let mut saved_bytes = self.saved_bytes(&moved, columns);
        while let Some((saved, at)) = (0..moved.len())
            .map(|at| {
                let rest: Vec<&Expr> =
                    moved.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| *e).collect();
                (self.saved_bytes(&rest, columns), at)
            })
            .max()
            .filter(|(saved, _)| *saved > saved_bytes)
        {
            moved.remove(at);
            saved_bytes = saved;
        }
        if saved_bytes > 0 { moved } else { Vec::new() }
    }

    /// By how many bytes rows are narrower if `moved` are computed below.
    fn saved_bytes(&self, moved: &[&Expr], columns: &[Column]) -> isize {
        let others = self.others_without(moved);
        let read = read_by(moved.iter().copied());
        let saved = columns.iter().filter(|column| read.contains(&column.id) && !others.contains(&column.id));
        let saved_bytes: usize = saved.map(|column| bytes(&column.field.data_type)).sum();
        let made_bytes: usize = moved.iter().map(|expr| bytes(&expr.data_type())).sum();
        saved_bytes as isize - made_bytes as isize
    }

    /// Columns that are read if `moved` are.
    fn others_without(&self, moved: &[&Expr]) -> BTreeSet<ColumnId> {
        let stay = self.movable.iter().filter(|expr| !moved.contains(expr));
        self.others.iter().copied().chain(read_by(stay.copied())).collect()
    }
}

fn bytes(data_type: &DataType) -> usize {
    let is_string = matches!(data_type, DataType::Utf8 | DataType::Binary);
    data_type.value_bytes() + if is_string { STRING_BYTES } else { 0 }
}

/// Whether it has a value, or null, whatever the values of its columns are.
fn is_total(expr: &Expr) -> bool {
    let is_total_itself = match expr {
        Expr::Column { .. }
        | Expr::Literal(_)
        | Expr::Compare { .. }
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::InList { .. }
        | Expr::Case { .. } => true,
        Expr::Arithmetic { op, data_type, .. } => match data_type {
            // Each has all digits its result may take, unless that would be more than there can be.
            DataType::Decimal { precision, .. } => {
                let is_sum =
                    matches!(op, ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Multiply);
                is_sum && *precision < DataType::MAX_PRECISION
            }
            other => other.is_float(),
        },
        Expr::Negate(operand) => {
            let data_type = operand.data_type();
            data_type.is_float() || matches!(data_type, DataType::Decimal { .. })
        }
        // Patterns may end in their escape, and values may not fit.
        Expr::Like { .. } | Expr::Cast { .. } | Expr::Call { .. } => false,
    };
    let mut all = is_total_itself;
    expr.for_each_child(&mut |child| all = all && is_total(child));
    all
}

#[cfg(test)]
mod tests {
    use super::super::filter_pushdown::FilterPushdown;
    use super::super::projection_pushdown::ProjectionPushdown;
    use super::super::testing::{FakeCatalog, FakeTable, assert_rewrites_in, field, text};
    use super::*;
    use crate::catalog::{ColumnStatistics, TableStatistics};
    use crate::data::Scalar;

    /// `i(k, p, q, n, s)` of 1000 items, `p` and `q` decimals, and `d(k, a)` of their 1000 details; `big(j, x)` of 10,000
    /// rows, all keys of which are there, and `far(j, x)`, most of whose keys are not.
    fn catalog() -> FakeCatalog {
        let decimal = || DataType::Decimal { precision: 15, scale: 2 };
        let key = |distinct| ColumnStatistics {
            min: Some(Scalar::int(DataType::Int32, 1)),
            max: Some(Scalar::int(DataType::Int32, 1000)),
            null_count: Some(0),
            distinct_count: Some(distinct),
        };
        let table = |fields: Vec<Field>, rows, distinct| {
            let mut columns = vec![ColumnStatistics::default(); fields.len()];
            columns[0] = key(distinct);
            FakeTable { fields, statistics: TableStatistics { rows: Some(rows), columns } }
        };
        let items = vec![
            field("k", DataType::Int32, false),
            field("p", decimal(), false),
            field("q", decimal(), false),
            field("n", DataType::Int64, false),
            field("s", DataType::Utf8, false),
        ];
        let details = vec![field("k", DataType::Int32, false), field("a", decimal(), false)];
        let big = || vec![field("j", DataType::Int32, false), field("x", DataType::Int32, false)];
        FakeCatalog(vec![
            ("i", Arc::new(table(items, 1000, 1000))),
            ("d", Arc::new(table(details, 1000, 1000))),
            ("big", Arc::new(table(big(), 10_000, 1000))),
            ("far", Arc::new(table(big(), 10_000, 1_000_000))),
        ])
    }

    /// The plan of `select {columns} from i join d join big`, with the rule.
    fn rewritten(columns: &str, tail: &str) -> String {
        let sql = format!("select {columns} from (i join d on i.k = d.k) join big on i.k = j {tail}");
        let plan =
            assert_rewrites_in(&catalog(), &[&FilterPushdown, &ProjectionPushdown], &EarlyProjection, &sql);
        text(&plan)
    }

    #[test]
    fn what_is_narrower_than_its_columns_is_computed_below() {
        let plan = rewritten("x, p * 2 - q * a as amount", "");
        let lines: Vec<&str> = plan.lines().map(str::trim).collect();
        assert!(lines[0].starts_with("Project: x, amount"), "{plan}");
        assert!(lines[2].starts_with("Project: k#0, ((p * 2) - (q * a)) AS amount"), "{plan}");
        let plan = rewritten("x, sum(p * 2 - q * a)", "group by x");
        assert!(plan.contains("sum(computed0)"), "{plan}");
        let plan = rewritten("x, case when s = 'x' then 1 else 0 end as is_x", "");
        assert!(plan.starts_with("Project: x, is_x"), "{plan}");
    }

    #[test]
    fn what_saves_nothing_stays_above() {
        for (columns, tail) in [
            // As wide as its one column, and its columns are read as they are, too.
            ("x, p + 1", ""),
            ("x, p, q, p * q", ""),
            // Of both sides.
            ("p * q * x", "where p * q > x"),
        ] {
            let plan = rewritten(columns, tail);
            // Below are a projection or aggregation, and the join.
            assert!(!plan.lines().skip(2).any(|line| line.contains(['*', '+'])), "{plan}");
        }
    }

    #[test]
    fn what_may_fail_stays_above() {
        for computed in [
            "n * n + cast(p as bigint)",
            "p * q * p * q * a",
            "cast(s as integer) + n",
            "s like 'a!' escape '!'",
        ] {
            let plan = rewritten(&format!("x, {computed} as y"), "");
            assert!(!plan.starts_with("Project: x, y"), "{computed}: {plan}");
        }
    }

    #[test]
    fn what_makes_rows_wider_does_not_go_along() {
        let plan = rewritten("x, s = 'a' as is_a, case when p > 1 then 'a' else 'b' end as kind", "");
        assert!(
            plan.starts_with("Project: x, is_a") && plan.lines().next().is_some_and(|l| l.contains("CASE")),
            "{plan}"
        );
    }

    #[test]
    fn rows_that_the_join_drops_are_not_computed_with() {
        let plan = |other: &str| {
            let sql = format!(
                "select x, p * 2 - q * a as amount from (i join d on i.k = d.k) join {other} on i.k = j"
            );
            text(&assert_rewrites_in(
                &catalog(),
                &[&FilterPushdown, &ProjectionPushdown],
                &EarlyProjection,
                &sql,
            ))
        };
        assert!(plan("big").starts_with("Project: x, amount"));
        assert!(!plan("far").starts_with("Project: x, amount"));
    }
}

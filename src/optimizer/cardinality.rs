//! How many rows a node is likely to produce, from the statistics of tables. Rough, cheap, and only ever a hint.

use super::substitute::is_deterministic;
use crate::catalog::{ColumnStatistics, Sampled, TableStatistics};
use crate::data::{Scalar, Value};
use crate::expr::{ColumnId, CompareOp, Expr};
use crate::logical::{Column, JoinKey, JoinKind, Plan};

/// What a predicate nothing is known of lets through.
const UNKNOWN_SELECTIVITY: f64 = 0.25;
/// What an inequality between two columns lets through.
const INEQUALITY_SELECTIVITY: f64 = 0.5;
/// What a pattern lets through.
const LIKE_SELECTIVITY: f64 = 0.1;
/// What an equality with unknown distinct count lets through.
const EQUALITY_SELECTIVITY: f64 = 0.05;
/// Rows of a sample that must be left for it to speak of all predicates together, correlations included.
const ENOUGH_PASSING: usize = 20;
/// Groups per input row where nothing is known of the keys.
const UNKNOWN_GROUPS: f64 = 0.1;

/// Estimated rows of `plan`; `None` if its tables do not say how many they have.
pub(crate) fn estimate_rows(plan: &Plan) -> Option<u64> {
    rows(plan).map(|rows| rows.max(0.0).round() as u64)
}

/// As [`estimate_rows`], fractions kept.
pub(super) fn rows(plan: &Plan) -> Option<f64> {
    sizes(plan).map(|sizes| sizes.rows)
}

/// How many rows a node has.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// As it is.
    pub(super) rows: f64,
    /// If it had no filters and no semi joins.
    pub(super) base_rows: f64,
}

impl Sizes {
    fn same(rows: f64) -> Self {
        Self { rows, base_rows: rows }
    }
}

/// Both sizes at once, so that each node is looked at once.
pub(super) fn sizes(plan: &Plan) -> Option<Sizes> {
    let limited = |rows: f64, fetch: Option<u64>| fetch.map_or(rows, |fetch| rows.min(fetch as f64));
    Some(match plan {
        Plan::Scan { provider, filters, .. } => {
            let statistics = provider.statistics();
            let base_rows = statistics.rows? as f64;
            let known = Known { plan, statistics: Some(&statistics), between: None };
            let selectivity = sampled(plan, &known).unwrap_or_else(|| known.conjunction(filters));
            Sizes { rows: base_rows * selectivity, base_rows }
        }
        Plan::Values { rows, .. } => Sizes::same(rows.len() as f64),
        Plan::Filter { input, conjuncts } => {
            let Sizes { rows, base_rows } = sizes(input)?;
            let between = |expr: &Expr| distinct(expr, input);
            let known = Known { plan, statistics: None, between: Some(&between) };
            Sizes { rows: rows * known.conjunction(conjuncts), base_rows }
        }
        Plan::Project { input, .. } | Plan::Sort { input, fetch: None, .. } | Plan::Repeat { input, .. } => {
            sizes(input)?
        }
        Plan::Shared { plan, .. } => sizes(plan)?,
        Plan::LimitPer { input, groups, fetch, .. } => {
            let input_rows = rows(input)?;
            let groups = groups.iter().map(|key| distinct(key, input)).product::<Option<f64>>();
            let groups = groups.unwrap_or(input_rows * UNKNOWN_GROUPS).min(input_rows);
            Sizes::same(fetch.map_or(input_rows, |fetch| input_rows.min(groups * fetch as f64)))
        }
        Plan::UnionAll { inputs, .. } => {
            let all = inputs.iter().map(|input| sizes(input)).collect::<Option<Vec<_>>>()?;
            let sum = |size: fn(&Sizes) -> f64| all.iter().map(size).sum();
            Sizes { rows: sum(|s| s.rows), base_rows: sum(|s| s.base_rows) }
        }
        Plan::Aggregate { groups, .. } if groups.is_empty() => Sizes::same(1.0),
        Plan::Aggregate { input, groups, .. } => {
            let input_rows = rows(input)?;
            let mut product = Some(1.0);
            for (_, key) in groups {
                product = product.zip(distinct(key, input)).map(|(a, b)| a * b);
            }
            let groups = match (product, &groups[..]) {
                (Some(values), [(_, key)]) => values_left(values, key, input, input_rows),
                (product, _) => product.unwrap_or(input_rows * UNKNOWN_GROUPS),
            };
            Sizes::same(groups.clamp(input_rows.min(1.0), input_rows))
        }
        Plan::Sort { input, fetch, .. } => Sizes::same(limited(rows(input)?, *fetch)),
        Plan::Join { kind, left, right, keys, filters } => {
            let (left_sizes, right_sizes) = (sizes(left)?, sizes(right)?);
            let (left_rows, right_rows) = (left_sizes.rows, right_sizes.rows);
            let matching = join_matching(keys, filters, [left, right], [left_sizes, right_sizes]);
            let pairs = left_rows * right_rows * matching;
            match kind {
                JoinKind::Inner => Sizes::same(pairs),
                JoinKind::Left => Sizes::same(pairs.max(left_rows)),
                JoinKind::Full => Sizes::same(pairs.max(left_rows).max(right_rows)),
                JoinKind::Single | JoinKind::Mark { .. } => left_sizes,
                JoinKind::Semi => Sizes { rows: left_rows * (right_rows * matching).min(1.0), ..left_sizes },
                JoinKind::Anti { .. } => {
                    Sizes { rows: left_rows * (1.0 - (right_rows * matching).min(0.9)), ..left_sizes }
                }
            }
        }
        Plan::Limit { input, skip, fetch } => {
            Sizes::same(limited((rows(input)? - *skip as f64).max(0.0), *fetch))
        }
    })
}

/// Of all pairs of rows of two inputs, the part that meets.
pub(super) fn join_matching(
    keys: &[JoinKey],
    filters: &[Expr],
    [left, right]: [&Plan; 2],
    sides: [Sizes; 2],
) -> f64 {
    let base_rows = sides.map(|side| side.base_rows.max(side.rows));
    let between = |expr: &Expr| distinct(expr, left).or_else(|| distinct(expr, right));
    let known = Known { plan: left, statistics: None, between: Some(&between) };
    keys_matching(keys, [left, right], base_rows) * known.conjunction(filters)
}

/// What the filters of a scan let through of a sample of its rows, if there is any that statistics say nothing of.
fn sampled(plan: &Plan, known: &Known<'_>) -> Option<f64> {
    let Plan::Scan { provider, columns, filter_columns, filters, .. } = plan else { return None };
    let (told, untold): (Vec<Expr>, Vec<Expr>) = filters.iter().cloned().partition(|e| known.tells(e));
    if untold.is_empty() || !filters.iter().all(is_deterministic) {
        return None;
    }
    let columns: Vec<(ColumnId, usize)> =
        columns.iter().chain(filter_columns).map(|(column, at)| (column.id, *at)).collect();
    // None of a sample's rows is not none at all.
    let part = |sampled: Sampled| (sampled.passing as f64 + 0.5) / (sampled.rows as f64 + 1.0);
    let all = provider.sample(filters, &columns)?;
    if all.passing >= ENOUGH_PASSING || told.is_empty() {
        return Some(part(all));
    }
    Some(part(provider.sample(&untold, &columns)?) * known.conjunction(&told))
}

/// The part of all pairs of two inputs' rows that agree in `keys`; `base_rows` are those of the inputs before filters.
fn keys_matching(keys: &[JoinKey], [left, right]: [&Plan; 2], base_rows: [f64; 2]) -> f64 {
    // Keys between the same two tables go together.
    type Between<'a> = ([Option<&'a Plan>; 2], [f64; 2], Vec<(f64, f64)>);
    let mut groups: Vec<Between<'_>> = vec![];
    // Results of aggregations and the like often depend on the other keys: they count only if there are no others.
    let is_known =
        |key: &JoinKey| distinct(&key.left, left).is_some() && distinct(&key.right, right).is_some();
    let any_known = keys.iter().any(is_known);
    for key in keys.iter().filter(|key| !any_known || is_known(key)) {
        let tables = [table_of(&key.left, left), table_of(&key.right, right)];
        let rows = |table: Option<&Plan>, whole: f64| {
            table.and_then(|table| Some(sizes(table)?.base_rows)).unwrap_or(whole)
        };
        let bases = [rows(tables[0], base_rows[0]), rows(tables[1], base_rows[1])];
        let values = (
            distinct(&key.left, left).unwrap_or(bases[0]).max(1.0),
            distinct(&key.right, right).unwrap_or(bases[1]).max(1.0),
        );
        let same = |a: &Option<&Plan>, b: &Option<&Plan>| match (a, b) {
            (Some(a), Some(b)) => std::ptr::eq(*a, *b),
            (None, None) => true,
            _ => false,
        };
        match groups.iter_mut().find(|(known, ..)| known.iter().zip(&tables).all(|(a, b)| same(a, b))) {
            Some((.., all)) => all.push(values),
            None => groups.push((tables, bases, vec![values])),
        }
    }
    groups.iter().map(|(_, [left, right], values)| matching(values, *left, *right)).product()
}

/// Of the `values` of a key how many some rows have, where its table has more: each is missed if all of its rows are, and
/// all have equally many (Yao, "Approximating Block Accesses in Database Organizations", CACM 1977).
fn values_left(values: f64, key: &Expr, input: &Plan, rows: f64) -> f64 {
    let table = table_of(key, input).and_then(sizes);
    let Some(Sizes { base_rows, .. }) = table.filter(|table| table.base_rows >= values && values > 0.0)
    else {
        return values;
    };
    let missed = 1.0 - (rows / base_rows).min(1.0);
    values * (1.0 - missed.powf(base_rows / values))
}

/// The scan or aggregation below `plan` that a key comes from, if it is a column of one.
fn table_of<'a>(key: &Expr, plan: &'a Plan) -> Option<&'a Plan> {
    let id = match key {
        Expr::Column { id, .. } => *id,
        Expr::Cast { operand, .. } => return table_of(operand, plan),
        _ => return None,
    };
    match plan {
        Plan::Scan { .. }
        | Plan::Values { .. }
        | Plan::Aggregate { .. }
        | Plan::UnionAll { .. }
        | Plan::Shared { .. } => Some(plan),
        Plan::Project { input, columns } => {
            let (_, expr) = columns.iter().find(|(column, _)| column.id == id)?;
            table_of(expr, input)
        }
        Plan::Filter { .. }
        | Plan::Join { .. }
        | Plan::Sort { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. } => {
            let mut inputs = plan.inputs().into_iter();
            let owner = inputs.find(|input| input.columns().iter().any(|column| column.id == id))?;
            table_of(key, owner)
        }
    }
}

/// The part of all pairs of two inputs' rows that agree in some keys, given how many values each key has on either
/// side, and how many rows the sides have before filters.
pub(super) fn matching(keys: &[(f64, f64)], left_base_rows: f64, right_base_rows: f64) -> f64 {
    match keys {
        [] => 1.0,
        // The values of one side are taken to be contained in the other's.
        [(left, right)] => 1.0 / left.max(*right).max(1.0),
        // The columns of a composite key go together: there are no more combinations than the smaller table has rows.
        several => {
            let (left, right) = several.iter().fold((1.0, 1.0), |(l, r), key| (l * key.0, r * key.1));
            let combinations = left.min(left_base_rows).min(right.min(right_base_rows));
            // Nor do more rows agree in all keys than in any one of them.
            let one = several.iter().fold(1.0_f64, |most, key| most.max(key.0).max(key.1));
            1.0 / combinations.max(one).max(1.0)
        }
    }
}

/// How many values an expression takes, if known.
type Distinct<'a> = &'a dyn Fn(&Expr) -> Option<f64>;

/// What a predicate lets through, given how many values its columns have.
pub(super) fn selectivity(predicate: &Expr, distinct: Distinct<'_>) -> f64 {
    let nowhere = Plan::Values { columns: vec![], rows: vec![] };
    Known { plan: &nowhere, statistics: None, between: Some(distinct) }.selectivity(predicate)
}

/// About how many values `key` takes in the rows of `input`, filters aside.
pub(crate) fn distinct(key: &Expr, input: &Plan) -> Option<f64> {
    let id = match key {
        Expr::Column { id, .. } => *id,
        Expr::Cast { operand, .. } => return distinct(operand, input),
        _ => return None,
    };
    match input {
        Plan::Scan { columns, filter_columns, provider, filters, .. } => {
            let (_, at) = columns.iter().chain(filter_columns).find(|(column, _)| column.id == id)?;
            let statistics = provider.statistics();
            let distinct = statistics.columns.get(*at)?.distinct_count? as f64;
            // Filters on the column itself leave fewer values.
            let own: Vec<Expr> = filters.iter().filter(|e| reads_only(e, id)).cloned().collect();
            let left = Known { plan: input, statistics: Some(&statistics), between: None }.conjunction(&own);
            Some((distinct * left).max(1.0))
        }
        Plan::Project { input, columns } => {
            let (_, expr) = columns.iter().find(|(column, _)| column.id == id)?;
            distinct(expr, input)
        }
        Plan::Aggregate { input: below, groups, .. } => {
            let (_, expr) = groups.iter().find(|(column, _)| column.id == id)?;
            if groups.len() == 1 {
                return rows(input);
            }
            distinct(expr, below)
        }
        Plan::Values { rows, .. } => Some(rows.len() as f64),
        Plan::Shared { plan, columns, .. } => {
            let at = columns.iter().position(|column| column.id == id)?;
            distinct(&plan.columns().get(at)?.to_expr(), plan)
        }
        Plan::UnionAll { columns, inputs, values } => {
            let at = columns.iter().position(|column| column.id == id)?;
            let each = inputs.iter().zip(values).map(|(input, values)| distinct(&values[at], input));
            each.sum()
        }
        Plan::Filter { .. }
        | Plan::Join { .. }
        | Plan::Sort { .. }
        | Plan::Repeat { .. }
        | Plan::LimitPer { .. }
        | Plan::Limit { .. } => {
            let mut inputs = input.inputs().into_iter();
            let owner = inputs.find(|input| input.columns().iter().any(|column| column.id == id))?;
            distinct(key, owner)
        }
    }
}

fn reads_only(expr: &Expr, column: ColumnId) -> bool {
    let mut only = true;
    expr.for_each_column(&mut |id| only &= id == column);
    only
}

/// What is known of the columns predicates read.
struct Known<'a> {
    plan: &'a Plan,
    statistics: Option<&'a TableStatistics>,
    /// How many values a column has, where it is none of a scan's.
    between: Option<Distinct<'a>>,
}

impl Known<'_> {
    fn column(&self, id: ColumnId) -> Option<&ColumnStatistics> {
        let Plan::Scan { columns, filter_columns, .. } = self.plan else { return None };
        let is_it = |(column, _): &&(Column, usize)| column.id == id;
        let (_, at) = columns.iter().chain(filter_columns).find(is_it)?;
        self.statistics?.columns.get(*at)
    }

    /// Whether the statistics say what `predicate` lets through, as far as values are spread evenly.
    fn tells(&self, predicate: &Expr) -> bool {
        let counts = |e: &Expr| match e {
            Expr::Column { id, .. } => self.column(*id).is_some_and(|column| column.distinct_count.is_some()),
            _ => false,
        };
        let is_value = |e: &Expr| matches!(e, Expr::Literal(_));
        match predicate {
            Expr::Compare {
                op: CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct,
                left,
                right,
            } => counts(left) && is_value(right) || is_value(left) && counts(right),
            Expr::Compare { .. } => self.range(predicate).is_some(),
            Expr::InList { operand, .. } => counts(operand),
            Expr::And(list) | Expr::Or(list) => list.iter().all(|e| self.tells(e)),
            Expr::Not(operand) => self.tells(operand),
            Expr::Literal(_) => true,
            Expr::Column { .. }
            | Expr::IsNull(_)
            | Expr::Like { .. }
            | Expr::Arithmetic { .. }
            | Expr::Negate(_)
            | Expr::Case { .. }
            | Expr::Cast { .. }
            | Expr::Call { .. } => false,
        }
    }

    /// Conjuncts as if independent, except that the two ends of a range on one column are one predicate.
    fn conjunction(&self, conjuncts: &[Expr]) -> f64 {
        let mut selectivity = 1.0;
        let mut ranges: Vec<(ColumnId, f64, f64)> = vec![];
        for conjunct in conjuncts {
            match self.range(conjunct) {
                Some((id, low, high)) => match ranges.iter_mut().find(|(known, ..)| *known == id) {
                    Some((_, known_low, known_high)) => {
                        *known_low = known_low.max(low);
                        *known_high = known_high.min(high);
                    }
                    None => ranges.push((id, low, high)),
                },
                None => selectivity *= self.selectivity(conjunct),
            }
        }
        for (_, low, high) in ranges {
            selectivity *= (high - low).clamp(0.0, 1.0);
        }
        selectivity
    }

    /// The part of a column's value range, of 0 to 1, that an inequality with a constant leaves.
    fn range(&self, predicate: &Expr) -> Option<(ColumnId, f64, f64)> {
        let Expr::Compare { op, left, right } = predicate else { return None };
        let (id, op, bound) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column { id, .. }, Expr::Literal(bound)) => (*id, *op, bound),
            (Expr::Literal(bound), Expr::Column { id, .. }) => (*id, op.swapped(), bound),
            _ => return None,
        };
        let statistics = self.column(id)?;
        let (min, max) = (number(statistics.min.as_ref()?)?, number(statistics.max.as_ref()?)?);
        let width = max - min;
        let at = if width > 0.0 { ((number(bound)? - min) / width).clamp(0.0, 1.0) } else { 0.5 };
        match op {
            CompareOp::Lt | CompareOp::LtEq => Some((id, 0.0, at)),
            CompareOp::Gt | CompareOp::GtEq => Some((id, at, 1.0)),
            CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct => None,
        }
    }

    fn selectivity(&self, predicate: &Expr) -> f64 {
        match predicate {
            Expr::And(list) => self.conjunction(list),
            Expr::Or(list) => 1.0 - list.iter().map(|e| 1.0 - self.selectivity(e)).product::<f64>(),
            Expr::Not(operand) => 1.0 - self.selectivity(operand),
            Expr::Compare { op: CompareOp::Eq | CompareOp::IsNotDistinct, left, right } => {
                self.equality(left).min(self.equality(right))
            }
            // Of two columns that are compared neither is known to be the greater one.
            Expr::Compare {
                op: CompareOp::Lt | CompareOp::LtEq | CompareOp::Gt | CompareOp::GtEq,
                left,
                right,
            } if !matches!(left.as_ref(), Expr::Literal(_))
                && !matches!(right.as_ref(), Expr::Literal(_)) =>
            {
                INEQUALITY_SELECTIVITY
            }
            Expr::Compare { op: CompareOp::NotEq | CompareOp::IsDistinct, left, right } => {
                1.0 - self.equality(left).min(self.equality(right))
            }
            Expr::InList { operand, list } => (self.equality(operand) * list.len() as f64).min(1.0),
            Expr::IsNull(_) => EQUALITY_SELECTIVITY,
            Expr::Like { .. } => LIKE_SELECTIVITY,
            Expr::Column { .. }
            | Expr::Literal(_)
            | Expr::Compare { .. }
            | Expr::Arithmetic { .. }
            | Expr::Negate(_)
            | Expr::Case { .. }
            | Expr::Cast { .. }
            | Expr::Call { .. } => UNKNOWN_SELECTIVITY,
        }
    }

    /// What an equality with one value of `expr` lets through.
    fn equality(&self, expr: &Expr) -> f64 {
        match expr {
            Expr::Column { id, .. } => {
                let counted = self.column(*id).and_then(|column| column.distinct_count).map(|n| n as f64);
                let distinct = counted.or_else(|| self.between.and_then(|between| between(expr)));
                distinct.filter(|n| *n >= 1.0).map_or(EQUALITY_SELECTIVITY, |n| 1.0 / n)
            }
            Expr::Literal(_) => 1.0,
            _ => EQUALITY_SELECTIVITY,
        }
    }
}

fn number(value: &Scalar) -> Option<f64> {
    match value.value {
        Value::Int(v) => Some(match value.data_type {
            crate::data::DataType::Decimal { scale, .. } => v as f64 / 10f64.powi(i32::from(scale)),
            _ => v as f64,
        }),
        Value::Float(v) => Some(v),
        Value::Null | Value::Boolean(_) | Value::Utf8(_) | Value::Binary(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::bind;
    use super::*;

    #[test]
    fn estimates_follow_statistics() {
        let rows =
            |sql: &str| estimate_rows(&super::super::testing::optimized(bind(sql)).expect("optimizes"));
        // The table has 1000 rows, b runs from 0 to 100 over 50 values.
        assert_eq!(rows("select a from t"), Some(1000));
        assert_eq!(rows("select a from t where b < 25"), Some(250));
        assert_eq!(rows("select a from t where b >= 25 and b < 35"), Some(100));
        assert_eq!(rows("select a from t where b = 3"), Some(20));
        assert_eq!(rows("select b, count(*) from t group by b"), Some(50));
        assert_eq!(rows("select count(*) from t"), Some(1));
        assert_eq!(rows("select a from t order by a limit 7"), Some(7));
    }
}

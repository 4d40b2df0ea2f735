//! Plans as text: `EXPLAIN`, and what the tests of binder and optimizer compare.
//!
//! One node a line, inputs indented below it, columns by name. A name that two columns of the plan share is followed
//! by the column's id.

use super::{Column, JoinKind, Plan, SortKey};
use crate::expr::{ColumnId, Expr};
use crate::functions::AggregateCall;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

/// The plan as an indented tree. `annotate` may append a remark to a node's line, such as estimated rows.
pub(crate) fn explain(plan: &Plan, annotate: &dyn Fn(&Plan) -> Option<String>) -> String {
    let names = Names::of(plan);
    let mut text = String::new();
    write_node(&mut text, plan, 0, &names, annotate);
    text
}

/// How each column of a plan is called.
struct Names(HashMap<ColumnId, String>);

impl Names {
    fn of(plan: &Plan) -> Self {
        let mut by_id: HashMap<ColumnId, String> = HashMap::new();
        // Parents are visited first, so that the node that makes a column has the last word on its name.
        plan.for_each_node(&mut |node| {
            for column in node.defined_columns() {
                by_id.insert(column.id, column.field.name.clone());
            }
        });
        let mut uses: HashMap<String, usize> = HashMap::new();
        for name in by_id.values() {
            *uses.entry(name.to_lowercase()).or_default() += 1;
        }
        for (id, name) in &mut by_id {
            if uses.get(&name.to_lowercase()).is_some_and(|n| *n > 1) {
                let _ = write!(name, "#{}", id.0);
            }
        }
        Self(by_id)
    }

    fn column(&self, id: ColumnId) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| format!("#{}", id.0))
    }

    fn list<'a, T: 'a>(&self, items: impl IntoIterator<Item = &'a T>, f: impl Fn(&'a T) -> String) -> String {
        items.into_iter().map(f).collect::<Vec<_>>().join(", ")
    }

    fn exprs(&self, list: &[Expr]) -> String {
        self.list(list, |e| self.expr(e))
    }

    /// `expression AS name`, or the name alone where the expression is the column itself.
    fn computed(&self, columns: &[(Column, Expr)]) -> String {
        self.list(columns, |(column, e)| {
            let (name, text) = (self.column(column.id), self.expr(e));
            if name == text { name } else { format!("{text} AS {name}") }
        })
    }

    fn aggregate(&self, call: &AggregateCall) -> String {
        let arguments = if call.arguments.is_empty() { "*".into() } else { self.exprs(&call.arguments) };
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let mut text = format!("{}({distinct}{arguments})", call.function.name());
        if let Some(filter) = &call.filter {
            let _ = write!(text, " FILTER ({})", self.expr(filter));
        }
        text
    }

    fn sort_key(&self, key: &SortKey) -> String {
        let mut text = self.expr(&key.expr);
        if key.descending {
            text.push_str(" DESC");
        }
        if key.nulls_first {
            text.push_str(" NULLS FIRST");
        }
        text
    }

    fn expr(&self, expr: &Expr) -> String {
        Named { expr, names: self }.to_string()
    }
}

/// An expression with its columns by name.
struct Named<'a> {
    expr: &'a Expr,
    names: &'a Names,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names;
        let named = |expr| Named { expr, names };
        let joined = |f: &mut fmt::Formatter<'_>, list: &[Expr], separator: &str| {
            list.iter().enumerate().try_for_each(|(i, e)| {
                write!(f, "{}{}", if i > 0 { separator } else { "" }, Named { expr: e, names })
            })
        };
        match self.expr {
            Expr::Column { id, .. } => f.write_str(&self.names.column(*id)),
            Expr::Literal(value) => write!(f, "{value}"),
            Expr::Compare { op, left, right } => {
                write!(f, "({} {} {})", named(left), op.symbol(), named(right))
            }
            Expr::Arithmetic { op, left, right, .. } => {
                write!(f, "({} {} {})", named(left), op.symbol(), named(right))
            }
            Expr::Negate(e) => write!(f, "(-{})", named(e)),
            Expr::Not(e) => write!(f, "(NOT {})", named(e)),
            Expr::IsNull(e) => write!(f, "({} IS NULL)", named(e)),
            Expr::And(list) => {
                f.write_str("(")?;
                joined(f, list, " AND ")?;
                f.write_str(")")
            }
            Expr::Or(list) => {
                f.write_str("(")?;
                joined(f, list, " OR ")?;
                f.write_str(")")
            }
            Expr::InList { operand, list } => {
                write!(f, "({} IN (", named(operand))?;
                for (i, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("))")
            }
            Expr::Like { operand, pattern, escape, ignore_case } => {
                let like = if *ignore_case { "ILIKE" } else { "LIKE" };
                write!(f, "({} {like} {}", named(operand), named(pattern))?;
                if let Some(escape) = escape {
                    write!(f, " ESCAPE '{escape}'")?;
                }
                f.write_str(")")
            }
            Expr::Case { branches, otherwise, .. } => {
                f.write_str("CASE")?;
                for (condition, value) in branches {
                    write!(f, " WHEN {} THEN {}", named(condition), named(value))?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {}", named(otherwise))?;
                }
                f.write_str(" END")
            }
            Expr::Cast { operand, data_type, is_try } => {
                let cast = if *is_try { "TRY_CAST" } else { "CAST" };
                write!(f, "{cast}({} AS {data_type})", named(operand))
            }
            Expr::Call { function, arguments, .. } => {
                write!(f, "{}(", function.name())?;
                joined(f, arguments, ", ")?;
                f.write_str(")")
            }
        }
    }
}

fn write_node(
    out: &mut String,
    plan: &Plan,
    depth: usize,
    names: &Names,
    annotate: &dyn Fn(&Plan) -> Option<String>,
) {
    let ids = |columns: &[(Column, usize)]| names.list(columns, |(c, _)| names.column(c.id));
    let mut line = match plan {
        Plan::Scan { table, columns, filter_columns, filters, .. } => {
            let mut line = format!("Scan {table}: [{}]", ids(columns));
            if !filters.is_empty() {
                let _ = write!(line, " filters=[{}]", names.exprs(filters));
            }
            if !filter_columns.is_empty() {
                let _ = write!(line, " reads also [{}]", ids(filter_columns));
            }
            line
        }
        Plan::Values { columns, rows } => {
            let columns = names.list(columns, |c| names.column(c.id));
            format!("Values: [{columns}] rows={}", rows.len())
        }
        Plan::Filter { conjuncts, .. } => format!("Filter: {}", names.exprs(conjuncts)),
        Plan::Project { columns, .. } => format!("Project: {}", names.computed(columns)),
        Plan::Aggregate { groups, aggregates, .. } => {
            let aggregates = names.list(aggregates, |(column, call)| {
                let (name, text) = (names.column(column.id), names.aggregate(call));
                if name == text { name } else { format!("{text} AS {name}") }
            });
            format!("Aggregate: groups=[{}] aggregates=[{aggregates}]", names.computed(groups))
        }
        Plan::Sort { keys, fetch, .. } => {
            let keys = names.list(keys, |key| names.sort_key(key));
            match fetch {
                Some(fetch) => format!("Top {fetch}: {keys}"),
                None => format!("Sort: {keys}"),
            }
        }
        Plan::Join { kind, keys, filters, .. } => {
            let mut line = format!("{}Join", kind.name());
            for (at, key) in keys.iter().enumerate() {
                let operator = if key.null_safe { "<=>" } else { "=" };
                let separator = if at == 0 { ": " } else { ", " };
                let _ = write!(
                    line,
                    "{separator}{} {operator} {}",
                    names.expr(&key.left),
                    names.expr(&key.right)
                );
            }
            if !filters.is_empty() {
                let _ = write!(line, " filters=[{}]", names.exprs(filters));
            }
            if let JoinKind::Mark { column, .. } = kind {
                let _ = write!(line, " AS {}", names.column(column.id));
            }
            line
        }
        Plan::UnionAll { columns, values, .. } => {
            let columns = names.list(columns, |c| names.column(c.id));
            let values = names.list(values, |list| format!("[{}]", names.exprs(list)));
            format!("UnionAll: [{columns}] of {values}")
        }
        Plan::Shared { number, columns, .. } => {
            format!("Shared {number}: [{}]", names.list(columns, |c| names.column(c.id)))
        }
        Plan::LimitPer { groups, keys, skip, fetch, .. } => {
            let mut line = format!("LimitPer [{}]:", names.exprs(groups));
            if let Some(fetch) = fetch {
                let _ = write!(line, " {fetch}");
            }
            if *skip > 0 {
                let _ = write!(line, " offset {skip}");
            }
            if !keys.is_empty() {
                let _ = write!(line, " by {}", names.list(keys, |key| names.sort_key(key)));
            }
            line
        }
        Plan::Repeat { times, .. } => format!("Repeat: {}", names.expr(times)),
        Plan::Limit { skip, fetch, .. } => match (skip, fetch) {
            (0, Some(fetch)) => format!("Limit: {fetch}"),
            (skip, Some(fetch)) => format!("Limit: {fetch} offset {skip}"),
            (skip, None) => format!("Limit: offset {skip}"),
        },
    };
    if let Some(remark) = annotate(plan) {
        let _ = write!(line, " {remark}");
    }
    let _ = writeln!(out, "{:indent$}{line}", "", indent = depth * 2);
    for input in plan.inputs() {
        write_node(out, input, depth + 1, names, annotate);
    }
}

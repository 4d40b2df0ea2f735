//! Names of result columns: the text of an expression, as DuckDB writes it.

use super::types;
use sqlparser::ast;

/// The name of a result column that has no alias.
pub(super) fn of_expr(expr: &ast::Expr) -> String {
    match expr {
        // A column keeps its own name, without quotes or qualifier.
        ast::Expr::Identifier(ident) => ident.value.clone(),
        ast::Expr::CompoundIdentifier(parts) => {
            parts.last().map(|part| part.value.clone()).unwrap_or_default()
        }
        ast::Expr::Nested(inner) => of_expr(inner),
        other => {
            let mut out = String::new();
            write(&mut out, other);
            out
        }
    }
}

/// The name of an aggregate's result.
pub(super) fn of_function(function: &ast::Function) -> String {
    let mut out = String::new();
    write_function(&mut out, function);
    out
}

/// Functions whose names are keywords of DuckDB's grammar and therefore quoted.
const QUOTED_FUNCTIONS: &[&str] = &[
    "day",
    "first",
    "hour",
    "if",
    "last",
    "left",
    "minute",
    "mode",
    "month",
    "nullif",
    "position",
    "quarter",
    "replace",
    "right",
    "second",
    "substring",
    "trim",
    "week",
    "year",
];

fn write(out: &mut String, expr: &ast::Expr) {
    use ast::Expr as E;
    match expr {
        E::Identifier(ident) => write_ident(out, ident),
        E::CompoundIdentifier(parts) => {
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push('.');
                }
                write_ident(out, part);
            }
        }
        E::Nested(inner) => write(out, inner),
        E::Value(value) => write_value(out, &value.value),
        E::TypedString(typed) => {
            out.push_str("CAST(");
            write_value(out, &typed.value.value);
            out.push_str(" AS ");
            write_type(out, &typed.data_type);
            out.push(')');
        }
        E::BinaryOp { left, op, right } => {
            let symbol = match op {
                ast::BinaryOperator::NotEq => "!=".to_owned(),
                other => other.to_string(),
            };
            write_infix(out, left, &symbol, right);
        }
        E::UnaryOp { op, expr } => match (op, expr.as_ref()) {
            (ast::UnaryOperator::Not, _) => {
                out.push_str("(NOT ");
                write(out, expr);
                out.push(')');
            }
            (ast::UnaryOperator::Minus, E::Value(value)) => {
                out.push('-');
                write_value(out, &value.value);
            }
            (op, expr) => {
                out.push_str(&format!("({op}("));
                write(out, expr);
                out.push_str("))");
            }
        },
        E::Between { expr, negated, low, high } => negatable(out, *negated, |out| {
            out.push('(');
            write(out, expr);
            out.push_str(" BETWEEN ");
            write(out, low);
            out.push_str(" AND ");
            write(out, high);
            out.push(')');
        }),
        E::InList { expr, list, negated } => negatable(out, *negated, |out| {
            out.push('(');
            write(out, expr);
            out.push_str(" IN (");
            write_list(out, list);
            out.push_str("))");
        }),
        E::Like { negated, expr, pattern, escape_char: None, .. } => {
            write_infix(out, expr, if *negated { "!~~" } else { "~~" }, pattern);
        }
        E::ILike { negated, expr, pattern, escape_char: None, .. } => {
            write_infix(out, expr, if *negated { "!~~*" } else { "~~*" }, pattern);
        }
        E::Like { negated, expr, pattern, escape_char: Some(escape), .. } => {
            let name = if *negated { "not_like_escape" } else { "like_escape" };
            write_call(out, name, [expr.as_ref(), pattern.as_ref(), escape.as_ref()]);
        }
        E::ILike { negated, expr, pattern, escape_char: Some(escape), .. } => {
            let name = if *negated { "not_ilike_escape" } else { "ilike_escape" };
            write_call(out, name, [expr.as_ref(), pattern.as_ref(), escape.as_ref()]);
        }
        E::IsNull(e) | E::IsUnknown(e) => write_postfix(out, e, " IS NULL"),
        E::IsNotNull(e) | E::IsNotUnknown(e) => write_postfix(out, e, " IS NOT NULL"),
        E::IsTrue(e) => write_truth(out, e, "IS NOT DISTINCT FROM true"),
        E::IsNotTrue(e) => write_truth(out, e, "IS DISTINCT FROM true"),
        E::IsFalse(e) => write_truth(out, e, "IS NOT DISTINCT FROM false"),
        E::IsNotFalse(e) => write_truth(out, e, "IS DISTINCT FROM false"),
        E::IsDistinctFrom(a, b) => write_infix(out, a, "IS DISTINCT FROM", b),
        E::IsNotDistinctFrom(a, b) => write_infix(out, a, "IS NOT DISTINCT FROM", b),
        E::Cast { kind, expr, data_type, .. } => {
            let is_try = matches!(kind, ast::CastKind::TryCast | ast::CastKind::SafeCast);
            out.push_str(if is_try { "TRY_CAST(" } else { "CAST(" });
            write(out, expr);
            out.push_str(" AS ");
            write_type(out, data_type);
            out.push(')');
        }
        E::Case { operand, conditions, else_result, .. } => {
            out.push_str("CASE ");
            for when in conditions {
                out.push_str(" WHEN (");
                match operand {
                    Some(operand) => write_infix(out, operand, "=", &when.condition),
                    None => write(out, &when.condition),
                }
                out.push_str(") THEN (");
                write(out, &when.result);
                out.push(')');
            }
            out.push_str(" ELSE ");
            match else_result {
                Some(e) => write(out, e),
                None => out.push_str("NULL"),
            }
            out.push_str(" END");
        }
        E::Extract { field, expr, .. } => {
            out.push_str(&format!("date_part('{}', ", field.to_string().trim_matches('\'')));
            write(out, expr);
            out.push(')');
        }
        E::Substring { expr, substring_from, substring_for, .. } => {
            let rest = substring_from.iter().chain(substring_for).map(AsRef::as_ref);
            write_call(out, "substring", std::iter::once(expr.as_ref()).chain(rest));
        }
        E::Trim { trim_where, trim_what, expr, trim_characters } => {
            let name = match trim_where {
                None | Some(ast::TrimWhereField::Both) => "trim",
                Some(ast::TrimWhereField::Leading) => "ltrim",
                Some(ast::TrimWhereField::Trailing) => "rtrim",
            };
            let rest = trim_what.iter().map(AsRef::as_ref).chain(trim_characters.iter().flatten());
            write_call(out, name, std::iter::once(expr.as_ref()).chain(rest));
        }
        E::Ceil { expr, .. } => write_call(out, "ceil", [expr.as_ref()]),
        E::Floor { expr, .. } => write_call(out, "floor", [expr.as_ref()]),
        E::Position { expr, r#in } => write_call(out, "position", [r#in.as_ref(), expr.as_ref()]),
        E::Function(function) => write_function(out, function),
        E::Interval(interval) => write_interval(out, interval),
        E::Tuple(list) => {
            out.push('(');
            write_list(out, list);
            out.push(')');
        }
        E::Exists { subquery, negated } => {
            out.push_str(&format!("{}EXISTS({subquery})", if *negated { "NOT " } else { "" }));
        }
        E::InSubquery { expr, subquery, negated } => negatable(out, *negated, |out| {
            write_any(out, expr, "=", &format!("({subquery})"));
        }),
        E::AnyOp { left, compare_op, right, .. } => {
            write_any(out, left, &compare_op.to_string(), &right.to_string());
        }
        // The parser's own text is good enough for what the binder refuses or what has no fixed form.
        other => out.push_str(&other.to_string()),
    }
}

fn write_function(out: &mut String, function: &ast::Function) {
    let name = match function.name.0.last() {
        Some(ast::ObjectNamePart::Identifier(ident)) => ident.value.to_lowercase(),
        Some(ast::ObjectNamePart::Function(_)) | None => function.name.to_string(),
    };
    let arguments = match &function.args {
        ast::FunctionArguments::List(list) => list.args.as_slice(),
        ast::FunctionArguments::None => {
            out.push_str(&name);
            return;
        }
        ast::FunctionArguments::Subquery(_) => &[],
    };
    let distinct = match &function.args {
        ast::FunctionArguments::List(list) => {
            list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct)
        }
        ast::FunctionArguments::None | ast::FunctionArguments::Subquery(_) => false,
    };
    let is_star = |argument: &ast::FunctionArg| {
        matches!(argument, ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard))
    };
    let is_count_star = name == "count" && arguments.iter().all(is_star);
    if is_count_star {
        out.push_str("count_star()");
    } else {
        match name.as_str() {
            "coalesce" | "ifnull" => out.push_str("COALESCE"),
            "percentile_cont" => out.push_str("quantile_cont"),
            "percentile_disc" => out.push_str("quantile_disc"),
            name => write_function_name(out, name),
        }
        out.push_str(if distinct { "(DISTINCT " } else { "(" });
        for (i, argument) in arguments.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            match argument {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) => write(out, e),
                other => out.push_str(&other.to_string()),
            }
        }
        if !function.within_group.is_empty() {
            out.push_str(if arguments.is_empty() { "ORDER BY " } else { " ORDER BY " });
            write_order(out, &function.within_group);
        }
        out.push(')');
    }
    if let Some(filter) = &function.filter {
        out.push_str(" FILTER (WHERE ");
        write(out, filter);
        out.push(')');
    }
}

/// DuckDB shows an interval as the conversion it stands for.
fn write_interval(out: &mut String, interval: &ast::Interval) {
    let Some(unit) = &interval.leading_field else {
        out.push_str("CAST(");
        write(out, &interval.value);
        out.push_str(" AS INTERVAL)");
        return;
    };
    let unit = unit.to_string().to_lowercase();
    let unit = unit.trim_end_matches('s');
    out.push_str(&format!("to_{unit}s("));
    let whole = match unit {
        "second" | "millisecond" | "microsecond" => None,
        "hour" | "minute" => Some("BIGINT"),
        _ => Some("INTEGER"),
    };
    out.push_str(if whole.is_some() { "CAST(trunc(CAST(" } else { "CAST(" });
    write(out, &interval.value);
    out.push_str(" AS DOUBLE)");
    if let Some(whole) = whole {
        out.push_str(&format!(") AS {whole})"));
    }
    out.push(')');
}

fn write_call<'e>(out: &mut String, name: &str, arguments: impl IntoIterator<Item = &'e ast::Expr>) {
    write_function_name(out, name);
    out.push('(');
    for (i, argument) in arguments.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(out, argument);
    }
    out.push(')');
}

fn write_function_name(out: &mut String, name: &str) {
    if QUOTED_FUNCTIONS.contains(&name) {
        out.push_str(&format!("\"{name}\""));
    } else {
        out.push_str(name);
    }
}

fn write_order(out: &mut String, keys: &[ast::OrderByExpr]) {
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(out, &key.expr);
        out.push_str(&key.options.to_string());
    }
}

fn write_list(out: &mut String, list: &[ast::Expr]) {
    for (i, e) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(out, e);
    }
}

fn write_infix(out: &mut String, left: &ast::Expr, symbol: &str, right: &ast::Expr) {
    out.push('(');
    write(out, left);
    out.push_str(&format!(" {symbol} "));
    write(out, right);
    out.push(')');
}

/// A comparison with any row of a subquery, which comes in its parentheses.
fn write_any(out: &mut String, operand: &ast::Expr, symbol: &str, subquery: &str) {
    out.push('(');
    write(out, operand);
    let symbol = if symbol == "<>" { "!=" } else { symbol };
    out.push_str(&format!(" {symbol} ANY{subquery})"));
}

fn write_postfix(out: &mut String, operand: &ast::Expr, symbol: &str) {
    out.push('(');
    write(out, operand);
    out.push_str(symbol);
    out.push(')');
}

fn write_truth(out: &mut String, operand: &ast::Expr, test: &str) {
    out.push_str("(CAST(");
    write(out, operand);
    out.push_str(&format!(" AS BOOLEAN) {test})"));
}

fn negatable(out: &mut String, negated: bool, write: impl FnOnce(&mut String)) {
    if negated {
        out.push_str("(NOT ");
    }
    write(out);
    if negated {
        out.push(')');
    }
}

fn write_value(out: &mut String, value: &ast::Value) {
    match value {
        ast::Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        ast::Value::Null => out.push_str("NULL"),
        other => out.push_str(&other.to_string()),
    }
}

/// A type by the engine's name for it, or as written if the engine has none.
fn write_type(out: &mut String, data_type: &ast::DataType) {
    match types::data_type(data_type, None) {
        Ok(known) => out.push_str(&known.to_string()),
        Err(_) => out.push_str(&data_type.to_string()),
    }
}

/// An identifier, quoted only where it must be.
fn write_ident(out: &mut String, ident: &ast::Ident) {
    let plain = ident.value.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !ident.value.starts_with(|c: char| c.is_ascii_digit());
    if plain {
        out.push_str(&ident.value);
    } else {
        out.push_str(&format!("\"{}\"", ident.value.replace('"', "\"\"")));
    }
}

//! What names mean: relations, their columns, and the scopes that hold them.
//!
//! A scope holds the relations of one FROM clause. Scopes nest: a name that a scope does not know is looked up in the
//! scope around it, and one found there makes the query inside a correlated one.

use crate::error::{Error, Location, Result};
use crate::expr::ColumnId;
use crate::logical::Column;
use sqlparser::ast::Ident;
use std::collections::HashSet;

/// A table, derived table or CTE as a FROM clause names it.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// Its alias, or its own name; `None` for a derived table without alias.
    pub(super) name: Option<String>,
    /// Its columns under the names they have here.
    pub(super) columns: Vec<(String, Column)>,
}

/// A column that USING or NATURAL made of columns of several relations.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    /// Its name.
    pub(super) name: String,
    /// What an unqualified name reads.
    pub(super) column: Column,
    /// The columns it was made of: only a qualified name means them.
    pub(super) hides: Vec<ColumnId>,
}

/// The relations of a FROM clause.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) relations: Vec<Relation>,
    pub(super) merged: Vec<Merged>,
}

/// The relations names are looked up in.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    pub(super) tables: Tables,
    pub(super) parent: Option<&'a Scope<'a>>,
}

/// What a name was found to be.
#[derive(Debug)]
pub(super) enum Resolved<'a> {
    /// A column of this scope.
    Own(&'a Column),
    /// A column of an enclosing query.
    Outer(&'a Column),
}

impl<'a> Scope<'a> {
    /// Looks a column up, here and then in the scopes around. `None` if nobody knows it.
    ///
    /// # Errors
    /// A plan error if several relations of one scope have it.
    pub(super) fn find(&'a self, parts: &[Ident]) -> Result<Option<Resolved<'a>>> {
        if let Some(column) = self.tables.find(parts)? {
            return Ok(Some(Resolved::Own(column)));
        }
        match self.parent {
            Some(parent) => Ok(parent.find(parts)?.map(|found| match found {
                Resolved::Own(column) | Resolved::Outer(column) => Resolved::Outer(column),
            })),
            None => Ok(None),
        }
    }

    /// Every column of the scopes around.
    pub(super) fn outer_ids(&self) -> HashSet<ColumnId> {
        let mut ids = HashSet::new();
        let mut next = self.parent;
        while let Some(scope) = next {
            ids.extend(scope.tables.ids());
            next = scope.parent;
        }
        ids
    }

    /// The error for a column nobody knows.
    pub(super) fn unknown(&self, parts: &[Ident], aliases: &[String]) -> Error {
        let location = parts.first().and_then(|part| super::location(part.span));
        let Some(name) = parts.last() else { return Error::plan("a column without a name", location) };
        let relations = &self.tables.relations;
        if let Some(qualifier) = parts.iter().rev().nth(1)
            && !relations.iter().any(|relation| relation.is_called(&qualifier.value))
        {
            let tables = relations.iter().filter_map(|relation| relation.name.as_deref());
            return unknown_name("table", &qualifier.value, tables, "the FROM clause", location);
        }
        if relations.is_empty() {
            let message = format!("no column \"{}\": the query has no FROM clause", name.value);
            return Error::plan(message, location);
        }
        let columns = relations.iter().flat_map(|relation| relation.columns.iter().map(|(n, _)| n.as_str()));
        let candidates = columns.chain(aliases.iter().map(String::as_str));
        unknown_name("column", &name.value, candidates, "the FROM clause", location)
    }
}

impl Tables {
    /// These and others beside them.
    #[must_use]
    pub(super) fn and(mut self, others: Self) -> Self {
        self.relations.extend(others.relations);
        self.merged.extend(others.merged);
        self
    }

    /// The column of that name, if there is one.
    ///
    /// # Errors
    /// A plan error if there are several.
    pub(super) fn find(&self, parts: &[Ident]) -> Result<Option<&Column>> {
        let (Some(name), qualifier) = (parts.last(), parts.iter().rev().nth(1)) else {
            return Ok(None);
        };
        let merged =
            self.merged.iter().filter(|merged| qualifier.is_none() && same_name(&merged.name, &name.value));
        let plain = self
            .relations
            .iter()
            .filter(|relation| qualifier.is_none_or(|q| relation.is_called(&q.value)))
            .flat_map(|relation| relation.columns.iter().map(move |column| (relation, column)))
            .filter(|(_, (column, _))| same_name(column, &name.value))
            .filter(|(_, (_, column))| qualifier.is_some() || self.merged_from(column.id).is_none());
        let mut matches = merged
            .map(|merged| (None, &merged.column))
            .chain(plain.map(|(relation, (_, column))| (relation.name.as_ref(), column)));
        let Some((first, column)) = matches.next() else { return Ok(None) };
        let Some((second, _)) = matches.next() else { return Ok(Some(column)) };
        let remedy = match (first, second) {
            (Some(a), Some(b)) if !same_name(a, b) => {
                format!("write {a}.{} or {b}.{}", name.value, name.value)
            }
            _ => "give the columns different names".into(),
        };
        Err(Error::plan(
            format!("column \"{}\" is ambiguous; {remedy}", name.value),
            super::location(name.span),
        ))
    }

    /// What a column has become part of.
    pub(super) fn merged_from(&self, id: ColumnId) -> Option<&Merged> {
        self.merged.iter().find(|merged| merged.hides.contains(&id))
    }

    /// The columns `*` stands for: a merged one once, where the first of its parts stands.
    pub(super) fn visible(&self) -> Vec<(String, Column)> {
        let mut columns: Vec<(String, Column)> = vec![];
        let mut shown: HashSet<ColumnId> = HashSet::new();
        for (name, column) in self.relations.iter().flat_map(|relation| &relation.columns) {
            match self.merged_from(column.id) {
                None => columns.push((name.clone(), column.clone())),
                Some(merged) if shown.insert(merged.column.id) => {
                    columns.push((merged.name.clone(), merged.column.clone()));
                }
                Some(_) => {}
            }
        }
        columns
    }

    /// The ids of all columns.
    pub(super) fn ids(&self) -> impl Iterator<Item = ColumnId> {
        self.columns().map(|column| column.id)
    }

    /// All columns, whether `*` shows them or not.
    pub(super) fn columns(&self) -> impl Iterator<Item = &Column> {
        let plain = self.relations.iter().flat_map(|relation| &relation.columns).map(|(_, column)| column);
        plain.chain(self.merged.iter().map(|merged| &merged.column))
    }

    /// All columns may be null.
    pub(super) fn make_nullable(&mut self) {
        let plain = self.relations.iter_mut().flat_map(|relation| &mut relation.columns).map(|(_, c)| c);
        for column in plain.chain(self.merged.iter_mut().map(|merged| &mut merged.column)) {
            column.field.nullable = true;
        }
    }
}

impl Relation {
    /// Whether a qualifier means it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref().is_some_and(|own| same_name(own, name))
    }
}

/// Identifiers match without regard to case.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// The error for a name nobody knows, with the nearest name that exists.
pub(super) fn unknown_name<'n>(
    kind: &str,
    name: &str,
    candidates: impl Iterator<Item = &'n str>,
    place: &str,
    location: Option<Location>,
) -> Error {
    let hint = match nearest(name, candidates) {
        Some(candidate) => format!("; did you mean \"{candidate}\"?"),
        None => String::new(),
    };
    Error::plan(format!("no {kind} \"{name}\" in {place}{hint}"), location)
}

/// The candidate with the fewest edits from `name`, if it is near enough to be a slip.
pub(super) fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let allowed = length.div_ceil(3).min(length.saturating_sub(1));
    candidates
        .map(|candidate| (edits(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataType, Field};

    fn relation(name: &str, first_id: u32, columns: &[&str]) -> Relation {
        let column = |(i, name): (usize, &&str)| {
            let field = Field { name: (*name).into(), data_type: DataType::Int32, nullable: true };
            ((*name).into(), Column { id: ColumnId(first_id + i as u32), field })
        };
        Relation { name: Some(name.into()), columns: columns.iter().enumerate().map(column).collect() }
    }

    fn tables(relations: Vec<Relation>) -> Tables {
        Tables { relations, merged: vec![] }
    }

    fn ident(name: &str) -> Ident {
        Ident::new(name)
    }

    #[test]
    fn inner_names_hide_outer_ones() {
        let outer = Scope { tables: tables(vec![relation("o", 0, &["a", "b"])]), parent: None };
        let inner = Scope { tables: tables(vec![relation("i", 10, &["a"])]), parent: Some(&outer) };
        let found = inner.find(&[ident("A")]).expect("not ambiguous");
        assert!(matches!(found, Some(Resolved::Own(c)) if c.id == ColumnId(10)));
        let found = inner.find(&[ident("b")]).expect("not ambiguous");
        assert!(matches!(found, Some(Resolved::Outer(c)) if c.id == ColumnId(1)));
        let found = inner.find(&[ident("o"), ident("a")]).expect("not ambiguous");
        assert!(matches!(found, Some(Resolved::Outer(c)) if c.id == ColumnId(0)));
        assert!(inner.find(&[ident("c")]).expect("not ambiguous").is_none());
    }

    #[test]
    fn two_relations_with_one_name_need_a_qualifier() {
        let relations = vec![relation("x", 0, &["k"]), relation("y", 1, &["k"])];
        let scope = Scope { tables: tables(relations), parent: None };
        let error = scope.find(&[ident("k")]).expect_err("two of them");
        assert_eq!(error.to_string(), "column \"k\" is ambiguous; write x.k or y.k");
        assert!(scope.find(&[ident("y"), ident("k")]).expect("qualified").is_some());
    }

    #[test]
    fn the_nearest_name_is_suggested_only_if_near() {
        let names = ["l_quantity", "l_discount", "l_tax"];
        assert_eq!(nearest("L_QUANTTY", names.into_iter()), Some("l_quantity"));
        assert_eq!(nearest("zzz", names.into_iter()), None);
        assert_eq!(nearest("t", ["a"].into_iter()), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}

//! Texts of several statements: where each begins and ends, and places in one as places in the whole.
//!
//! Owns: [`SqlStatement`]. Must not know: what statements mean.

use super::parse::tokenize;
use crate::error::{Error, Location, Result};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;
use std::borrow::Cow;

/// What has a statement run and its plan reported.
const EXPLAIN_ANALYZE: &str = "EXPLAIN ANALYZE ";

/// One statement of a text, and where in it it stands: see [`Session::statements`](crate::Session::statements).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlStatement<'a> {
    whole: &'a str,
    text: &'a str,
    start: Location,
    returns_rows: bool,
    explains: bool,
}

impl<'a> SqlStatement<'a> {
    /// The statement, without the semicolon and what surrounds it.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Where in the whole text it starts.
    pub fn start(&self) -> Location {
        self.start
    }

    /// Whether it is of a kind that returns rows, if it is right: told by its first words.
    pub fn returns_rows(&self) -> bool {
        self.returns_rows
    }

    /// The same as the statement of an EXPLAIN ANALYZE: it runs, and returns its plan with measured rows and times.
    #[must_use]
    pub fn explain_analyze(self) -> Self {
        Self { explains: true, ..self }
    }

    /// What is to be parsed.
    pub(crate) fn sql(&self) -> Cow<'a, str> {
        if self.explains { format!("{EXPLAIN_ANALYZE}{}", self.text).into() } else { self.text.into() }
    }

    /// An error about [`SqlStatement::sql`] as one about the whole text.
    pub(crate) fn locate(&self, error: Error) -> Error {
        let before = if self.explains { EXPLAIN_ANALYZE.len() as u64 } else { 0 };
        let moved = |Location { line, column }: Location| match line {
            0 | 1 => Location {
                line: self.start.line,
                column: (self.start.column + column.saturating_sub(1))
                    .saturating_sub(before)
                    .max(self.start.column),
            },
            _ => Location { line: line + self.start.line - 1, column },
        };
        error.moved(moved).with_excerpt(self.whole)
    }
}

/// The statements between semicolons, those of nothing but white space and comments left out.
pub(crate) fn split(sql: &str) -> Result<Vec<SqlStatement<'_>>> {
    let mut lines = vec![0];
    lines.extend(sql.match_indices('\n').map(|(at, _)| at + 1));
    let offset = |place: sqlparser::tokenizer::Location| {
        let start = lines.get(place.line.saturating_sub(1) as usize).copied().unwrap_or(sql.len());
        let column = place.column.saturating_sub(1) as usize;
        sql[start..].char_indices().nth(column).map_or(sql.len(), |(at, _)| start + at)
    };
    let place = |offset: usize| {
        let line = lines.partition_point(|start| *start <= offset);
        let before = &sql[lines[line - 1]..offset];
        Location { line: line as u64, column: before.chars().count() as u64 + 1 }
    };
    let statement = |start: usize, end: usize, returns_rows: bool| {
        let text = sql[start..end].trim();
        let start = place(end - sql[start..end].trim_start().len());
        SqlStatement { whole: sql, text, start, returns_rows, explains: false }
    };
    let mut statements = vec![];
    let mut start = 0;
    let mut kind = None;
    for token in tokenize(sql)? {
        match &token.token {
            Token::SemiColon => {
                let end = offset(token.span.start);
                if let Some(kind) = kind.take() {
                    statements.push(statement(start, end, kind != Kind::Effect));
                }
                start = end + 1;
            }
            Token::Whitespace(_) | Token::EOF => {}
            token if kind.is_none_or(|kind| kind == Kind::Explained) => kind = Some(Kind::of(token)),
            _ => {}
        }
    }
    if let Some(kind) = kind {
        statements.push(statement(start, sql.len(), kind != Kind::Effect));
    }
    Ok(statements)
}

/// What a statement's first words say of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// EXPLAIN, ANALYZE: the words that follow tell.
    Explained,
    /// Nothing is returned.
    Effect,
    /// Rows are, or it is no statement.
    Rows,
}

impl Kind {
    fn of(token: &Token) -> Self {
        let Token::Word(word) = token else { return Self::Rows };
        match word.keyword {
            Keyword::EXPLAIN | Keyword::ANALYZE => Self::Explained,
            Keyword::CREATE | Keyword::DROP | Keyword::SET | Keyword::RESET => Self::Effect,
            _ => Self::Rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u64, column: u64) -> Location {
        Location { line, column }
    }

    #[test]
    fn texts_split_at_semicolons_outside_of_strings() {
        let texts = |sql| split(sql).expect("tokens").iter().map(SqlStatement::text).collect::<Vec<_>>();
        assert_eq!(
            texts("select ';';\n -- done; \n select 'ü' ; ;"),
            ["select ';'", "-- done; \n select 'ü'"]
        );
        assert_eq!(texts(" -- nothing\n"), Vec::<&str>::new());
    }

    #[test]
    fn places_count_in_the_whole_text() {
        let sql = "select 1;\nselect 'ü'; select\n  x;\n\n  select y";
        let statements = split(sql).expect("tokens");
        let starts: Vec<_> = statements.iter().map(SqlStatement::start).collect();
        assert_eq!(starts, [at(1, 1), at(2, 1), at(2, 13), at(5, 3)]);
        let wrong = |index: usize, line, column| {
            let statement: &SqlStatement<'_> = &statements[index];
            // As the binder makes it: with the statement's own line.
            let error = Error::plan("wrong", Some(at(line, column))).with_excerpt(statement.text());
            statement.locate(error).to_string()
        };
        assert_eq!(wrong(2, 2, 3), "wrong (line 3, column 3)\n    x;\n    ^");
        assert_eq!(wrong(3, 1, 8), "wrong (line 5, column 10)\n    select y\n           ^");
        let explained = statements[3].clone().explain_analyze();
        assert_eq!(explained.sql(), "EXPLAIN ANALYZE select y");
        let error = Error::plan("wrong", Some(at(1, 24)));
        assert_eq!(explained.locate(error).location(), Some(at(5, 10)));
        let error = Error::plan("wrong", Some(at(1, 1)));
        assert_eq!(explained.locate(error).location(), Some(at(5, 3)));
    }

    #[test]
    fn first_words_tell_whether_rows_come() {
        let sql =
            "select 1; (values (1)); with a as (select 1) from a; create view v as select 1; drop view v;
            set timeout = '1s'; reset timeout; explain select 1; explain analyze create view w as select 1";
        let rows: Vec<_> = split(sql).expect("tokens").iter().map(SqlStatement::returns_rows).collect();
        assert_eq!(rows, [true, true, true, false, false, false, false, true, false]);
    }
}

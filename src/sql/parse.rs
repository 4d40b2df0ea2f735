//! Parsing, with the limits that keep the parser and everything after it within the stack.

use crate::error::{Error, Location, Result};
use sqlparser::ast::Statement;
use sqlparser::dialect::DuckDbDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// How deeply parentheses, calls, subqueries and prefix operators may nest.
pub(super) const MAX_NESTING: usize = 128;

/// How many operators may follow each other at one level. The parser turns a chain into a tree as deep as the chain is
/// long, and dropping such a tree recurses. DuckDB's limit on expression depth is the same.
pub(super) const MAX_CHAIN: usize = 1000;

/// The statements of `sql`.
pub(super) fn parse(sql: &str) -> Result<Vec<Statement>> {
    let tokens = tokenize(sql)?;
    check_shape(&tokens)?;
    Parser::new(&DuckDbDialect)
        .with_recursion_limit(MAX_NESTING * 2)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|e| match e {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                let (message, location) = split_location(&message);
                Error::parse(message, location.or_else(|| end_of(sql)))
            }
            ParserError::RecursionLimitExceeded => too_deep(None),
        })
}

pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(&DuckDbDialect, sql).tokenize_with_location().map_err(|e| {
        let location = Location { line: e.location.line, column: e.location.column };
        Error::parse(e.message, Some(location))
    })
}

fn too_deep(location: Option<Location>) -> Error {
    Error::parse(
        format!("expressions nest more than {MAX_NESTING} levels deep; simplify the query"),
        location,
    )
}

/// What is known of the tree of one open level (parentheses, brackets, braces).
#[derive(Default)]
struct Level {
    /// Operators since the last comma.
    operators: usize,
    /// Height of the highest level closed since then.
    inner: usize,
    /// Height of the highest part before that comma.
    before: usize,
}

impl Level {
    fn height(&self) -> usize {
        self.before.max(self.operators + self.inner)
    }
}

/// Refuses nesting and chains beyond the limits before a tree is built of them.
fn check_shape(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut outer: Vec<Level> = vec![];
    let mut level = Level::default();
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                outer.push(std::mem::take(&mut level));
                if outer.len() > MAX_NESTING {
                    return Err(too_deep(super::location(token.span)));
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let inner = level.height() + 1;
                // Unbalanced texts are the parser's to report.
                level = outer.pop().unwrap_or_default();
                level.inner = level.inner.max(inner);
            }
            Token::Comma | Token::SemiColon => {
                level = Level { before: level.height(), ..Level::default() };
            }
            operator if is_operator(operator) => level.operators += 1,
            _ => {}
        }
        if level.height() > MAX_CHAIN {
            let message =
                format!("more than {MAX_CHAIN} operators in a row; use an IN list, or simplify the query");
            return Err(Error::parse(message, super::location(token.span)));
        }
    }
    Ok(())
}

/// Whether a token may extend a chain: anything that is neither a word that only names something nor a literal.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::COLLATE
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::CASE
                | Keyword::SELECT
                | Keyword::EXPLAIN
        ),
        Token::EOF
        | Token::Whitespace(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::Period => false,
        _ => true,
    }
}

/// The parser writes places into its messages, as "… at Line: 1, Column: 8".
fn split_location(message: &str) -> (&str, Option<Location>) {
    let parse = || {
        let (text, place) = message.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((text, Location { line: line.parse().ok()?, column: column.trim().parse().ok()? }))
    };
    match parse() {
        Some((text, location)) => (text, Some(location)),
        None => (message, None),
    }
}

/// The place after the last character that is not white space: where a text that stops too early stops.
fn end_of(sql: &str) -> Option<Location> {
    let text = sql.trim_end();
    let last = text.lines().last()?;
    Some(Location { line: text.lines().count() as u64, column: last.chars().count() as u64 + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_errors_say_where() {
        let error = parse("select a\nfrom t wher b").expect_err("a misspelt keyword").with_excerpt("");
        assert_eq!(error.location(), Some(Location { line: 2, column: 13 }), "{error}");
        let error = parse("select 'abc").expect_err("an open string");
        assert_eq!(error.location(), Some(Location { line: 1, column: 8 }), "{error}");
        let error = parse("select a,\nb from").expect_err("no table");
        assert_eq!(error.location(), Some(Location { line: 2, column: 7 }), "{error}");
    }

    #[test]
    fn deep_and_long_expressions_are_refused() {
        for sql in [
            format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("select 1{}", " + 1".repeat(100_000)),
            format!("select {}1", "not ".repeat(100_000)),
            format!("select {}1", "- ".repeat(100_000)),
            format!("select 1{}", "::int".repeat(100_000)),
            format!("select {} 1 {}", "case when true then".repeat(5_000), "end".repeat(5_000)),
        ] {
            let error = parse(&sql).map(|_| ()).expect_err("too deep");
            assert!(matches!(error, Error::Parse(_)), "{error}");
        }
        parse(&format!("select {}1{}", "(".repeat(50), ")".repeat(50))).expect("a reasonable depth");
        parse(&format!("select 1{}", " or 1".repeat(900))).expect("a reasonable length");
    }
}

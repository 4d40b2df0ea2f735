//! The one error type of the engine, its kinds named by who must act.
//!
//! Owns: [`Error`], [`Result`], source locations in SQL text and origins in files.
//!
//! Invariants:
//! 1. Every error a query can end with is one of these kinds; a panic is converted to [`Error::Internal`].
//! 2. An error is cheap to move (one pointer) and to clone, because the first error of a query is reported to
//!    everyone who waits on it.
//!
//! Must not know: any other room.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A position in a SQL text, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// The place in a data file an error speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Row group within the file, from 0.
    pub row_group: Option<usize>,
    /// Dotted path of the column.
    pub column: Option<String>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file '{}'", self.file.display())?;
        if let Some(row_group) = self.row_group {
            write!(f, ", row group {row_group}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column '{column}'")?;
        }
        Ok(())
    }
}

/// One holder of memory named in a memory error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// What holds the memory, such as an operator's name.
    pub name: String,
    /// Bytes it holds.
    pub used_bytes: usize,
}

/// What a query can fail with. Each kind names who must act.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The SQL text is not well-formed; its author must change it. The message ends with the line and a caret.
    #[error("parse error: {0}")]
    Parse(Box<Located>),
    /// The SQL text is well-formed but means nothing here: unknown names, types that do not fit.
    #[error("{0}")]
    Plan(Box<Located>),
    /// The query is valid SQL this engine does not run yet.
    #[error("not supported: {0}")]
    Unsupported(Box<Located>),
    /// The data is damaged, or a value does not fit its type (overflow, failed cast).
    #[error("{0}")]
    Data(Box<DataError>),
    /// The query cannot run in the memory it is given.
    #[error("{0}")]
    Memory(Box<MemoryError>),
    /// The spill directory's quota is used up.
    #[error(
        "spilling needs {required_bytes} more bytes, but {used_bytes} of the {limit_bytes} bytes allowed in the \
         temporary directory are in use; raise max_temp_directory_size or memory_limit"
    )]
    SpillQuota {
        /// Bytes the refused write needed.
        required_bytes: u64,
        /// Bytes in use at that moment.
        used_bytes: u64,
        /// The quota.
        limit_bytes: u64,
    },
    /// The query was cancelled.
    #[error("the query was cancelled")]
    Cancelled,
    /// The query ran past its time budget.
    #[error("the query ran past its timeout of {} ms", limit.as_millis())]
    Timeout {
        /// The time budget it was given.
        limit: std::time::Duration,
    },
    /// The operating system refused an operation on a file.
    #[error("{operation} '{}': {source}", path.display())]
    Io {
        /// What was attempted, such as "cannot read".
        operation: &'static str,
        /// The file or directory.
        path: Arc<PathBuf>,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// A defect of the engine: a broken invariant or a panic. Please report it.
    #[error("internal error: {0}")]
    Internal(Box<str>),
}

/// A message with the place in the SQL text it speaks of.
#[derive(Clone, Debug)]
pub struct Located {
    /// What is wrong and what to do.
    pub message: String,
    /// Where, if the error belongs to one place.
    pub location: Option<Location>,
    /// The SQL line at `location` with a caret line below it, once rendered against the text.
    pub excerpt: Option<String>,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(Location { line, column }) = self.location {
            write!(f, " (line {line}, column {column})")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

/// Damaged data or a value that does not fit.
#[derive(Clone, Debug)]
pub struct DataError {
    /// What is wrong.
    pub message: String,
    /// Where it was read from; `None` for computed values.
    pub origin: Option<Origin>,
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Why memory could not be had.
#[derive(Clone, Debug)]
pub enum MemoryError {
    /// Even with everything spilled the operator needs more than the whole budget.
    BudgetTooSmall {
        /// Bytes of budget with which it would run.
        required_bytes: usize,
        /// The budget it has.
        limit_bytes: usize,
        /// The operator that needs them.
        operator: String,
    },
    /// An operator that cannot spill ran out of budget.
    Exceeded {
        /// Bytes asked for in vain.
        required_bytes: usize,
        /// The budget.
        limit_bytes: usize,
        /// The operator that asked.
        operator: String,
        /// The largest holders at that moment, largest first.
        top_consumers: Vec<Consumer>,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetTooSmall { required_bytes, limit_bytes, operator } => write!(
                f,
                "memory budget too small: {operator} needs a memory_limit of at least {required_bytes} bytes, but \
                 it is {limit_bytes}; raise memory_limit or lower threads"
            ),
            Self::Exceeded { required_bytes, limit_bytes, operator, top_consumers } => {
                write!(
                    f,
                    "out of memory: {operator} asked for {required_bytes} more bytes of a memory_limit of \
                     {limit_bytes}; largest holders: "
                )?;
                for (i, c) in top_consumers.iter().enumerate() {
                    write!(f, "{}{} {} bytes", if i > 0 { ", " } else { "" }, c.name, c.used_bytes)?;
                }
                Ok(())
            }
        }
    }
}

impl Error {
    /// A [`Error::Parse`] at a place in the SQL text.
    pub fn parse(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::Parse(Located::boxed(message, location))
    }

    /// A [`Error::Plan`] at a place in the SQL text.
    pub fn plan(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::Plan(Located::boxed(message, location))
    }

    /// A [`Error::Unsupported`] at a place in the SQL text.
    pub fn unsupported(message: impl Into<String>, location: Option<Location>) -> Self {
        Self::Unsupported(Located::boxed(message, location))
    }

    /// A [`Error::Data`] about a computed value (overflow, failed cast).
    pub fn value(message: impl Into<String>) -> Self {
        Self::Data(Box::new(DataError { message: message.into(), origin: None }))
    }

    /// A [`Error::Data`] about a place in a file.
    pub fn data(message: impl Into<String>, origin: Origin) -> Self {
        Self::Data(Box::new(DataError { message: message.into(), origin: Some(origin) }))
    }

    /// A [`Error::Memory`].
    pub fn memory(error: MemoryError) -> Self {
        Self::Memory(Box::new(error))
    }

    /// A [`MemoryError::BudgetTooSmall`]: `operator` misses `missing_bytes` of a budget that is all it can have.
    pub(crate) fn too_small(missing_bytes: usize, limit_bytes: usize, operator: String) -> Self {
        let required_bytes = limit_bytes.saturating_add(missing_bytes);
        Self::memory(MemoryError::BudgetTooSmall { required_bytes, limit_bytes, operator })
    }

    /// The same after which nothing can be tried again: a refusal becomes a budget of `limit_bytes` that is too small for
    /// `operator`.
    pub(crate) fn made_final(self, limit_bytes: usize, operator: &str) -> Self {
        match &self {
            Self::Memory(memory) => match **memory {
                MemoryError::Exceeded { required_bytes, .. } => {
                    Self::too_small(required_bytes, limit_bytes, operator.to_owned())
                }
                MemoryError::BudgetTooSmall { .. } => self,
            },
            _ => self,
        }
    }

    /// Whether memory was refused that others may give back, so that the same call may be made again.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Memory(memory) if matches!(**memory, MemoryError::Exceeded { .. }))
    }

    /// The bytes that were refused; 0 of any other error.
    pub(crate) fn refused_bytes(&self) -> usize {
        match self {
            Self::Memory(memory) => match **memory {
                MemoryError::Exceeded { required_bytes, .. } => required_bytes,
                MemoryError::BudgetTooSmall { .. } => 0,
            },
            _ => 0,
        }
    }

    /// A [`Error::Io`]; `operation` reads like "cannot open".
    pub fn io(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { operation, path: Arc::new(path.into()), source: Arc::new(source) }
    }

    /// A [`Error::Internal`]: a broken invariant, named.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal(message.into().into_boxed_str())
    }

    /// The place in the SQL text this error speaks of.
    pub fn location(&self) -> Option<Location> {
        match self {
            Self::Parse(l) | Self::Plan(l) | Self::Unsupported(l) => l.location,
            Self::Data(_)
            | Self::Memory(_)
            | Self::SpillQuota { .. }
            | Self::Cancelled
            | Self::Timeout { .. }
            | Self::Io { .. }
            | Self::Internal(_) => None,
        }
    }

    /// The same error with its place in another text, and without an excerpt. Other errors pass unchanged.
    pub(crate) fn moved(mut self, to: impl FnOnce(Location) -> Location) -> Self {
        if let Self::Parse(l) | Self::Plan(l) | Self::Unsupported(l) = &mut self {
            l.location = l.location.map(to);
            l.excerpt = None;
        }
        self
    }

    /// Adds the line of `sql` the error points at, with a caret below the column. Other errors pass unchanged.
    #[must_use]
    pub fn with_excerpt(mut self, sql: &str) -> Self {
        if let Self::Parse(l) | Self::Plan(l) | Self::Unsupported(l) = &mut self
            && let Some(Location { line, column }) = l.location
            && l.excerpt.is_none()
            && let Some(text) = sql.lines().nth(line.saturating_sub(1) as usize)
        {
            let indent: String = text
                .chars()
                .take(column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            l.excerpt = Some(format!("  {text}\n  {indent}^"));
        }
        self
    }
}

impl Located {
    fn boxed(message: impl Into<String>, location: Option<Location>) -> Box<Self> {
        Box::new(Self { message: message.into(), location, excerpt: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_points_at_the_column() {
        let e =
            Error::plan("no column 'x'", Some(Location { line: 2, column: 3 })).with_excerpt("select\n  x\n");
        assert_eq!(e.to_string(), "no column 'x' (line 2, column 3)\n    x\n    ^");
    }

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<Error>() <= 40);
    }
}

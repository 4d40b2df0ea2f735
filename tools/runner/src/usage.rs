//! What is wrong with the command line itself, beyond what its parser sees.
//!
//! Owns: [`UsageError`], by which `main` tells such errors from those of queries. Must not know: any command.

use std::fmt;

/// Arguments that cannot be followed, or not together. The message says what would do.
#[derive(Debug)]
pub struct UsageError(String);

impl UsageError {
    /// With a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

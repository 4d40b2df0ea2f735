//! Standard output for what is no result: headings, figures, summaries.
//!
//! Owns: [`outln!`], the only way there (results have `output`). `println!` panics when the reader has gone away;
//! this is an error that ends the command, and that `main` knows. Must not know: what is printed.

use std::fmt;
use std::io::{self, Write};

/// Like `println!`, with a result.
macro_rules! outln {
    ($($text:tt)*) => { $crate::print::line(format_args!($($text)*)) };
}
pub(crate) use outln;

/// Prints a line.
pub fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.write_all(b"\n")
}

//! What the tests of SQL behaviour share: tables on disk, the matrix of settings, and rows as text.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod matrix;
pub mod rows;
pub mod tables;

//! Plan texts after unnesting.

//! Dockerfiles: bytes to a syntax tree with spans, and diagnostics.
//!
//! The parser does no I/O and never stops at the first mistake: it always returns a tree and all diagnostics, so that one run reports every
//! mistake of a file.

mod ast;

pub use ast::*;

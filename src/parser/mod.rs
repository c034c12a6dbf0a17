//! Dockerfiles: bytes to a syntax tree with spans, and diagnostics.
//!
//! ```text
//! file --lexer--> logical lines (with a map back to the file) --instruction--> statements --file--> stages
//! ```
//!
//! The parser does no I/O and never stops at the first mistake: it always returns a tree and all diagnostics, so that one run reports every
//! mistake of a file. A statement with a mistake is left out of the tree, and the diagnostic says why. Lines are lexed by hand, since heredocs and
//! continuations depend on the lines before; what stands on a line (flags, words, JSON, durations, …) is read by nom parsers.
//!
//! Words stay unexpanded: [`mod@expand`] is for the graph, which knows the variables.

mod ast;
mod copy;
mod directives;
mod file;
mod flags;
mod healthcheck;
mod heredoc;
mod instruction;
mod json;
mod keyword;
mod lexer;
mod lint;
mod pairs;
mod run;
mod run_mount;
mod scope;
mod shell;
mod words;
mod written;

pub mod chmod;
pub mod duration;
pub mod expand;
pub mod ports;
pub mod signals;

#[cfg(test)]
mod tests;

pub use ast::*;
pub use directives::is_built_in;
pub use expand::{ExpandError, Expanded, Mode, Variables, expand};
pub use file::{ParseOptions, Parsed, parse, parse_trigger, parse_with};
pub use lint::{Checks, lint};
pub use run::RunScript;
pub use written::{Written, WrittenFlag};

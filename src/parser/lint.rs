//! Build checks that need nothing but the syntax tree.
//!
//! Checks of variables, platforms and base images belong to the graph. `NoEmptyContinuation` is found by the parser itself, since the tree does not keep
//! blank lines.

use super::ast::Dockerfile;
use crate::diag::Diagnostic;

/// All warnings about the style of a file, in its order.
pub fn lint(_dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    Vec::new()
}

//! `parse`: a Dockerfile's syntax tree for tools.
//!
//! Nothing is built or expanded, and no store is opened. What tools see is a [`SyntaxTree`], whose shape is documented and kept; the parser's own tree may change.

mod tree;

use std::path::Path;

use crate::diag::{Diagnostic, SourceFile};
use crate::parser::{Checks, lint, parse};

use super::Error;
use super::build::{read_bounded, read_dockerfile};

pub use tree::{HeredocNode, InstructionNode, StageNode, SyntaxTree};

/// A Dockerfile's tree, and what is wrong with the file: mistakes, and what those build checks find that need nothing but the file.
#[derive(Debug)]
pub struct Syntax {
    /// The tree, with the diagnostics in it.
    pub tree: SyntaxTree,
    /// The same diagnostics, to be drawn.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the Dockerfile at `path`; `-` is standard input.
///
/// # Errors
/// The file cannot be read. Mistakes in it are no error here.
pub fn parse_dockerfile(path: &Path) -> Result<Syntax, Error> {
    let file = if path == Path::new("-") { read_stdin()? } else { read_dockerfile(path)? };
    Ok(parse_source(&file))
}

fn read_stdin() -> Result<SourceFile, Error> {
    let mut bytes = Vec::new();
    let failed = |source| Error::Dockerfile { path: "-".into(), source };
    read_bounded(std::io::stdin().lock(), &mut bytes).map_err(failed)?;
    Ok(SourceFile::from_bytes("-", bytes))
}

fn parse_source(file: &SourceFile) -> Syntax {
    let parsed = parse(file);
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(lint(&parsed.dockerfile));
    match Checks::new(&parsed.dockerfile, None) {
        Ok(checks) => diagnostics = checks.apply(diagnostics),
        Err(error) => diagnostics.push(error),
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start());
    Syntax { tree: SyntaxTree::new(&parsed.dockerfile, &diagnostics), diagnostics }
}

#[cfg(test)]
mod tests;

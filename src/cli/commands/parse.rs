//! `strake parse`: a Dockerfile's syntax tree, for tools (`docs/parse.md` has the fields) and for people.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::report;
use crate::engine::{Error, HeredocNode, InstructionNode, StageNode, SyntaxTree, parse_dockerfile};

// Flags of `strake parse`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ParseArgs {
    /// The Dockerfile, or `-` for standard input
    file: PathBuf,
    /// How to write the tree
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

/// `--format` of the commands that have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Text,
    /// For tools
    Json,
}

/// Runs `strake parse`. It fails where a build could not begin.
pub(in crate::cli) fn run(args: &ParseArgs) -> ExitCode {
    let syntax = match parse_dockerfile(&args.file) {
        Ok(syntax) => syntax,
        Err(error) => {
            // A build's failure would say how to name the file to a build.
            let error = match error {
                Error::Dockerfile { path, source } => Error::Io { action: "read the Dockerfile", path, source },
                error => error,
            };
            report::error(&error);
            return ExitCode::FAILURE;
        }
    };
    match args.format {
        OutputFormat::Json => report::output(|out| {
            serde_json::to_writer_pretty(&mut *out, &syntax.tree)?;
            out.write_all(b"\n")
        }),
        OutputFormat::Text => {
            report::output(|out| tree(out, &syntax.tree));
            report::diagnostics(&syntax.diagnostics);
        }
    }
    if syntax.tree.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tree(out: &mut dyn Write, tree: &SyntaxTree) -> io::Result<()> {
    let directives = &tree.directives;
    for (name, directive) in [("syntax", &directives.syntax), ("check", &directives.check)] {
        if let Some(directive) = directive {
            writeln!(out, "directive {name} {:?}, line {}", directive.value, directive.line)?;
        }
    }
    if directives.escape != '\\' {
        writeln!(out, "directive escape {:?}", directives.escape)?;
    }
    tree.global_args.iter().try_for_each(|node| instruction(out, 0, node))?;
    tree.stages.iter().try_for_each(|node| stage(out, node))
}

fn stage(out: &mut dyn Write, node: &StageNode) -> io::Result<()> {
    let name = node.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    writeln!(out, "stage {}{name} from {:?}, {}", node.index, node.base, lines(node.start_line, node.end_line))?;
    instruction(out, 1, &node.from)?;
    node.instructions.iter().try_for_each(|node| instruction(out, 1, node))
}

fn lines(start: usize, end: usize) -> String {
    if start == end { format!("line {start}") } else { format!("lines {start}-{end}") }
}

/// One line: where it stands, keyword, flags, arguments; what belongs to it is below.
fn instruction(out: &mut dyn Write, depth: usize, node: &InstructionNode) -> io::Result<()> {
    let range =
        if node.start_line == node.end_line { node.start_line.to_string() } else { format!("{}-{}", node.start_line, node.end_line) };
    write!(out, "{:indent$}{range:<6} {}", "", node.keyword, indent = depth * 2)?;
    for flag in &node.flags {
        write!(out, " --{}", flag.name)?;
        if let Some(value) = &flag.value {
            write!(out, "={value:?}")?;
        }
    }
    if let Some(form) = node.form {
        write!(out, " {form}")?;
    }
    for argument in &node.arguments {
        write!(out, " {argument:?}")?;
    }
    for pair in &node.pairs {
        match &pair.value {
            Some(value) => write!(out, " {:?}{}{value:?}", pair.key, if pair.legacy { ' ' } else { '=' })?,
            None => write!(out, " {:?}", pair.key)?,
        }
    }
    writeln!(out)?;
    node.heredocs.iter().try_for_each(|node| heredoc(out, depth, node))?;
    match node.trigger.as_ref().and_then(|trigger| trigger.instruction.as_ref()) {
        Some(inner) => instruction(out, depth + 1, inner),
        None => Ok(()),
    }
}

fn heredoc(out: &mut dyn Write, depth: usize, node: &HeredocNode) -> io::Result<()> {
    let descriptor = node.file_descriptor.map(|descriptor| descriptor.to_string()).unwrap_or_default();
    let operator = if node.strip_tabs { "<<-" } else { "<<" };
    let literal = if node.expand { "" } else { " literal" };
    writeln!(out, "{:indent$}heredoc {descriptor}{operator}{}{literal} {:?}", "", node.delimiter, node.body, indent = depth * 2 + 9)
}

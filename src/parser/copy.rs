//! `COPY` and `ADD`.
//!
//! A heredoc counts as a source. Words are split at blanks even inside of quotes: paths with blanks need the JSON form.

use std::ops::Range;

use super::ast::{Add, Copy, CopyPaths, Heredoc, Instruction, Word};
use super::flags::{Flags, Kind};
use super::instruction::{Arguments, list, literal};
use super::scope::Scope;

/// Reads the arguments of `COPY`.
pub(super) fn copy(scope: &mut Scope<'_>, arguments: Arguments<'_>) -> Option<Instruction> {
    let known = [
        ("from", Kind::Text),
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("parents", Kind::Bool),
        ("exclude", Kind::Many),
    ];
    let mut flags = Flags::check(scope, arguments.flags, &known);
    let paths = paths(scope, arguments.rest, arguments.heredocs, arguments.keyword)?;
    let from = flags.text("from");
    if let Some(from) = from.as_ref().filter(|from| from.text.contains('$')) {
        let diagnostic = crate::diag::Diagnostic::error(scope.file, from.span, "variables are not expanded in `--from`");
        scope.report(diagnostic.with_hint("begin a stage with `FROM $NAME AS stage`, and copy from that stage"));
        return None;
    }
    Some(Instruction::Copy(Copy {
        paths,
        from: from.map(literal),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.many("exclude"),
    }))
}

/// Reads the arguments of `ADD`.
pub(super) fn add(scope: &mut Scope<'_>, arguments: Arguments<'_>) -> Option<Instruction> {
    let known = [
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("exclude", Kind::Many),
        ("checksum", Kind::Text),
        ("keep-git-dir", Kind::Bool),
        ("unpack", Kind::Bool),
    ];
    let mut flags = Flags::check(scope, arguments.flags, &known);
    let paths = paths(scope, arguments.rest, arguments.heredocs, arguments.keyword)?;
    Some(Instruction::Add(Add {
        paths,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.many("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    }))
}

/// Sorts the words to sources, heredocs and the destination.
fn paths(scope: &mut Scope<'_>, rest: Range<usize>, heredocs: Vec<Heredoc>, blame: Range<usize>) -> Option<CopyPaths> {
    let keyword = scope.keyword;
    let mut words = list(scope, rest.clone())?;
    let blame = if rest.is_empty() { blame } else { rest };
    let Some(destination) = words.pop() else {
        return scope.fail(blame, format!("`{keyword}` needs a source and a destination"));
    };
    if heredocs.iter().any(|heredoc| holds(heredoc, &destination)) {
        return scope.fail(blame, "a heredoc cannot be the destination");
    }
    // Both are in the order of the line.
    let mut marks = heredocs.iter().peekable();
    let mut sources = Vec::with_capacity(words.len());
    for word in words {
        while marks.next_if(|heredoc| heredoc.span.end <= word.span.start).is_some() {}
        if !marks.peek().is_some_and(|heredoc| holds(heredoc, &word)) {
            sources.push(word);
        }
    }
    if sources.is_empty() && heredocs.is_empty() {
        let message = format!("`{keyword}` needs a source and a destination, but only one path is given");
        return scope.fail(blame, message);
    }
    Some(CopyPaths { sources, heredocs, destination })
}

fn holds(heredoc: &Heredoc, word: &Word) -> bool {
    heredoc.span.start <= word.span.start && word.span.end <= heredoc.span.end
}

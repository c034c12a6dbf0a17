//! `COPY` and `ADD`.
//!
//! A heredoc counts as a source. Words are split at blanks even inside of quotes: paths with blanks need the JSON form.

use std::collections::HashSet;
use std::ops::Range;

use crate::diag::{Diagnostic, Span, Spanned};

use super::ast::{Add, Copy, CopyPaths, Heredoc, Instruction, Text, Word};
use super::expand::{Mode, expand};
use super::flags::{self, Kind};
use super::heredoc::{self, Mark};
use super::instruction::{Arguments, list, literal};
use super::scope::Scope;
use super::words;

/// Reads the arguments of `COPY`.
pub(super) fn copy(scope: &mut Scope<'_>, arguments: Arguments) -> Option<Instruction> {
    let known = [
        ("from", Kind::Text),
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("parents", Kind::Bool),
        ("exclude", Kind::Many),
    ];
    flags::check(scope, arguments.flags, &known);
    let paths = paths(scope, arguments.rest, arguments.heredocs, arguments.keyword)?;
    let from = scope.flags.text("from");
    if let Some(from) = from.as_ref().filter(|from| !from.is_plain(scope.escape)) {
        let expanded = expand(&from.text, scope.escape, &|_: &str| None, Mode::Word);
        if !expanded.is_ok_and(|expanded| expanded.text == from.text) {
            let diagnostic = Diagnostic::error(scope.file, from.span, "variables are not expanded in `--from`");
            scope.report(diagnostic.with_hint("begin a stage with `FROM $NAME AS stage`, and copy from that stage"));
            return None;
        }
    }
    let flags = &mut *scope.flags;
    Some(Instruction::Copy(Box::new(Copy {
        paths,
        from: from.map(literal),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.many("exclude"),
    })))
}

/// Reads the arguments of `ADD`.
pub(super) fn add(scope: &mut Scope<'_>, arguments: Arguments) -> Option<Instruction> {
    let known = [
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("exclude", Kind::Many),
        ("checksum", Kind::Text),
        ("keep-git-dir", Kind::Bool),
        ("unpack", Kind::Bool),
    ];
    flags::check(scope, arguments.flags, &known);
    let paths = paths(scope, arguments.rest, arguments.heredocs, arguments.keyword)?;
    let flags = &mut *scope.flags;
    Some(Instruction::Add(Box::new(Add {
        paths,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.many("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })))
}

/// Sorts the words to sources, heredocs and the destination.
///
/// Each word is looked at by itself, also in the JSON form and inside of quotes: what reads as `<<NAME` is a heredoc's file. It is empty where the line
/// has no heredoc of that name.
fn paths(scope: &mut Scope<'_>, rest: Range<usize>, heredocs: Vec<Heredoc>, blame: Range<usize>) -> Option<CopyPaths> {
    let keyword = scope.keyword;
    let mut words = list(scope, rest.clone())?;
    let blame = if rest.is_empty() { blame } else { rest };
    let Some(destination) = words.pop() else {
        return scope.fail(blame, format!("`{keyword}` needs a source and a destination"));
    };
    if words.is_empty() {
        let message = match is_mark(&destination).is_some() {
            true => format!("`{keyword}` needs a destination behind the heredoc"),
            false => format!("`{keyword}` needs a source and a destination, but only one path is given"),
        };
        return scope.fail(blame, message);
    }
    if is_mark(&destination).is_some() {
        scope.report(Diagnostic::error(scope.file, destination.span, "a heredoc cannot be the destination"));
        return None;
    }
    if heredocs.is_empty() && !words.iter().any(|word| heredoc::may_hold_one(&word.text)) {
        return Some(CopyPaths { sources: words, heredocs, destination });
    }
    let mut bodies = heredocs.into_iter();
    let (mut sources, mut files): (Vec<Word>, Vec<Heredoc>) = (Vec::with_capacity(words.len()), Vec::new());
    let mut names: Option<HashSet<Text>> = None;
    for word in words {
        // Both are in the order of the line.
        while bodies.as_slice().first().is_some_and(|heredoc| heredoc.span.end() <= word.span.start()) {
            bodies.next();
        }
        let Some(mark) = is_mark(&word) else {
            if let Some(heredoc) =
                bodies.as_slice().first().filter(|heredoc| word.text.ends_with("<<") && heredoc.span.start() == word.span.start())
            {
                let message = format!("`{keyword}` takes no blank between `<<` and the name of the heredoc");
                let hint = format!("write `<<{}`", words::shown(&heredoc.delimiter));
                scope.report(Diagnostic::error(scope.file, heredoc.span, message).with_hint(hint));
                return None;
            }
            sources.push(word);
            continue;
        };
        if bodies.as_slice().first().is_some_and(|heredoc| heredoc.span == word.span) {
            files.extend(bodies.next());
            continue;
        }
        // It may be the file of a heredoc that the line does have.
        let names = names.get_or_insert_with(|| files.iter().chain(bodies.as_slice()).map(|heredoc| heredoc.delimiter.clone()).collect());
        if names.insert(mark.delimiter.clone()) {
            files.push(without_body(scope, mark, word));
        }
    }
    Some(CopyPaths { sources, heredocs: files, destination })
}

fn is_mark(word: &Word) -> Option<Mark> {
    if heredoc::may_hold_one(&word.text) { heredoc::mark(&word.text).ok().flatten() } else { None }
}

/// A heredoc that the shell lexer does not see: nothing follows the line for it.
fn without_body(scope: &mut Scope<'_>, mark: Mark, word: Word) -> Heredoc {
    let message = format!("`{}` makes an empty file here: no heredoc can follow", words::shown(&word.text));
    let diagnostic = Diagnostic::warning(scope.file, word.span, message);
    scope.report(diagnostic.with_hint("a heredoc stands outside of quotes, and not in the JSON form"));
    let nothing = Span::new(word.span.end(), word.span.end());
    Heredoc {
        delimiter: mark.delimiter,
        body: Spanned::new(String::new(), nothing),
        expand: mark.expand,
        strip_tabs: mark.strip_tabs,
        file_descriptor: mark.file_descriptor,
        span: word.span,
        indented: None,
    }
}

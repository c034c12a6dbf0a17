//! `--security-opt seccomp=FILE`: reads the profile, and says where it is wrong.

use std::path::{Path, PathBuf};

use crate::diag::{Diagnostic, SourceFile, Span};
use crate::runtime::{Privileges, Seccomp, SeccompHost, SeccompProfile, SeccompProfileError};

use super::super::Error;

/// The system call filter that a container is to have.
#[derive(Clone, Debug)]
pub enum SeccompRequest {
    /// The default profile; none for a container that may do everything.
    Default,
    /// None.
    Unconfined,
    /// A profile of the user's.
    Profile(Box<SeccompFile>),
}

/// A profile in a file.
#[derive(Clone, Debug)]
pub struct SeccompFile {
    path: PathBuf,
    text: String,
    profile: SeccompProfile,
}

impl SeccompRequest {
    /// Reads a profile.
    pub fn read(path: &Path) -> Result<SeccompRequest, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
        let profile = SeccompProfile::parse(&text).map_err(|source| refused(path, &text, source))?;
        Ok(SeccompRequest::Profile(Box::new(SeccompFile { path: path.to_owned(), text, profile })))
    }

    /// The filter for a container with these privileges.
    pub(super) fn filter(&self, privileges: Privileges) -> Result<Seccomp, Error> {
        let file = match self {
            SeccompRequest::Default => return Ok(Seccomp::Default),
            SeccompRequest::Unconfined => return Ok(Seccomp::Unconfined),
            SeccompRequest::Profile(file) => file,
        };
        let host = SeccompHost::of_this_machine(privileges.capabilities());
        let rules = file.profile.rules(&host).map_err(|source| refused(&file.path, &file.text, source))?;
        Ok(rules.map_or(Seccomp::Unconfined, |rules| Seccomp::Rules(Box::new(rules))))
    }

    /// How `inspect` shows it: a profile by its text, as it counts even where the file is changed later.
    pub(super) fn written(&self) -> Option<String> {
        match self {
            SeccompRequest::Default => None,
            SeccompRequest::Unconfined => Some("seccomp=unconfined".to_owned()),
            SeccompRequest::Profile(file) => Some(format!("seccomp={}", without_blanks(&file.text))),
        }
    }
}

fn refused(path: &Path, text: &str, source: SeccompProfileError) -> Error {
    let place = match &source {
        SeccompProfileError::Malformed { message, line: line @ 1.., column } => {
            let file = SourceFile::new(path.display().to_string(), text);
            let message = format!("the seccomp profile `{}` cannot be used: {message}", path.display());
            Some(Box::new(Diagnostic::error(&file, span(text, *line, *column), message)))
        }
        _ => None,
    };
    Error::SeccompProfile { path: path.to_owned(), place, source }
}

/// The word that ends at a place which the JSON parser names.
fn span(text: &str, line: usize, column: usize) -> Span {
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let end = text.floor_char_boundary((start + column).min(text.len()));
    let before = &text[start.min(end)..end];
    let length = match before.strip_suffix('"') {
        Some(inner) => inner.rfind('"').map_or(1, |quote| before.len() - quote),
        None => before.len() - before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "_-.".contains(c)).len(),
    };
    let last = before.chars().next_back().map_or(0, char::len_utf8);
    Span::new(end - length.max(last), end)
}

/// JSON without what is between its words.
fn without_blanks(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            let keep = inside || !c.is_ascii_whitespace();
            match c {
                '"' if !escaped => inside = !inside,
                _ => {}
            }
            escaped = inside && *c == '\\' && !escaped;
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_count_in_strings_only() {
        assert_eq!(without_blanks("{ \"a b\\\" c\\\\\" :\n [ 1 , \"x\" ] }"), "{\"a b\\\" c\\\\\":[1,\"x\"]}");
    }

    #[test]
    fn the_word_before_the_place_is_marked() {
        let text = "{\n  \"defaultAction\": \"SCMP\",\n  \"x\": 12345\n}";
        let marked = |line, column| &text[span(text, line, column).range()];
        assert_eq!(marked(2, 25), "\"SCMP\"");
        assert_eq!(marked(3, 12), "12345");
        assert_eq!(marked(4, 1), "}");
    }
}

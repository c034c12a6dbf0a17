//! What can go wrong with a build context.

use std::io;
use std::path::PathBuf;

use crate::path::RootPath;

/// Why a build context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context directory does not exist.
    #[error("build context `{}` does not exist", path.display())]
    NotFound {
        /// The directory as it was given.
        path: PathBuf,
    },
    /// The context is something else than a directory.
    #[error("build context `{}` is not a directory", path.display())]
    NotADirectory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The context directory cannot be opened.
    #[error("cannot open build context `{}`", path.display())]
    Open {
        /// The directory as it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An ignore file exists and cannot be read.
    #[error("cannot read ignore file `{}`", path.display())]
    ReadIgnoreFile {
        /// The ignore file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of an ignore file, or a pattern of `--exclude`, is malformed.
    #[error("{file}:{line}: bad pattern `{pattern}`: {reason}")]
    BadIgnorePattern {
        /// The file's name.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it.
        reason: BadPattern,
    },
    /// A wildcard is malformed.
    #[error("bad wildcard `{pattern}`: {reason}")]
    BadWildcard {
        /// The wildcard as written.
        pattern: String,
        /// What is wrong with it.
        reason: BadPattern,
    },
    /// A file of a tree cannot be examined or read.
    #[error("cannot read `{path}`")]
    Read {
        /// The path in the tree.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A selection names something that is not in the tree.
    #[error("`{path}` does not exist")]
    Missing {
        /// The path in the tree.
        path: RootPath,
    },
    /// Standard input cannot be read.
    #[error("cannot read the build context from standard input")]
    ReadStdin {
        /// Why.
        source: io::Error,
    },
    /// Standard input is empty.
    #[error("standard input is empty: expected a Dockerfile or a tar archive")]
    EmptyStdin,
    /// A Dockerfile on standard input has no end.
    #[error("the Dockerfile on standard input is larger than {limit} bytes")]
    DockerfileTooLarge {
        /// How large it may be.
        limit: u64,
    },
    /// A Dockerfile on standard input is not text.
    #[error("standard input is neither a tar archive nor UTF-8 text: byte {offset} is not valid")]
    NotText {
        /// Where the first bad byte is.
        offset: usize,
    },
    /// The archive is malformed or ends early.
    #[error("cannot read the archive of the build context after {entries} entries")]
    ReadArchive {
        /// How many entries were fine.
        entries: u64,
        /// Why.
        source: io::Error,
    },
    /// An entry of the archive cannot be created.
    #[error("cannot unpack `{path}` from the archive of the build context")]
    Unpack {
        /// The entry's cleaned name.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// An entry of the archive is of a kind that a context cannot have.
    #[error("the archive of the build context has `{path}` of the unsupported type `{kind}`")]
    UnsupportedEntry {
        /// The entry's cleaned name.
        path: RootPath,
        /// The type flag of its header.
        kind: char,
    },
    /// The directory to unpack into cannot be opened.
    #[error("cannot open `{}` to unpack the build context into", path.display())]
    OpenTarget {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to do about a file that was there when the directory was listed.
pub(crate) const VANISHED: &str =
    "it went away while the build read it: build again when nothing changes the files, or exclude it in `.dockerignore`";

impl Error {
    /// What the user could do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NotADirectory { path } => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
                Some(format!(
                    "the context is the directory that COPY reads from, such as `{}`; a Dockerfile is named with `--file`",
                    parent.display()
                ))
            }
            Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(VANISHED.to_owned()),
            Error::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("make it readable, or exclude it in `.dockerignore`".to_owned())
            }
            Error::BadIgnorePattern { reason: BadPattern::LoneNegation, .. } => {
                Some("`!` is followed by the pattern of what to keep".to_owned())
            }
            Error::BadIgnorePattern { reason: BadPattern::UnknownEscape(_), .. } => {
                Some("directories are separated by `/`; a backslash makes the character behind it literal".to_owned())
            }
            _ => None,
        }
    }
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// A `[` without its `]`.
    #[error("`[` is never closed")]
    OpenClass,
    /// A class has nothing in it, or a `-` or `]` where a character was expected.
    #[error("a character class needs characters; `-` and `]` in it need a `\\` before them")]
    BadClass,
    /// A range whose end comes before its start.
    #[error("a range in a character class is the wrong way round")]
    ReversedRange,
    /// A `\` with nothing after it.
    #[error("`\\` at the end escapes nothing")]
    TrailingEscape,
    /// A `\\` before a letter or digit that has no meaning there.
    #[error("`\\{0}` has no meaning in ignore files")]
    UnknownEscape(char),
    /// A `[:name:]` that there is not.
    #[error("there is no such named class: expected one such as `[:alpha:]`")]
    UnknownClass,
    /// A `{2}` beside wildcards that repeats nothing, too much, or a repetition.
    #[error("`{{…}}` beside wildcards repeats the character before it, up to 1000 times; write `\\{{` for a brace")]
    BadRepeat,
    /// A `!` with nothing after it.
    #[error("`!` negates nothing")]
    LoneNegation,
}

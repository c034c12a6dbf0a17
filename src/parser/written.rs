//! An instruction's flags and words as they were written, for tools that show them.
//!
//! The tree holds what an instruction means; neither the order of its flags nor whether its paths were a JSON array matters to a build. Who asks reads them from
//! the kept text once more, so that parsing pays nothing for them.

use std::borrow::Cow;

use super::ast::Statement;
use super::flags::{self, FlagFinder};
use super::json::{self, Json};
use super::words;
use crate::diag::SourceFile;

/// A flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFlag {
    /// The name, without `--`.
    pub name: String,
    /// What stands behind `=`, without quotes and escapes; `None` where there is no `=`.
    pub value: Option<String>,
}

/// What stands behind the keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The flags, in order.
    pub flags: Vec<WrittenFlag>,
    /// The words behind the flags: elements of a JSON array of strings, or what blanks separate.
    pub words: Vec<String>,
    /// Whether the words are a JSON array.
    pub json: bool,
}

impl Statement {
    /// Reads the flags and words of the instruction's line again. `file` is the one that it was read from.
    pub fn written(&self, file: &SourceFile) -> Written {
        let line = self.original(file).split('\n').next().unwrap_or_default();
        let keyword = self.keyword.value.len().min(line.len());
        let mut finder = FlagFinder::new(line, keyword..line.len());
        let flags = finder
            .by_ref()
            .map(|range| flags::read(line, range))
            .map(|flag| WrittenFlag { name: flag.name.into_owned(), value: flag.value.map(Cow::into_owned) })
            .collect();
        let rest = words::trim(line, finder.at..line.len());
        match json::parse(line, rest.clone(), |item, _| item.into_owned()) {
            Json::Strings(words) => Written { flags, words, json: true },
            _ => {
                let words = words::at_blanks(line, rest).map(|range| line[range].to_owned()).collect();
                Written { flags, words, json: false }
            }
        }
    }
}

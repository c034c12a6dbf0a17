//! Runs the vectors of `testdata/expand` and `testdata/values`, one a line; the README in `testdata/expand` describes the lines.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::parser::tests::mounts;
use crate::parser::*;

/// What a vector says about its word.
enum Claim {
    /// `=>`
    Gives,
    /// `=!`
    Fails,
    /// `=?`
    Misses,
    /// `=~`
    Uses,
}

const CLAIMS: [(&str, Claim); 4] = [(" => ", Claim::Gives), (" =! ", Claim::Fails), (" =? ", Claim::Misses), (" =~ ", Claim::Uses)];

/// The word, the claim and the expectation of a line.
fn vector(line: &str) -> Option<(String, &'static Claim, String)> {
    let found = CLAIMS.iter().filter_map(|(mark, claim)| Some((line.find(mark)?, mark, claim)));
    let (at, mark, claim) = found.min_by_key(|(at, ..)| *at)?;
    Some((plain(&line[..at]), claim, plain(&line[at + mark.len()..])))
}

/// Text without its marks.
fn plain(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix('«').and_then(|text| text.strip_suffix('»')).unwrap_or(text);
    text.replace('␤', "\n").replace('⇥', "\t")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut files: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

/// Runs all lines of a folder that `setting` does not take; `actual` gives what is true of a word.
fn run(folder: &str, least: usize, mut actual: impl FnMut(&mut Setting, &str, &Claim) -> String) {
    let (mut failures, mut count) = (String::new(), 0);
    for path in files(folder) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut setting = Setting { file: name.clone(), escape: '\\', mode: Mode::Word, variables: HashMap::new() };
        for (index, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            if line.is_empty() || line.starts_with("# ") || setting.take(line) {
                continue;
            }
            let (word, claim, expected) = vector(line).unwrap_or_else(|| panic!("{name}:{}: no vector: {line}", index + 1));
            count += 1;
            let actual = actual(&mut setting, &word, claim);
            if actual != expected {
                writeln!(failures, "{name}:{}: {line}\n  expected {expected:?}\n  actual   {actual:?}", index + 1).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= least, "only {count} vectors");
}

/// What the lines above a vector have set.
struct Setting {
    file: String,
    escape: char,
    mode: Mode,
    variables: HashMap<String, String>,
}

impl Setting {
    /// Whether the line sets something.
    fn take(&mut self, line: &str) -> bool {
        let Some((what, rest)) = line.split_once(' ').filter(|_| vector(line).is_none()) else { return false };
        match what {
            "let" => {
                let (name, value) = rest.split_once(" = ").unwrap();
                self.variables.insert(name.to_owned(), plain(value));
            }
            "unset" => drop(self.variables.remove(rest)),
            "escape" => self.escape = rest.chars().next().unwrap(),
            "mode" => {
                self.mode = [("word", Mode::Word), ("heredoc", Mode::Heredoc), ("split", Mode::Split)]
                    .into_iter()
                    .find(|(name, _)| *name == rest)
                    .unwrap()
                    .1
            }
            _ => return false,
        }
        true
    }
}

#[test]
fn words_expand_as_the_vectors_say() {
    run("expand", 700, |setting, word, claim| {
        let variables = |name: &str| setting.variables.get(name).cloned();
        match (expand(word, setting.escape, &variables, setting.mode), claim) {
            (Err(error), Claim::Gives | Claim::Misses | Claim::Uses) => format!("a mistake: {error}"),
            (Err(error), Claim::Fails) => format!("{} @ {}", error.message, &word[error.range]),
            (Ok(expanded), Claim::Fails) => format!("no mistake: {}", expanded.text),
            (Ok(expanded), Claim::Misses) => expanded.undefined.join(" "),
            (Ok(expanded), Claim::Uses) => expanded.used.join(" "),
            (Ok(expanded), _) if setting.mode == Mode::Split => {
                expanded.words.iter().map(|word| format!("[{word}]")).collect::<Vec<_>>().join(" ")
            }
            (Ok(expanded), _) => expanded.text,
        }
    });
}

#[test]
fn values_are_read_as_the_vectors_say() {
    run("values", 300, |setting, word, claim| {
        let outcome = match setting.file.as_str() {
            "ports" => ports::parse_exposed(word).map(|ports| match ports.as_slice() {
                [first, .., last] if ports.len() > 5 => format!("{first} to {last}"),
                _ => ports.join(" "),
            }),
            "signals" => match (signals::is_valid(word), signals::number(word)) {
                (false, _) => Err("no signal".to_owned()),
                (true, number) => Ok(number.map_or_else(|| "unknown to Linux".to_owned(), |number| number.to_string())),
            },
            "durations" => duration::parse(word).map(|nanoseconds| nanoseconds.to_string()),
            "chmod" => {
                // `MODE on OLD`, where an old mode of a directory begins with `d`.
                let (mode, old) = word.split_once(" on ").unwrap_or((word, "0"));
                let (old, is_dir) = old.strip_prefix('d').map_or((old, false), |old| (old, true));
                chmod::Mode::parse(mode).map(|mode| format!("{:o}", mode.apply(u32::from_str_radix(old, 8).unwrap(), is_dir)))
            }
            "mounts" => mounts::describe(word, &|name: &str| setting.variables.get(name).cloned()),
            other => panic!("nothing reads {other}"),
        };
        match (outcome, claim) {
            (Ok(text), Claim::Fails) => format!("no mistake: {text}"),
            (Err(message), Claim::Gives) => format!("a mistake: {message}"),
            (Ok(text) | Err(text), _) => text,
        }
    });
}

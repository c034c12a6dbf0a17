//! The map of `ARCHITECTURE.md`, enforced: which folder may import which, who prints and reads the environment, and where unsafe code is.
//!
//! It reads the sources as text: every `crate::folder` path counts, in code and in `use`, wherever it stands. Comments and documentation do not.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

/// Folders that everybody may use.
const GROUND: [&str; 6] = ["oci", "diag", "path", "progress", "task", "sys"];

/// What each folder may import beyond [`GROUND`]. The folders of the ground have their own, whole lists.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Beyond `engine`: what its requests and errors are made of, and the processes that must start before there is any thread.
    ("cli", &["engine", "executor", "graph", "parser", "registry", "runtime"]),
    ("engine", &["executor", "cache", "graph", "image", "server", "parser", "context", "store", "registry", "runtime"]),
    ("executor", &["cache", "graph", "image", "context", "store", "runtime"]),
    ("cache", &["graph", "image", "context", "store"]),
    ("graph", &["parser"]),
    ("image", &["store", "registry"]),
    ("server", &["registry"]),
    ("parser", &[]),
    ("context", &[]),
    ("store", &[]),
    ("registry", &[]),
    ("runtime", &[]),
];

/// The ground itself.
const GROUND_MAY_IMPORT: &[(&str, &[&str])] =
    &[("oci", &["diag", "path"]), ("diag", &[]), ("path", &[]), ("progress", &["oci", "diag"]), ("task", &["diag"]), ("sys", &["path"])];

/// A file of the sources, without its comments and its tests.
struct Source {
    path: PathBuf,
    folder: String,
    /// The lines with their numbers.
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for folder in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut dirs = vec![folder];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    dirs.push(entry);
                } else if entry.extension().is_some_and(|extension| extension == "rs") {
                    let path = entry.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned();
                    sources.push(Source { lines: code(&std::fs::read_to_string(&entry).unwrap()), path, folder: name.clone() });
                }
            }
        }
    }
    assert!(sources.len() > 50, "the sources are not where this test looks");
    sources
}

/// The lines of code: no comments, and nothing after `mod tests`.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("mod tests {"));
    let without_comment = |line: &str| line.split("//").next().unwrap_or("").to_owned();
    lines.map(|(at, line)| (at + 1, without_comment(line))).filter(|(_, line)| !line.trim().is_empty()).collect()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    path.components().any(|part| part.as_os_str() == "tests") || name.ends_with("tests") || ["testing", "fixture"].contains(&name)
}

/// The folders that a line names by `crate::…`, also in `crate::{a, b::c}`.
fn named(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group.split([',', '{', '}']).map(|part| word(part.trim())).filter(|part| !part.is_empty())),
            None => found.push(word(rest)),
        }
    }
    found
}

#[test]
fn folders_import_only_what_the_map_allows() {
    let sources = sources();
    let folders: Vec<&str> = MAY_IMPORT.iter().chain(GROUND_MAY_IMPORT).map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let from = source.folder.as_str();
        assert!(folders.contains(&from), "src/{from} is not in the map: add it to ARCHITECTURE.md and to this test");
        let ground = GROUND_MAY_IMPORT.iter().find(|(name, _)| *name == from).map(|(_, may)| *may);
        let may = MAY_IMPORT.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, may)| *may);
        for (number, line) in &source.lines {
            for to in named(line).iter().map(String::as_str).filter(|to| folders.contains(to) && *to != from) {
                let allowed = match ground {
                    Some(ground) => ground.contains(&to),
                    None => GROUND.contains(&to) || may.contains(&to),
                };
                if !allowed {
                    wrong.push(format!("{}:{number}: {from} imports {to}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} edges that the map does not allow:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether `line` has `word`, and not as the end of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// Lines outside `folder` that contain one of `words`.
fn outside(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.folder != folder && !is_test(&source.path)) {
        for (number, line) in &source.lines {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                found.push(format!("{}:{number}: `{word}`", source.path.display()));
            }
        }
    }
    found
}

#[test]
fn only_the_command_line_prints() {
    // A supervisor's standard output is its pipe to the command that started it; an archive to `-` is a result that no memory could hold.
    const STREAMS: [&str; 2] = ["src/runtime/container/supervisor.rs:", "src/image/export.rs:"];
    let mut found = outside("cli", &["println!", "eprintln!", "print!(", "eprint!(", "io::stdout()", "io::stderr()"]);
    found.retain(|line| !(line.ends_with("`io::stdout()`") && STREAMS.iter().any(|file| line.starts_with(file))));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn only_the_command_line_reads_the_environment() {
    let found = outside("cli", &["env::var", "env::args", "env::home_dir", "env::vars"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let found = outside("sys", &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)", "expect(unsafe_code"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.path)) {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&source.path)).unwrap();
        if !text.starts_with("//!") {
            found.push(format!("{}:1: no documentation of the file", source.path.display()));
        }
        if text.lines().count() > 900 {
            found.push(format!("{}: more than 900 lines", source.path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

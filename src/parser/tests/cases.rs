//! Runs the cases of `testdata/parser`.
//!
//! A folder is one case: a `Dockerfile`, and what the parser makes of it. A file `TOPIC.cases` holds many small ones:
//!
//! ```text
//! === what the case shows
//! FROM scratch
//! --- tree
//! 1: FROM "scratch"
//! --- diagnostics
//! ```
//!
//! What an editor would hide or spoil is written as a word in angle quotes ([`MARKS`]). `STRAKE_ACCEPT=1` rewrites the expectations; read the difference
//! before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use super::dump;
use crate::diag::SourceFile;
use crate::parser::{lint, parse};

/// Characters that are written as words in `*.cases`; `‹xff›` is a byte that is not UTF-8, and `‹eof›` the end of the file, without a line break.
const MARKS: [(&str, &[u8]); 10] = [
    ("‹cr›", b"\r"),
    ("‹tab›", b"\t"),
    ("‹vt›", b"\x0b"),
    ("‹ff›", b"\x0c"),
    ("‹blank›", b" "),
    ("‹nbsp›", "\u{a0}".as_bytes()),
    ("‹em›", "\u{2003}".as_bytes()),
    ("‹bom›", "\u{feff}".as_bytes()),
    ("‹nul›", b"\0"),
    ("‹xff›", b"\xff"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parser")
}

fn is_accepting() -> bool {
    std::env::var_os("STRAKE_ACCEPT").is_some()
}

/// The tree and the diagnostics of a Dockerfile.
fn read(bytes: Vec<u8>) -> (String, String) {
    let parsed = parse(&SourceFile::from_bytes("Dockerfile", bytes));
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(lint(&parsed.dockerfile));
    (dump::tree(&parsed.dockerfile), dump::diagnostics(&diagnostics))
}

#[test]
fn every_folder_gives_the_expected_tree_and_diagnostics() {
    let mut folders: Vec<_> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 80, "only {} cases", folders.len());
    let mut failures = String::new();
    for folder in folders {
        let (tree, diagnostics) = read(fs::read(folder.join("Dockerfile")).unwrap());
        for (file, actual) in [("ast.txt", tree), ("diagnostics.txt", diagnostics)] {
            let path = folder.join(file);
            if is_accepting() {
                fs::write(&path, &actual).unwrap();
                continue;
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if expected != actual {
                let name = folder.file_name().unwrap().to_string_lossy();
                failures.push_str(&format!("--- {name}/{file}, expected\n{expected}--- actual\n{actual}\n"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_small_case_gives_the_expected_tree_and_diagnostics() {
    let files = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "cases")).collect();
    files.sort();
    let (mut count, mut failures) = (0, String::new());
    for path in files {
        let written = fs::read_to_string(&path).unwrap();
        let (head, cases) = written.split_at(written.find("=== ").unwrap());
        let mut rewritten = head.to_owned();
        for case in cases.split("=== ").skip(1) {
            count += 1;
            let again = run(case);
            if again != case && !is_accepting() {
                failures.push_str(&format!("{}, expected\n=== {case}actual\n=== {again}", path.display()));
            }
            rewritten.push_str("=== ");
            rewritten.push_str(&again);
        }
        if is_accepting() && rewritten != written {
            fs::write(&path, rewritten).unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 170, "only {count} cases");
}

/// The case as it would be written with what the parser does.
fn run(case: &str) -> String {
    let (name, rest) = case.split_once('\n').unwrap();
    let dockerfile = rest.split("--- tree\n").next().unwrap();
    let (tree, diagnostics) = read(bytes(dockerfile));
    let diagnostics = if diagnostics.is_empty() { diagnostics } else { format!("--- diagnostics\n{diagnostics}") };
    format!("{name}\n{dockerfile}--- tree\n{tree}{diagnostics}\n")
}

fn bytes(written: &str) -> Vec<u8> {
    let written = written.split("‹eof›").next().unwrap();
    let (mut bytes, mut rest) = (Vec::new(), written);
    while let Some(at) = rest.find('‹') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (mark, meaning) = MARKS.iter().find(|(mark, _)| rest[at..].starts_with(mark)).unwrap();
        bytes.extend_from_slice(meaning);
        rest = &rest[at + mark.len()..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

//! Runs the files of `testdata/parser`: each folder has a `Dockerfile`, and what the parser makes of it.
//!
//! `STRAKE_ACCEPT=1` rewrites the expectations; read the difference before you commit it.

use std::fs;
use std::path::Path;

use super::dump;
use crate::diag::SourceFile;
use crate::parser::{lint, parse};

#[test]
fn every_case_gives_the_expected_tree_and_diagnostics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parser");
    let mut folders: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 60, "only {} cases", folders.len());
    let accept = std::env::var_os("STRAKE_ACCEPT").is_some();
    let mut failures = String::new();
    for folder in folders {
        let text = fs::read_to_string(folder.join("Dockerfile")).unwrap();
        let parsed = parse(&SourceFile::new("Dockerfile", text));
        let mut diagnostics = parsed.diagnostics;
        diagnostics.extend(lint(&parsed.dockerfile));
        for (file, actual) in [("ast.txt", dump::tree(&parsed.dockerfile)), ("diagnostics.txt", dump::diagnostics(&diagnostics))] {
            let path = folder.join(file);
            if accept {
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

//! How long it takes to see that a build context did not change, and to hash one that did.
//!
//! Files are in the page cache. `unchanged` is what every build pays; `hashed` is the first build, `ignored` walks past a large directory that is excluded.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may stop anyhow")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use divan::Bencher;
use strake::context::{ChecksumMemo, ChecksumOptions, FileStamp, IgnoreRules, LocalContext, NoMemo, Owners, checksum};
use strake::path::RootPath;
use strake::sys::tree::{Kind, Tree};

fn main() {
    divan::main();
}

/// A directory of `files` files of 2 KiB, 100 in each directory.
fn directory(files: usize) -> &'static Path {
    static MADE: Mutex<Vec<(usize, &'static tempfile::TempDir)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap();
    if let Some((_, dir)) = made.iter().find(|(count, _)| *count == files) {
        return dir.path();
    }
    let dir: &'static tempfile::TempDir = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    for number in 0..files {
        let parent = dir.path().join(format!("package-{:03}/directory-{:02}", number / 1000, number / 100 % 10));
        if number % 100 == 0 {
            fs::create_dir_all(&parent).unwrap();
        }
        fs::write(parent.join(format!("source-file-{number}.rs")), number.to_string().repeat(400)).unwrap();
    }
    made.push((files, dir));
    dir.path()
}

/// What a warm cache knows.
struct Known(HashMap<FileStamp, [u8; 32]>);

impl ChecksumMemo for Known {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        stamps.iter().map(|stamp| self.0.get(stamp).copied()).collect()
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        assert!(digests.is_empty(), "everything is known");
    }
}

fn known(dir: &Path) -> Known {
    let context = LocalContext::open(dir, None).unwrap();
    let mut known = HashMap::new();
    let mut todo = vec![RootPath::root()];
    while let Some(path) = todo.pop() {
        for entry in context.read_dir(&path).unwrap() {
            let path = path.join(&entry.name);
            let found = context.metadata(&path).unwrap().unwrap();
            let stamp = FileStamp { dev: found.dev, ino: found.ino, size: found.size, mtime: found.mtime, ctime: found.ctime };
            known.insert(stamp, [1; 32]);
            if entry.kind == Kind::Directory {
                todo.push(path);
            }
        }
    }
    Known(known)
}

fn rules() -> IgnoreRules {
    let text = ".git\n**/node_modules\n**/*.log\n**/*.tmp\ntarget\n!target/keep\ndocs/**/*.md\n*.md\n";
    IgnoreRules::parse(text, ".dockerignore").unwrap()
}

fn run(dir: &Path, memo: &dyn ChecksumMemo) -> [u8; 32] {
    let context = LocalContext::with_rules(dir, rules(), Owners::Root).unwrap();
    checksum(&context, &RootPath::root(), &ChecksumOptions::default(), memo).unwrap().digest
}

#[divan::bench(args = [10_000, 100_000], sample_count = 10)]
fn unchanged(bencher: Bencher<'_, '_>, files: usize) {
    let dir = directory(files);
    static KNOWN: OnceLock<Mutex<HashMap<usize, &'static Known>>> = OnceLock::new();
    let memo = *KNOWN.get_or_init(Mutex::default).lock().unwrap().entry(files).or_insert_with(|| Box::leak(Box::new(known(dir))));
    bencher.bench(|| run(dir, memo));
}

#[divan::bench(args = [10_000, 100_000], sample_count = 3)]
fn hashed(bencher: Bencher<'_, '_>, files: usize) {
    let dir = directory(files);
    bencher.bench(|| run(dir, &NoMemo));
}

#[divan::bench(args = [10_000], sample_count = 10)]
fn stat_only(bencher: Bencher<'_, '_>, files: usize) {
    let dir = directory(files);
    bencher.bench(|| {
        let context = LocalContext::with_rules(dir, rules(), Owners::Root).unwrap();
        let mut todo = vec![RootPath::root()];
        while let Some(path) = todo.pop() {
            let entries = context.read_dir(&path).unwrap();
            todo.extend(entries.iter().filter(|entry| entry.kind == Kind::Directory).map(|entry| path.join(&entry.name)));
        }
    });
}

#[divan::bench(args = [100_000], sample_count = 10)]
fn ignored(bencher: Bencher<'_, '_>, files: usize) {
    let dir = directory(files);
    bencher.bench(|| {
        let rules = IgnoreRules::parse("package-*\n!keep", ".dockerignore").unwrap();
        let context = LocalContext::with_rules(dir, rules, Owners::Root).unwrap();
        checksum(&context, &RootPath::root(), &ChecksumOptions::default(), &NoMemo).unwrap().digest
    });
}

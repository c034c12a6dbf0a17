//! When the commit was made that a work tree has checked out: read from the repository itself, so that it needs no program and runs nothing that the
//! repository's settings name.
//!
//! Reads loose and packed objects and references, work trees (`git worktree`), submodules and alternates, with SHA-1 and SHA-256. What it does not know (references in
//! tables, shallow content that is not there) is an error that says so, never another time.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;

/// No commit that a person made is larger.
const MAX_OBJECT: u64 = 16 << 20;

/// How many deltas an object may be made of (git's own limit), and how many references may lead from one to the next.
const MAX_DELTAS: usize = 4096;
const MAX_LINKS: usize = 8;

/// Why the time of a commit cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// A file of the repository cannot be read.
    #[error("cannot read `{}` of the git repository", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The repository is not as git makes it, or newer.
    #[error("cannot use the git repository `{}`: {what}", path.display())]
    Malformed {
        /// The repository.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The committer's time, in seconds since the epoch, of the commit that the work tree around `dir` has checked out. `None` where there is no work tree, or
/// no commit yet.
///
/// # Errors
/// There is a repository, and it cannot be read.
pub fn commit_time(dir: &Path) -> Result<Option<i64>, GitError> {
    let dir = dir.canonicalize().map_err(read(dir))?;
    let Some(repository) = Repository::around(&dir)? else { return Ok(None) };
    let Some(id) = repository.head()? else { return Ok(None) };
    let commit = repository.object(&id, MAX_DELTAS)?;
    let missing = || repository.malformed(format!("the commit {id} is not in it"));
    let (kind, bytes) = commit.ok_or_else(missing)?;
    let time = if kind == COMMIT { committer_time(&bytes) } else { None };
    time.map(Some).ok_or_else(|| repository.malformed(format!("{id} is no commit")))
}

/// The time of the line `committer NAME <MAIL> SECONDS ZONE` of a commit's header.
fn committer_time(commit: &[u8]) -> Option<i64> {
    let mut header = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let line = header.find_map(|line| line.strip_prefix(b"committer "))?;
    let after = line.iter().rposition(|byte| *byte == b'>')? + 1;
    str::from_utf8(&line[after..]).ok()?.split_whitespace().next()?.parse().ok()
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> GitError {
    move |source| GitError::Read { path: path.to_owned(), source }
}

/// A file's text, where it is there.
fn text(path: &Path) -> Result<Option<String>, GitError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(read(path)(error)),
    }
}

/// An object's kind, as packs number it, and its content.
type Object = (u8, Vec<u8>);

const COMMIT: u8 = 1;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

struct Repository {
    /// What belongs to this work tree: `HEAD`.
    dir: PathBuf,
    /// What all work trees share.
    common: PathBuf,
    /// Where objects are: its own, and those of repositories that it borrows from.
    objects: Vec<PathBuf>,
}

impl Repository {
    /// The repository whose work tree holds `dir`: the nearest `.git` at it or above.
    fn around(dir: &Path) -> Result<Option<Repository>, GitError> {
        for above in dir.ancestors() {
            let path = above.join(".git");
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => return Repository::open(path).map(Some),
                Ok(_) => {
                    let content = text(&path)?.unwrap_or_default();
                    let target = content.trim_end().strip_prefix("gitdir: ").map(str::to_owned);
                    let what = || "the file does not say where the repository is".to_owned();
                    let target = target.ok_or_else(|| GitError::Malformed { path: path.clone(), what: what() })?;
                    return Repository::open(above.join(target)).map(Some);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(read(&path)(error)),
            }
        }
        Ok(None)
    }

    fn open(dir: PathBuf) -> Result<Repository, GitError> {
        let common = match text(&dir.join("commondir"))? {
            Some(target) => dir.join(target.trim_end()),
            None => dir.clone(),
        };
        let mut objects = vec![common.join("objects")];
        let mut at = 0;
        while at < objects.len() && objects.len() < 64 {
            let list = text(&objects[at].join("info/alternates"))?.unwrap_or_default();
            for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let other = objects[at].join(line);
                if !objects.contains(&other) {
                    objects.push(other);
                }
            }
            at += 1;
        }
        Ok(Repository { dir, common, objects })
    }

    fn malformed(&self, what: String) -> GitError {
        GitError::Malformed { path: self.dir.clone(), what }
    }

    /// The ID of the commit that is checked out; `None` on a branch without one.
    fn head(&self) -> Result<Option<String>, GitError> {
        if self.common.join("reftable").is_dir() {
            return Err(self.malformed("its references are kept in tables, which cannot be read yet".into()));
        }
        let mut name = "HEAD".to_owned();
        for _ in 0..MAX_LINKS {
            let found = match text(&self.dir.join(&name))? {
                None if name == "HEAD" => return Err(self.malformed("it has no HEAD".into())),
                None => text(&self.common.join(&name))?,
                found => found,
            };
            let Some(content) = found else { return self.packed_reference(&name) };
            let content = content.trim();
            let Some(target) = content.strip_prefix("ref:") else {
                return if is_id(content) {
                    Ok(Some(content.to_owned()))
                } else {
                    Err(self.malformed(format!("`{name}` is no reference")))
                };
            };
            name = target.trim().to_owned();
            // A name is not to lead anywhere else.
            if !name.starts_with("refs/") || name.split('/').any(|part| part == "..") {
                return Err(self.malformed(format!("`{name}` is no name of a reference")));
            }
        }
        Err(self.malformed("its references go round in circles".into()))
    }

    fn packed_reference(&self, name: &str) -> Result<Option<String>, GitError> {
        let list = text(&self.common.join("packed-refs"))?.unwrap_or_default();
        let line = list.lines().find_map(|line| line.split_once(' ').filter(|(id, found)| *found == name && is_id(id)));
        Ok(line.map(|(id, _)| id.to_owned()))
    }

    fn object(&self, id: &str, deltas: usize) -> Result<Option<Object>, GitError> {
        for dir in &self.objects {
            let loose = dir.join(&id[..2]).join(&id[2..]);
            match File::open(&loose) {
                Ok(file) => return loose_object(file).map(Some).map_err(read(&loose)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(read(&loose)(error)),
            }
        }
        let Some(wanted) = bytes_of(id) else { return Ok(None) };
        for dir in self.objects.iter().map(|dir| dir.join("pack")) {
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(read(&dir)(error)),
            };
            for entry in entries {
                let index = entry.map_err(read(&dir))?.path();
                if index.extension().is_none_or(|extension| extension != "idx") {
                    continue;
                }
                if let Some(offset) = find_in_index(&index, &wanted).map_err(read(&index))? {
                    let path = index.with_extension("pack");
                    let pack = File::open(&path).map_err(read(&path))?;
                    return self.packed_object(&pack, &path, offset, wanted.len(), deltas).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// The object at `offset` of a pack. What it is a difference to, is read first.
    fn packed_object(&self, pack: &File, path: &Path, offset: u64, id_size: usize, deltas: usize) -> Result<Object, GitError> {
        let mut chain = Vec::new();
        let mut at = offset;
        let (kind, mut bytes) = loop {
            if chain.len() >= deltas {
                return Err(self.malformed("an object of a pack is made of too many others".into()));
            }
            let entry = pack_entry(pack, at, id_size).map_err(read(path))?;
            match entry.base {
                None => break (entry.kind, entry.data),
                Some(Base::Before(distance)) => {
                    at = at.checked_sub(distance).ok_or_else(|| self.malformed("an object of a pack starts before it".into()))?;
                    chain.push(entry.data);
                }
                Some(Base::Id(id)) => {
                    let left = deltas - chain.len() - 1;
                    chain.push(entry.data);
                    let base = self.object(&id, left)?;
                    break base.ok_or_else(|| self.malformed(format!("the object {id} is missing")))?;
                }
            }
        };
        for delta in chain.iter().rev() {
            bytes = apply_delta(&bytes, delta).ok_or_else(|| self.malformed("an object of a pack is damaged".into()))?;
        }
        Ok((kind, bytes))
    }
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn bytes_of(id: &str) -> Option<Vec<u8>> {
    id.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn inflate(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ZlibDecoder::new(from).take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other("an object of it is too large"));
    }
    Ok(bytes)
}

fn loose_object(file: File) -> io::Result<Object> {
    let bytes = inflate(file, MAX_OBJECT)?;
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
    let kind = if bytes.starts_with(b"commit ") { COMMIT } else { 0 };
    Ok((kind, bytes[end + 1..].to_vec()))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}

/// Where a pack has the object `wanted`, by the pack's index (version 1 or 2).
fn find_in_index(path: &Path, wanted: &[u8]) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let number = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_be_bytes(bytes).into())
    };
    let newer = number(0)? == 0xff74_4f63;
    let fan = if newer { 8 } else { 0 };
    if newer && number(4)? != 2 {
        return Err(io::Error::other("it is of a version that is not known"));
    }
    let (first, size) = (u64::from(wanted[0]), wanted.len() as u64);
    let total = number(fan + 255 * 4)?;
    let (mut low, mut high) = (if first == 0 { 0 } else { number(fan + (first - 1) * 4)? }, number(fan + first * 4)?);
    let names = fan + 1024;
    // Version 1 has each offset before its name.
    let stride = if newer { size } else { size + 4 };
    while low < high {
        let middle = low.midpoint(high);
        let mut name = vec![0; wanted.len()];
        file.read_exact_at(&mut name, names + middle * stride + (stride - size))?;
        match name.as_slice().cmp(wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal if !newer => return number(names + middle * stride).map(Some),
            std::cmp::Ordering::Equal => {
                let offsets = names + total * (size + 4);
                let offset = number(offsets + middle * 4)?;
                if offset & 0x8000_0000 == 0 {
                    return Ok(Some(offset));
                }
                let at = offsets + total * 4 + (offset & 0x7fff_ffff) * 8;
                return Ok(Some(number(at)? << 32 | number(at + 4)?));
            }
        }
    }
    Ok(None)
}

/// What a difference is to.
enum Base {
    /// The object so many bytes before.
    Before(u64),
    /// The object of this ID.
    Id(String),
}

struct PackEntry {
    kind: u8,
    base: Option<Base>,
    data: Vec<u8>,
}

fn pack_entry(pack: &File, offset: u64, id_size: usize) -> io::Result<PackEntry> {
    let mut head = [0; 64];
    let count = pack.read_at(&mut head, offset)?;
    let mut bytes = head[..count].iter().copied();
    let mut next = || bytes.next().map(u64::from).ok_or_else(damaged);
    let mut byte = next()?;
    let kind = (byte >> 4 & 7) as u8;
    let (mut size, mut shift) = (byte & 15, 4);
    while byte & 0x80 != 0 {
        byte = next()?;
        size |= (byte & 0x7f).checked_shl(shift).unwrap_or(u64::MAX);
        shift += 7;
    }
    if size > MAX_OBJECT {
        return Err(io::Error::other("an object of it is too large"));
    }
    let base = match kind {
        OFS_DELTA => {
            byte = next()?;
            let mut distance = byte & 0x7f;
            while byte & 0x80 != 0 {
                byte = next()?;
                distance = distance.checked_add(1).and_then(|distance| distance.checked_mul(128)).ok_or_else(damaged)? | (byte & 0x7f);
            }
            Some(Base::Before(distance))
        }
        REF_DELTA => {
            let id: Vec<u8> = (0..id_size).map(|_| next().map(|byte| byte as u8)).collect::<io::Result<_>>()?;
            Some(Base::Id(id.iter().map(|byte| format!("{byte:02x}")).collect()))
        }
        _ => None,
    };
    let start = offset + (count - bytes.len()) as u64;
    let data = inflate(From { file: pack, at: start }, size)?;
    if data.len() as u64 != size {
        return Err(damaged());
    }
    Ok(PackEntry { kind, base, data })
}

/// Reads a file from a place on, without moving anybody else's.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Makes an object of another one and the difference; `None` where they do not fit.
fn apply_delta(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut rest = delta.iter().copied();
    let mut number = || -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = rest.next()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    };
    let (from, to) = (number()?, number()?);
    if from != base.len() as u64 || to > MAX_OBJECT {
        return None;
    }
    let mut out = Vec::new();
    while let Some(op) = rest.next() {
        if op & 0x80 == 0 {
            // Zero is reserved.
            if op == 0 {
                return None;
            }
            for _ in 0..op {
                out.push(rest.next()?);
            }
            continue;
        }
        let mut part = |bits: std::ops::Range<u8>| -> Option<usize> {
            let mut value = 0;
            for (position, bit) in bits.enumerate() {
                if op >> bit & 1 == 1 {
                    value |= usize::from(rest.next()?) << (8 * position);
                }
            }
            Some(value)
        };
        let (offset, size) = (part(0..4)?, part(4..7)?);
        let size = if size == 0 { 0x10000 } else { size };
        out.extend_from_slice(base.get(offset..offset.checked_add(size)?)?);
        if out.len() as u64 > to {
            return None;
        }
    }
    (out.len() as u64 == to).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs git; `None` where it is not installed.
    fn git(dir: &Path, seconds: i64, args: &[&str]) -> Option<String> {
        // Some versions of git take no date that is as early as the epoch.
        let date = format!("{} +0130", seconds.max(1_000_000_000));
        let mut command = Command::new("git");
        command.args(["-c", "user.name=A > B", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-c", "commit.gpgSign=false"]);
        command.args(args).current_dir(dir).env("GIT_COMMITTER_DATE", &date).env("GIT_AUTHOR_DATE", "500000000 +0000").env("HOME", dir);
        let output = command.output().ok()?;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    fn commit(dir: &Path, seconds: i64) {
        git(dir, seconds, &["commit", "-q", "--allow-empty", "-m", "committer x <y> 5 +0000"]);
    }

    #[test]
    fn the_committers_time_of_what_is_checked_out_is_found_wherever_git_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path();
        assert_eq!(commit_time(work).unwrap(), None);
        if git(work, 0, &["init", "-q"]).is_none() {
            return;
        }
        assert_eq!(commit_time(work).unwrap(), None, "a branch without a commit");
        commit(work, 1_500_000_000);
        assert_eq!(commit_time(work).unwrap(), Some(1_500_000_000));
        let inner = work.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(commit_time(&inner).unwrap(), Some(1_500_000_000));

        for second in 1..60 {
            commit(work, 1_500_000_000 + second);
        }
        // Objects and references are packed now, some as differences to others.
        git(work, 0, &["repack", "-adfq", "--depth=50", "--window=50"]);
        git(work, 0, &["pack-refs", "--all"]);
        git(work, 0, &["prune-packed"]);
        assert!(!work.join(".git/refs/heads/main").exists());
        assert_eq!(commit_time(work).unwrap(), Some(1_500_000_059));
        for back in 1..60 {
            git(work, 0, &["checkout", "-q", "--detach", &format!("main~{back}")]);
            assert_eq!(commit_time(work).unwrap(), Some(1_500_000_059 - back));
        }

        git(work, 0, &["worktree", "add", "-q", "tree", "main~7"]);
        assert_eq!(commit_time(&work.join("tree")).unwrap(), Some(1_500_000_052));
        git(work, 0, &["clone", "-q", "--shared", "-b", "main", ".", "shared"]);
        assert_eq!(commit_time(&work.join("shared")).unwrap(), Some(1_500_000_059));
        git(work, 0, &["clone", "-q", "--depth=1", "--no-local", "-b", "main", ".", "shallow"]);
        assert_eq!(commit_time(&work.join("shallow")).unwrap(), Some(1_500_000_059));
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path();
        std::fs::create_dir(work.join(".git")).unwrap();
        assert!(matches!(commit_time(work), Err(GitError::Malformed { .. })));
        std::fs::write(work.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(commit_time(work).unwrap(), None);
        std::fs::create_dir_all(work.join(".git/refs/heads")).unwrap();
        std::fs::write(work.join(".git/refs/heads/main"), format!("{}\n", "12".repeat(20))).unwrap();
        assert!(commit_time(work).unwrap_err().to_string().contains("is not in it"));
        std::fs::create_dir_all(work.join(".git/objects/12")).unwrap();
        std::fs::write(work.join(".git/objects/12").join("12".repeat(19)), "no zlib").unwrap();
        assert!(matches!(commit_time(work), Err(GitError::Read { .. })));
        std::fs::write(work.join(".git/HEAD"), "ref: ../../etc/passwd\n").unwrap();
        assert!(matches!(commit_time(work), Err(GitError::Malformed { .. })));
        std::fs::remove_dir_all(work.join(".git")).unwrap();
        std::fs::write(work.join(".git"), "nothing\n").unwrap();
        assert!(matches!(commit_time(work), Err(GitError::Malformed { .. })));
    }

    #[test]
    fn deltas_copy_and_insert() {
        // From 5 bytes to 8: copy 3 from 2, insert "xyz", copy 2 from 0.
        let delta = [5, 8, 0b1001_0001, 2, 3, 3, b'x', b'y', b'z', 0b1001_0000, 2];
        assert_eq!(apply_delta(b"abcde", &delta).as_deref(), Some(&b"cdexyzab"[..]));
        assert_eq!(apply_delta(b"abcd", &delta), None);
        assert_eq!(apply_delta(b"abcde", &delta[..9]), None);
    }
}

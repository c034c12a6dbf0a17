//! What differs between two layers, file by file.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::PathBuf;

use super::diff::{LayerOptions, write_layer};
use super::tar_reader::{Member, MemberKind, TarReader};
use super::{Error, Xattrs};
use crate::store::view::LayerStack;

/// A layer's directory, and the layers below it.
#[derive(Clone, Debug)]
pub struct LayerAt {
    /// The layer.
    pub path: PathBuf,
    /// What is below.
    pub lower: LayerStack,
}

/// An entry that is not the same in two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDifference {
    /// Its path, as text.
    pub path: String,
    /// What differs, in words: `content`, `mode 644 and 755`.
    pub what: Vec<String>,
}

/// What is not the same in two layers, as their tar streams have it, in the order of paths.
pub fn differences(one: &LayerAt, other: &LayerAt, options: &LayerOptions) -> Result<Vec<EntryDifference>, Error> {
    let (one, mut other) = (entries(one, options)?, entries(other, options)?);
    let mut found = Vec::new();
    for (path, first) in one {
        let what = match other.remove(&path) {
            Some(second) => first.compare(&second),
            None => vec!["only the first build has it".to_owned()],
        };
        if !what.is_empty() {
            found.push(EntryDifference { path: shown(&path), what });
        }
    }
    let rest = other.into_keys();
    found.extend(rest.map(|path| EntryDifference { path: shown(&path), what: vec!["only the second build has it".to_owned()] }));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

struct Facts {
    member: Member,
    content: blake3::Hash,
}

/// The entries of a layer's tar stream.
fn entries(layer: &LayerAt, options: &LayerOptions) -> Result<BTreeMap<Vec<u8>, Facts>, Error> {
    let (reader, writer) = std::io::pipe().map_err(|source| Error::Read { source })?;
    std::thread::scope(|scope| {
        let written = scope.spawn(|| write_layer(&layer.path, &layer.lower, &mut BufWriter::with_capacity(1 << 20, writer), options));
        let entries = read_entries(reader);
        match (written.join().expect("writing a layer does not panic"), entries) {
            (_, Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(_), Ok(entries)) => Ok(entries),
        }
    })
}

fn read_entries(from: impl std::io::Read) -> Result<BTreeMap<Vec<u8>, Facts>, Error> {
    let mut tar = TarReader::unhashed(from, 1 << 20);
    let mut entries = BTreeMap::new();
    while let Some(member) = tar.next()? {
        let mut hasher = blake3::Hasher::new();
        loop {
            let data = tar.data()?;
            let count = data.len();
            if count == 0 {
                break;
            }
            hasher.update(data);
            tar.consume(count);
        }
        // Only directories have a slash at the end: what was one and is none now is still one name.
        let name = member.name.strip_suffix(b"/").unwrap_or(&member.name).to_vec();
        entries.insert(name, Facts { member, content: hasher.finalize() });
    }
    tar.finish()?;
    Ok(entries)
}

impl Facts {
    /// What differs, in words.
    fn compare(&self, other: &Facts) -> Vec<String> {
        let (one, two) = (&self.member, &other.member);
        if one.kind != two.kind {
            return vec![format!("{} and {}", kind_name(one.kind), kind_name(two.kind))];
        }
        let mut what = Vec::new();
        let mut note = |name: &str, first: String, second: String| {
            if first != second {
                what.push(format!("{name} {first} and {second}"));
            }
        };
        note("size", one.size.to_string(), two.size.to_string());
        note("mode", format!("{:o}", one.mode), format!("{:o}", two.mode));
        note("owner", format!("{}:{}", one.uid, one.gid), format!("{}:{}", two.uid, two.gid));
        note("time", time(one), time(two));
        note("link to", String::from_utf8_lossy(&one.link).into_owned(), String::from_utf8_lossy(&two.link).into_owned());
        note("device", format!("{}:{}", one.rdev.0, one.rdev.1), format!("{}:{}", two.rdev.0, two.rdev.1));
        let names = differing_names(&one.xattrs, &two.xattrs);
        if !names.is_empty() {
            what.push(format!("attributes {}", names.join(", ")));
        }
        if self.content != other.content {
            what.insert(0, "content".to_owned());
        }
        what
    }
}

fn time(member: &Member) -> String {
    jiff::Timestamp::from_second(member.mtime.0).map_or_else(|_| member.mtime.0.to_string(), |time| time.to_string())
}

/// The names of attributes that only one has, or that have two values.
fn differing_names(one: &Xattrs, two: &Xattrs) -> Vec<String> {
    let lacks = |all: &Xattrs, some: &Xattrs| -> Vec<String> {
        all.iter().filter(|entry| !some.contains(entry)).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    let mut names = lacks(one, two);
    names.extend(lacks(two, one));
    names.sort();
    names.dedup();
    names
}

fn kind_name(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::File => "a file",
        MemberKind::Directory => "a directory",
        MemberKind::Symlink => "a symbolic link",
        MemberKind::HardLink => "another name of a file",
        MemberKind::CharDevice => "a character device",
        MemberKind::BlockDevice => "a block device",
        MemberKind::Fifo => "a pipe",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::Marks;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn each_difference_is_named_and_times_after_the_limit_are_none() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, other) in [(&one, "1"), (&two, "2")] {
            let at = |name: &str| dir.path().join(name);
            for name in ["same", "mode", "content", "kind", "size"] {
                std::fs::write(at(name), "text").unwrap();
            }
            std::fs::write(at("content"), other.repeat(4)).unwrap();
            symlink(format!("to{other}"), at("link")).unwrap();
            std::fs::create_dir(at(other)).unwrap();
        }
        std::fs::set_permissions(two.path().join("mode"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(one.path().join("mode"), std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::remove_file(two.path().join("kind")).unwrap();
        std::fs::create_dir(two.path().join("kind")).unwrap();
        std::fs::write(two.path().join("size"), "longer").unwrap();
        let file = std::fs::File::options().write(true).open(two.path().join("same")).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(100)).unwrap();
        let at = |dir: &tempfile::TempDir| LayerAt { path: dir.path().to_owned(), lower: Vec::new().into() };
        let found =
            differences(&at(&one), &at(&two), &LayerOptions { latest_time: Some(1000), marks: Marks::Trusted, ..LayerOptions::default() })
                .unwrap();
        let text: Vec<String> = found.iter().map(|found| format!("{}: {}", found.path, found.what.join(", "))).collect();
        let expected = [
            "/1: only the first build has it",
            "/2: only the second build has it",
            "/content: content",
            "/kind: a file and a directory",
            "/link: link to to1 and to2",
            "/mode: mode 644 and 600",
            "/size: content, size 4 and 6",
        ];
        assert_eq!(text, expected);
        let found = differences(&at(&one), &at(&two), &LayerOptions::default()).unwrap();
        assert!(found.iter().any(|found| found.path == "/same" && found.what[0].starts_with("time ")), "{found:?}");
    }
}

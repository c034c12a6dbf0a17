//! What differs between two images: the files of their merged trees, and their configs. Layers do not matter, only what they make together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};

use serde_json::{Map, Value};

use crate::oci::ImageConfig;
use crate::path::RootPath;
use crate::sys::tree::{Kind, Metadata, Tree};

/// Whether times count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// They differ like anything else.
    Count,
    /// Two builds of the same differ in nothing.
    Ignore,
}

/// What each of two images has.
type Both<T> = (Option<T>, Option<T>);

/// A path that is not the same in two images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDifference {
    /// The path.
    pub path: RootPath,
    /// What the first image has there.
    pub from: Option<Kind>,
    /// What the second has.
    pub to: Option<Kind>,
    /// Where both have the same kind of thing: what is not the same in them.
    pub changes: Vec<Change>,
}

/// Something that has two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `mode`, `owner`, `size`, `content`, `link`, `device`, `xattr NAME`, `time`; of a config, the way to the field.
    pub field: String,
    /// The first; `None` where there is none, or none that can be shown.
    pub from: Option<Value>,
    /// The second.
    pub to: Option<Value>,
}

impl Change {
    fn new(field: impl Into<String>, from: impl Into<Value>, to: impl Into<Value>) -> Change {
        Change { field: field.into(), from: Some(from.into()), to: Some(to.into()) }
    }
}

/// The paths that differ, sorted. A directory that only one image has is listed with all that is in it.
///
/// # Errors
/// A tree cannot be read.
pub fn compare_files(one: &dyn Tree, other: &dyn Tree, times: Times) -> io::Result<Vec<FileDifference>> {
    let mut found = Vec::new();
    found.extend(compare_entry(
        (one, other),
        &RootPath::root(),
        (one.metadata(&RootPath::root())?, other.metadata(&RootPath::root())?),
        times,
    )?);
    // Which of the two trees have the directory.
    let mut directories = vec![(RootPath::root(), true, true)];
    while let Some((directory, in_one, in_other)) = directories.pop() {
        let list = |tree: &dyn Tree, there| if there { tree.examine_dir(&directory) } else { Ok(Vec::new()) };
        let mut entries: BTreeMap<OsString, Both<Metadata>> = BTreeMap::new();
        list(one, in_one)?.into_iter().for_each(|(name, metadata)| entries.entry(name).or_default().0 = Some(metadata));
        list(other, in_other)?.into_iter().for_each(|(name, metadata)| entries.entry(name).or_default().1 = Some(metadata));
        for (name, both) in entries {
            let path = directory.join(&name);
            found.extend(compare_entry((one, other), &path, both, times)?);
            let is_directory = |metadata: Option<Metadata>| metadata.is_some_and(|metadata| metadata.kind == Kind::Directory);
            if is_directory(both.0) || is_directory(both.1) {
                directories.push((path, is_directory(both.0), is_directory(both.1)));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn compare_entry(trees: (&dyn Tree, &dyn Tree), path: &RootPath, both: Both<Metadata>, times: Times) -> io::Result<Option<FileDifference>> {
    let (from, to) = (both.0.map(|metadata| metadata.kind), both.1.map(|metadata| metadata.kind));
    let changes = match both {
        (Some(first), Some(second)) if first.kind == second.kind => compare_metadata(trees, path, &first, &second, times)?,
        _ => Vec::new(),
    };
    let differs = from != to || !changes.is_empty();
    Ok(differs.then(|| FileDifference { path: path.clone(), from, to, changes }))
}

fn compare_metadata(
    (one, other): (&dyn Tree, &dyn Tree),
    path: &RootPath,
    first: &Metadata,
    second: &Metadata,
    times: Times,
) -> io::Result<Vec<Change>> {
    // A layer that both images have is one directory here.
    if (first.dev, first.ino) == (second.dev, second.ino) && first.kind != Kind::Directory {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    let octal = |mode: u32| format!("{mode:04o}");
    if first.mode != second.mode {
        changes.push(Change::new("mode", octal(first.mode), octal(second.mode)));
    }
    if (first.uid, first.gid) != (second.uid, second.gid) {
        changes.push(Change::new("owner", format!("{}:{}", first.uid, first.gid), format!("{}:{}", second.uid, second.gid)));
    }
    match first.kind {
        Kind::File if first.size != second.size => {
            changes.push(Change::new("size", first.size, second.size));
            changes.push(Change { field: "content".into(), from: None, to: None });
        }
        Kind::File if !same_content(one, other, path)? => changes.push(Change { field: "content".into(), from: None, to: None }),
        Kind::Symlink => {
            let (from, to) = (one.read_link(path)?, other.read_link(path)?);
            if from != to {
                changes.push(Change::new("link", from.to_string_lossy(), to.to_string_lossy()));
            }
        }
        Kind::CharDevice | Kind::BlockDevice if first.rdev != second.rdev => {
            let number = |(major, minor): (u32, u32)| format!("{major}:{minor}");
            changes.push(Change::new("device", number(first.rdev), number(second.rdev)));
        }
        _ => {}
    }
    changes.extend(compare_xattrs(one, other, path)?);
    if times == Times::Count && first.mtime.0 != second.mtime.0 {
        changes.push(Change::new("time", first.mtime.0, second.mtime.0));
    }
    Ok(changes)
}

fn compare_xattrs(one: &dyn Tree, other: &dyn Tree, path: &RootPath) -> io::Result<Vec<Change>> {
    let mut names: BTreeMap<OsString, Both<Vec<u8>>> = BTreeMap::new();
    one.xattrs(path)?.into_iter().for_each(|(name, value)| names.entry(name).or_default().0 = Some(value));
    other.xattrs(path)?.into_iter().for_each(|(name, value)| names.entry(name).or_default().1 = Some(value));
    let shown = |value: Option<Vec<u8>>| value.map(|value| Value::from(value.escape_ascii().to_string()));
    let differing = names.into_iter().filter(|(_, (from, to))| from != to);
    Ok(differing
        .map(|(name, (from, to))| Change { field: format!("xattr {}", name.to_string_lossy()), from: shown(from), to: shown(to) })
        .collect())
}

/// Whether two trees have the same at `path`, times apart.
pub(super) fn same_entry(one: &dyn Tree, other: &dyn Tree, path: &RootPath) -> io::Result<bool> {
    let both = (one.metadata(path)?, other.metadata(path)?);
    Ok(compare_entry((one, other), path, both, Times::Ignore)?.is_none())
}

fn same_content(one: &dyn Tree, other: &dyn Tree, path: &RootPath) -> io::Result<bool> {
    let (mut first, mut second) = (one.open(path)?, other.open(path)?);
    let (mut a, mut b) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let (read, also) = (fill(&mut first, &mut a)?, fill(&mut second, &mut b)?);
        if a[..read] != b[..also] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The fields that two configs do not have in common, in their order. The layers are not of interest; a variable of the environment is a field.
pub fn compare_configs(one: &ImageConfig, other: &ImageConfig, times: Times) -> Vec<Change> {
    let (one, other) = (fields(one, times), fields(other, times));
    let mut found: Vec<Change> = Vec::new();
    for (name, from) in &one {
        let to = other.get(name);
        if to != Some(from) {
            found.push(Change { field: name.clone(), from: Some(from.clone()), to: to.cloned() });
        }
    }
    let new = other.iter().filter(|(name, _)| !one.contains_key(*name));
    found.extend(new.map(|(name, to)| Change { field: name.clone(), from: None, to: Some(to.clone()) }));
    found.sort_by(|a, b| a.field.cmp(&b.field));
    found
}

/// The fields of a config by the way that leads to each.
fn fields(config: &ImageConfig, times: Times) -> BTreeMap<String, Value> {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.remove("rootfs");
        if let Some(config) = object.get_mut("config").and_then(Value::as_object_mut) {
            let env = config.remove("Env").and_then(|env| env.as_array().cloned()).unwrap_or_default();
            let variables = env.iter().filter_map(Value::as_str).map(|entry| entry.split_once('=').unwrap_or((entry, "")));
            let variables: Map<String, Value> = variables.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            config.insert("Env".to_owned(), Value::Object(variables));
        }
        if let Some(history) = object.remove("history").and_then(|history| history.as_array().cloned()) {
            let entries = history.into_iter().enumerate().map(|(at, entry)| (format!("{at:03}"), entry));
            object.insert("history".to_owned(), Value::Object(entries.collect()));
        }
    }
    let mut found = BTreeMap::new();
    flatten("", &value, &mut found);
    if times == Times::Ignore {
        found.retain(|name, _| name != "created" && !(name.starts_with("history.") && name.ends_with(".created")));
    }
    found
}

fn flatten(at: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value {
        // A set (ports, volumes) has empty objects as values: the name is what counts.
        Value::Object(fields) if !fields.is_empty() || at == "config.Env" => {
            for (name, value) in fields {
                let way = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                flatten(&way, value, found);
            }
        }
        value => {
            found.insert(at.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::{Marks, MergedView};

    #[test]
    fn each_kind_of_difference_is_found_by_name() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, text) in [(&one, "aaaa"), (&other, "bbbb")] {
            let at = |name: &str| dir.path().join(name);
            std::fs::write(at("same"), "same").unwrap();
            std::fs::write(at("content"), text).unwrap();
            symlink(text, at("link")).unwrap();
            std::fs::create_dir(at("dir")).unwrap();
            std::fs::write(at("mode"), "").unwrap();
            std::fs::create_dir(at(text)).unwrap();
            std::fs::write(at(text).join("in"), "").unwrap();
        }
        std::fs::set_permissions(one.path().join("mode"), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::set_permissions(other.path().join("mode"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::write(other.path().join("content"), "longer").unwrap();
        std::fs::remove_dir(other.path().join("dir")).unwrap();
        std::fs::write(other.path().join("dir"), "now a file").unwrap();
        let view = |dir: &tempfile::TempDir| MergedView::new(vec![dir.path().to_owned()], Marks::Trusted).unwrap();
        let found = compare_files(&view(&one), &view(&other), Times::Ignore).unwrap();
        let show = |found: &FileDifference| {
            let changes: Vec<_> = found.changes.iter().map(|change| change.field.as_str()).collect();
            format!("{:?} {:?} {:?} {}", found.path.as_os_str(), found.from, found.to, changes.join(","))
        };
        let expected = [
            "\"/aaaa\" Some(Directory) None ",
            "\"/aaaa/in\" Some(File) None ",
            "\"/bbbb\" None Some(Directory) ",
            "\"/bbbb/in\" None Some(File) ",
            "\"/content\" Some(File) Some(File) size,content",
            "\"/dir\" Some(Directory) Some(File) ",
            "\"/link\" Some(Symlink) Some(Symlink) link",
            "\"/mode\" Some(File) Some(File) mode",
        ];
        assert_eq!(found.iter().map(show).collect::<Vec<_>>(), expected);
        assert_eq!(compare_files(&view(&one), &view(&one), Times::Count).unwrap(), []);
    }

    #[test]
    fn configs_differ_by_field_and_variable() {
        let config = |text: &str| serde_json::from_str::<ImageConfig>(text).unwrap();
        let one =
            config(r#"{"os":"linux","architecture":"amd64","created":"1","config":{"Env":["A=1","B=2"],"ExposedPorts":{"80/tcp":{}}}}"#);
        let other = config(r#"{"os":"linux","architecture":"arm64","created":"2","config":{"Env":["B=2","A=3"],"Labels":{"x":"y"}}}"#);
        let found = compare_configs(&one, &other, Times::Ignore);
        let names: Vec<_> = found.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(names, ["architecture", "config.Env.A", "config.ExposedPorts.80/tcp", "config.Labels.x"]);
        assert_eq!((found[1].from.clone(), found[1].to.clone()), (Some(Value::from("1")), Some(Value::from("3"))));
        assert!(compare_configs(&one, &other, Times::Count).iter().any(|change| change.field == "created"));
    }
}

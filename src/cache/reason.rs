//! Why a step was not taken from the cache, in words.

use std::collections::BTreeMap;
use std::fmt;

use super::Components;
use super::key::{CHANGED_MEANWHILE, InputLabel, Part};

/// Why a lookup missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissReason {
    /// This step was never built here.
    FirstBuild,
    /// `--no-cache`.
    Disabled,
    /// Everything is as it was, but the result is gone.
    Pruned,
    /// A cache has it, but its layer there cannot be used.
    Unusable(String),
    /// Something that the step reads is different.
    Changed(Vec<Change>),
}

/// One thing that a step reads and that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file has other content.
    FileChanged(String),
    /// A file has another mode.
    FileMode {
        /// The file.
        path: String,
        /// The mode then, octal.
        old: String,
        /// The mode now.
        new: String,
    },
    /// A file has another owner.
    FileOwner {
        /// The file.
        path: String,
        /// User and group then.
        old: String,
        /// User and group now.
        new: String,
    },
    /// Something of another kind has the name.
    FileKind {
        /// The file.
        path: String,
        /// What it was.
        old: &'static str,
        /// What it is.
        new: &'static str,
    },
    /// The same file has another name.
    FileRenamed {
        /// The name then.
        old: String,
        /// The name now.
        new: String,
    },
    /// A file is new.
    FileAdded(String),
    /// A file is gone.
    FileRemoved(String),
    /// A file was changed while the build before read it, which has kept no result for that.
    FileChangedMeanwhile(String),
    /// A variable has another value.
    Variable {
        /// Its name.
        name: String,
        /// Whether it is a build argument.
        build_arg: bool,
        /// The value then.
        old: Option<String>,
        /// The value now.
        new: Option<String>,
    },
    /// A name stands for another image now.
    Image {
        /// What it is to the step: `base`, `source`.
        role: String,
        /// Its name.
        name: String,
        /// The manifest then.
        old: String,
        /// The manifest now.
        new: String,
    },
    /// A step that this one builds on ran again.
    Step(String),
    /// The instruction itself says something else.
    Instruction {
        /// Which part of it.
        part: String,
        /// Then.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissReason::FirstBuild => f.write_str("first build of this step"),
            MissReason::Disabled => f.write_str("--no-cache"),
            MissReason::Pruned => f.write_str("its earlier result was pruned"),
            MissReason::Unusable(cache) => write!(f, "its layer in the cache `{cache}` cannot be used"),
            MissReason::Changed(changes) => match changes.as_slice() {
                [] => f.write_str("its inputs changed"),
                [one] => one.fmt(f),
                [one, rest @ ..] => write!(f, "{one} (and {} more)", rest.len()),
            },
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "(none)".to_owned(), short);
        match self {
            Change::FileChanged(path) => write!(f, "{path} changed"),
            Change::FileMode { path, old, new } => write!(f, "mode of {path}: {old} -> {new}"),
            Change::FileOwner { path, old, new } => write!(f, "owner of {path}: {old} -> {new}"),
            Change::FileKind { path, old, new } => write!(f, "{path} was {old} and is {new}"),
            Change::FileRenamed { old, new } => write!(f, "{old} was renamed to {new}"),
            Change::FileAdded(path) => write!(f, "{path} is new"),
            Change::FileRemoved(path) => write!(f, "{path} is gone"),
            Change::FileChangedMeanwhile(path) => write!(f, "{path} changed while the build before read it"),
            Change::Variable { name, build_arg, old, new } => {
                let kind = if *build_arg { "build-arg" } else { "env" };
                let (old, new) = match (old, new) {
                    (Some(old), Some(new)) => differing(old, new),
                    (old, new) => (shown(old), shown(new)),
                };
                write!(f, "{kind} {name}: {old} -> {new}")
            }
            Change::Image { role, name, old, new } => write!(f, "{role} {name} moved from {} to {}", short_digest(old), short_digest(new)),
            Change::Step(title) => write!(f, "follows `{title}`, which has a new result"),
            Change::Instruction { part, old: Some(_), new: Some(_) } if part == "heredoc" => f.write_str("the heredoc changed"),
            Change::Instruction { part, old: Some(old), new: Some(new) } => {
                let (old, new) = differing(old, new);
                write!(f, "{part}: {old} -> {new}")
            }
            Change::Instruction { part, old, new } => write!(f, "{part}: {} -> {}", shown(old), shown(new)),
        }
    }
}

/// Two values from a little before the place where they begin to differ.
fn differing(old: &str, new: &str) -> (String, String) {
    const CONTEXT: usize = 12;
    let common = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    let from_there = |value: &str| match common.checked_sub(CONTEXT) {
        Some(skipped) if skipped > CONTEXT => short(&format!("…{}", value.chars().skip(skipped).collect::<String>())),
        _ => short(value),
    };
    (from_there(old), from_there(new))
}

fn short(value: &str) -> String {
    const LIMIT: usize = 60;
    let line = value.replace('\n', "⏎");
    if line.chars().count() <= LIMIT { line } else { format!("{}…", line.chars().take(LIMIT).collect::<String>()) }
}

fn short_digest(digest: &str) -> String {
    digest.split(' ').next().unwrap_or(digest).chars().take("sha256:".len() + 12).collect()
}

/// Compares what a step was made of with what it is made of now.
pub fn explain(old: Option<&Components>, new: &Components) -> MissReason {
    // At this place there may have been another kind of instruction, with which there is nothing to compare.
    let kind = |components: &Components| components.parts().first().map(|part| part.value.clone());
    let Some(old) = old.filter(|old| kind(old) == kind(new)) else { return MissReason::FirstBuild };
    let mut changes = file_changes(old, new);
    let (before, after) = (by_name(old), by_name(new));
    let removed = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (*name, &[][..]));
    for (name, now) in after.iter().map(|(name, parts)| (*name, parts.as_slice())).chain(removed) {
        let then = before.get(name).map_or(&[][..], Vec::as_slice);
        let same = then.len() == now.len() && then.iter().zip(now).all(|(then, now)| then.value == now.value);
        if !same && let Some(change) = change(name, then, now, !changes.is_empty()) {
            changes.push(change);
        }
    }
    // Our own inputs say more than "the step above ran again".
    changes.sort_by_key(|change| matches!(change, Change::Step(_)));
    if changes.is_empty() && values(old) == values(new) { MissReason::Pruned } else { MissReason::Changed(changes) }
}

impl Change {
    /// What is different, what it was and what it is, for machines.
    pub fn parts(&self) -> (String, Option<String>, Option<String>) {
        let both = |what: String, old: &str, new: &str| (what, Some(old.to_owned()), Some(new.to_owned()));
        match self {
            Change::FileChanged(path) => (format!("content of {path}"), None, None),
            Change::FileMode { path, old, new } => both(format!("mode of {path}"), old, new),
            Change::FileOwner { path, old, new } => both(format!("owner of {path}"), old, new),
            Change::FileKind { path, old, new } => both(format!("kind of {path}"), old, new),
            Change::FileRenamed { old, new } => both("name of a file".to_owned(), old, new),
            Change::FileAdded(path) => ("file".to_owned(), None, Some(path.clone())),
            Change::FileRemoved(path) => ("file".to_owned(), Some(path.clone()), None),
            Change::FileChangedMeanwhile(path) => (format!("content of {path} meanwhile"), None, None),
            Change::Variable { name, build_arg, old, new } => {
                (format!("{} {name}", if *build_arg { "build-arg" } else { "env" }), old.clone(), new.clone())
            }
            Change::Image { role, name, old, new } => both(format!("{role} {name}"), old, new),
            Change::Step(title) => (format!("result of {title}"), None, None),
            Change::Instruction { part, old, new } => (part.clone(), old.clone(), new.clone()),
        }
    }
}

fn change(name: &str, old: &[&Part], new: &[&Part], files_changed: bool) -> Option<Change> {
    if name == CHANGED_MEANWHILE {
        return old.last().map(|part| Change::FileChangedMeanwhile(part.value.clone()));
    }
    let label = |parts: &[&Part]| parts.last().and_then(|part| part.label.clone());
    let role = name.strip_suffix(" files").unwrap_or(name);
    let build_arg = [new, old].iter().any(|parts| label(parts) == Some(InputLabel::BuildArgument));
    match (label(old), label(new)) {
        (Some(InputLabel::Image(name, old)), Some(InputLabel::Image(now, new))) if name == now => {
            return Some(Change::Image { role: role.to_owned(), name, old: old.to_string(), new: new.to_string() });
        }
        (old, Some(InputLabel::Image(new, _))) => {
            let old = match old {
                Some(InputLabel::Image(name, _)) => Some(name),
                _ => None,
            };
            return Some(Change::Instruction { part: format!("{name} image"), old, new: Some(new) });
        }
        (_, Some(InputLabel::Step(title))) => return Some(Change::Step(title)),
        (_, Some(InputLabel::BuildArgument)) | (Some(InputLabel::BuildArgument) | None, None) => {}
        // What it read before is explained by what it reads now.
        (Some(_), None) => return None,
    }
    let text = |parts: &[&Part]| (!parts.is_empty()).then(|| parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(" "));
    let (old, new) = (text(old), text(new));
    if let Some(variable) = name.strip_prefix("env ") {
        return Some(Change::Variable { name: variable.to_owned(), build_arg, old, new });
    }
    if name.ends_with(" files") {
        // The files themselves say it, unless they are too many to have been kept.
        return (!files_changed).then(|| Change::Instruction { part: name.to_owned(), old, new });
    }
    Some(Change::Instruction { part: name.to_owned(), old, new })
}

fn values(components: &Components) -> Vec<(&str, &str)> {
    components.parts().iter().map(|part| (part.name.as_str(), part.value.as_str())).collect()
}

fn by_name(components: &Components) -> BTreeMap<&str, Vec<&Part>> {
    let mut map: BTreeMap<&str, Vec<&Part>> = BTreeMap::new();
    for part in components.parts() {
        map.entry(&part.name).or_default().push(part);
    }
    map
}

fn file_changes(old: &Components, new: &Components) -> Vec<Change> {
    let (before, after) = (facts(old), facts(new));
    if before.is_empty() {
        // Nothing is known of the files then: that they are many now is no news.
        return Vec::new();
    }
    let mut changes = Vec::new();
    let mut gone: Vec<(&str, Facts<'_>)> =
        before.iter().filter(|(path, _)| !after.contains_key(*path)).map(|(path, facts)| (*path, *facts)).collect();
    for (path, now) in &after {
        match before.get(path) {
            Some(then) => changes.extend(file_change(path, then, now)),
            None => {
                // A file that went elsewhere; an empty one tells nothing of where it was.
                let from = gone.iter().position(|(_, then)| then.kind == "f" && then.kind == now.kind && then.content == now.content);
                changes.push(match from {
                    Some(at) => Change::FileRenamed { old: gone.swap_remove(at).0.to_owned(), new: (*path).to_owned() },
                    None => Change::FileAdded((*path).to_owned()),
                });
            }
        }
    }
    gone.sort_unstable_by_key(|(path, _)| *path);
    changes.extend(gone.into_iter().map(|(path, _)| Change::FileRemoved(path.to_owned())));
    changes
}

/// What is known of a file: see [`Components::files`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Facts<'a> {
    kind: &'a str,
    mode: &'a str,
    owner: &'a str,
    content: &'a str,
}

fn facts(components: &Components) -> BTreeMap<&str, Facts<'_>> {
    let parse = |text| {
        let [kind, mode, owner, content] = <[&str; 4]>::try_from(str::split(text, ' ').collect::<Vec<_>>()).ok()?;
        Some(Facts { kind, mode, owner, content })
    };
    components.files().iter().filter_map(|(path, text)| Some((path.as_str(), parse(text)?))).collect()
}

/// What is different of a file: what it is, then what is in it, then whose it is.
fn file_change(path: &str, then: &Facts<'_>, now: &Facts<'_>) -> Option<Change> {
    let path = path.to_owned();
    if then.kind != now.kind {
        return Some(Change::FileKind { path, old: kind_name(then.kind), new: kind_name(now.kind) });
    }
    if then.content != now.content {
        return Some(Change::FileChanged(path));
    }
    if then.mode != now.mode {
        return Some(Change::FileMode { path, old: then.mode.to_owned(), new: now.mode.to_owned() });
    }
    (then.owner != now.owner).then(|| Change::FileOwner { path, old: then.owner.to_owned(), new: now.owner.to_owned() })
}

fn kind_name(kind: &str) -> &'static str {
    match kind {
        "f" => "a file",
        "d" => "a directory",
        "l" => "a link",
        "c" | "b" => "a device",
        "p" => "a pipe",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(parts: &[(&str, &str)], files: &[(&str, &str)]) -> Components {
        let parts: Vec<_> = [("kind", "exec")].iter().chain(parts).copied().collect();
        let parts: Vec<_> = parts.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect();
        serde_json::from_value(serde_json::json!({ "parts": parts, "files": files })).unwrap()
    }

    fn base(label: InputLabel, value: &str) -> Components {
        let part = serde_json::json!({ "name": "base", "value": value, "label": label });
        serde_json::from_value(serde_json::json!({ "parts": [{ "name": "kind", "value": "exec" }, part] })).unwrap()
    }

    #[track_caller]
    fn check(old: &Components, new: &Components, said: &str) {
        assert_eq!(explain(Some(old), new).to_string(), said);
    }

    #[test]
    fn the_reason_names_what_changed() {
        let old = components(&[("env VERSION", "1.2"), ("source files", "aa")], old_files());
        check(&old, &components(&[("env VERSION", "1.3"), ("source files", "aa")], old_files()), "env VERSION: 1.2 -> 1.3");
        let touched =
            components(&[("env VERSION", "1.2"), ("source files", "bb")], &[("src/main.rs", "f 644 0:0 9"), ("b", "f 644 0:0 2")]);
        check(&old, &touched, "src/main.rs changed");
        let gone = components(&[("env VERSION", "1.2"), ("source files", "bb")], &[("b", "f 644 0:0 2")]);
        check(&old, &gone, "src/main.rs is gone");
        check(&old, &old.clone(), "its earlier result was pruned");
        assert_eq!(explain(None, &old), MissReason::FirstBuild);
    }

    fn old_files() -> &'static [(&'static str, &'static str)] {
        &[("src/main.rs", "f 644 0:0 1"), ("b", "f 644 0:0 2")]
    }

    #[test]
    fn the_reason_tells_mode_owner_kind_and_name_of_a_file_from_its_content() {
        let with = |file: (&'static str, &'static str)| components(&[("source files", file.1), ("source", file.0)], &[file]);
        let old = with(("a", "f 644 0:0 1"));
        let said = |new: (&'static str, &'static str)| {
            let MissReason::Changed(changes) = explain(Some(&old), &components(&[("source files", "x")], &[new])) else { panic!() };
            changes[0].to_string()
        };
        assert_eq!(said(("a", "f 755 0:0 1")), "mode of a: 644 -> 755");
        assert_eq!(said(("a", "f 644 0:7 1")), "owner of a: 0:0 -> 0:7");
        assert_eq!(said(("a", "f 755 0:7 2")), "a changed");
        assert_eq!(said(("a", "d 755 0:0 2")), "a was a file and is a directory");
        assert_eq!(said(("b", "f 644 0:0 1")), "a was renamed to b");
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let (old, new) = (format!("{}one", "x".repeat(500)), format!("{}two", "x".repeat(500)));
        assert_eq!(differing(&old, &new), ("…xxxxxxxxxxxxone".into(), "…xxxxxxxxxxxxtwo".into()));
    }

    #[test]
    fn a_moved_base_is_named_with_both_digests() {
        let image = |c: &str| InputLabel::Image("debian:12".into(), format!("sha256:{}", c.repeat(64)).parse().unwrap());
        let said = "base debian:12 moved from sha256:aaaaaaaaaaaa to sha256:cccccccccccc";
        check(&base(image("a"), "1"), &base(image("c"), "2"), said);
    }

    #[test]
    fn a_renamed_step_is_no_change() {
        let (old, new) = (base(InputLabel::Step("[1/2] RUN x".into()), "1"), base(InputLabel::Step("[1/3] RUN x".into()), "1"));
        assert_eq!(old.key(), new.key());
        assert_eq!(explain(Some(&old), &new), MissReason::Pruned);
    }

    #[test]
    fn a_step_with_a_new_result_is_named() {
        let (old, new) = (base(InputLabel::Step("[1/2] RUN x".into()), "1"), base(InputLabel::Step("[1/2] RUN x".into()), "2"));
        check(&old, &new, "follows `[1/2] RUN x`, which has a new result");
    }
}

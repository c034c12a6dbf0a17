//! Cache keys: decides when a build step may reuse an earlier result.
//!
//! | op | hashed | left out on purpose |
//! |---|---|---|
//! | image | its ID: the digest of its config, which names platform and layers | name, registry, compression, credentials, mirrors |
//! | download | digest of the content, its name | address, server, time, ETag |
//! | git | name of the commit, directory in it, whether submodules and `.git` are there (with `.git`: the reference and the address too), mtime of the commit | address, credentials, time |
//! | remote archive | digest of its content | address, time, ETag |
//! | COPY, ADD | base's identity (not with `--link`), destination, working directory, `--chown`, `--chmod`, `--parents`, `--exclude`, unpacking; of each source: its last name and checksum of what it selects (name, type, mode, owner, size, link target, device, xattrs, content), or its path and the identity of the stage | mtime, inode, absolute path of the context |
//! | RUN | base's identity, argv, env in order, working directory, user, host name, platform, network mode, security mode, names of devices, names of `--add-host`, heredoc script, mounts (target, kind, options; of a bind what it selects of the context or, read-only, of a stage) | secrets' and proxies' values, SSH agents, content of cache mounts, their names and sharing unless both are left to the builder, addresses, all limits, log settings, terminal, time |
//! | WORKDIR | base's identity, path, owner | |
//! | these three with `--reproducible` | the build's own time besides: files have it, and commands are told of it | |
//! | merge | identities of both inputs | |
//!
//! Each key is made of named components, and the same components are kept to explain a later miss. Changing anything in this file that changes a key must
//! raise [`KEY_VERSION`].

use std::collections::HashMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diag::SafeUrl;
use crate::graph::{CacheSharing, is_secret};
use crate::graph::{CopyOp, CopySource, ExecMountKind, ExecOp, GitMtime, GitSource, MkdirOp, NetworkMode, SecurityMode, Unpack};
use crate::oci::{Digest, ImageId, Platform};
use crate::path::RootPath;

/// Part of every key: raising it makes every earlier record unreachable.
pub const KEY_VERSION: u32 = 3;

/// The component that no key in use has: see [`Components::changed_meanwhile`].
pub(super) const CHANGED_MEANWHILE: &str = "changed meanwhile";

/// How long a value may be that others see whole, in bytes.
const MAX_ABRIDGED: usize = 2048;

/// The key of a result, and the identity of the result that was made under it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl Serialize for CacheKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CacheKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CacheKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(&text).map_err(|_| D::Error::custom("a cache key has 64 hexadecimal digits"))?;
        Ok(CacheKey(*hash.as_bytes()))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key is made of, by name, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Components {
    parts: Vec<Part>,
    /// For explanations only: the files of each source with what is known of them (the key holds one digest over them all).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<(String, String)>,
}

/// One component of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is: `env VERSION`, `base`.
    pub name: String,
    /// Its value: text for people, or a digest.
    pub value: String,
    /// Where an input came from, for explanations only: it is not in the key, since titles and names of images change when results do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<InputLabel>,
}

impl Components {
    fn new(kind: &str) -> Components {
        let mut components = Components::default();
        components.add("kind", kind);
        components
    }

    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.push(Part { name: name.into(), value: value.into(), label: None });
    }

    /// The components, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The files that sources selected, each with kind, mode, owner and content: `f 644 0:0 0123456789abcdef`.
    pub fn files(&self) -> &[(String, String)] {
        &self.files
    }

    /// Remembers the files of a source, to name the one that changed.
    pub fn remember_files(&mut self, files: impl IntoIterator<Item = (String, String)>) {
        self.files.extend(files);
    }

    /// Forgets the files where there are more than `limit`.
    pub fn limit_files(&mut self, limit: usize) {
        if self.files.len() > limit {
            self.files.clear();
        }
    }

    /// The components as they would be where results have other names.
    pub(super) fn in_names(&self, names: &HashMap<CacheKey, CacheKey>) -> Components {
        let mut components = self.clone();
        if !names.is_empty() {
            let is_input = |part: &&mut Part| matches!(part.label, Some(InputLabel::Image(..) | InputLabel::Step(_)));
            for part in components.parts.iter_mut().filter(is_input) {
                let known = blake3::Hash::from_hex(&part.value).ok().and_then(|hash| names.get(&CacheKey(*hash.as_bytes())));
                if let Some(name) = known {
                    part.value = name.to_string();
                }
            }
        }
        components
    }

    /// The components as others may see them: long values cut short, and no values of variables whose names speak of secrets.
    pub(super) fn abridged(mut self) -> Components {
        for part in &mut self.parts {
            if part.name.strip_prefix("env ").is_some_and(is_secret) {
                part.value.clear();
            } else if part.value.len() > MAX_ABRIDGED {
                let start: String = part.value.chars().take(MAX_ABRIDGED / 8).collect();
                part.value = format!("{start}… {}", blake3::hash(part.value.as_bytes()).to_hex());
            }
        }
        self
    }

    /// Notes that the result is held to a time of its own: files have other times then, and commands are told of it.
    pub fn limit_times(&mut self, seconds: i64) {
        self.add("times until", seconds.to_string());
    }

    /// Notes that what is made has a time that the build was given.
    pub fn set_times(&mut self, seconds: i64) {
        self.add("times", seconds.to_string());
    }

    /// Notes that the file `path` was changed while the step read it, so that what it made is not what these components tell.
    pub fn changed_meanwhile(&mut self, path: &str) {
        self.add(CHANGED_MEANWHILE, path.to_owned());
    }

    /// The key of these components.
    pub fn key(&self) -> CacheKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&KEY_VERSION.to_le_bytes());
        for Part { name, value, label: _ } in &self.parts {
            // Lengths before texts: no two lists of components run together to the same bytes.
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        CacheKey(*hasher.finalize().as_bytes())
    }
}

/// What a node reads of one of its inputs, as far as keys are concerned.
#[derive(Clone, Debug)]
pub enum InputIdentity {
    /// A result, by its identity, and what it is called in explanations.
    Result {
        /// The identity.
        key: CacheKey,
        /// An image's name, or a step's title.
        label: InputLabel,
    },
    /// Files, by the checksum of exactly those that are read.
    Files {
        /// The checksum.
        checksum: [u8; 32],
    },
}

/// Where a component came from, for when it is the reason of a miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputLabel {
    /// An image: name and manifest digest.
    Image(String, Digest),
    /// An earlier step's title.
    Step(String),
    /// A build argument.
    BuildArgument,
}

fn add_input(components: &mut Components, role: &str, input: &InputIdentity) {
    let (value, label) = match input {
        InputIdentity::Result { key, label } => (key.to_string(), Some(label.clone())),
        InputIdentity::Files { checksum } => (blake3::Hash::from_bytes(*checksum).to_string(), None),
    };
    let name = if label.is_some() { role.to_owned() } else { format!("{role} files") };
    components.parts.push(Part { name, value, label });
}

/// The identity of "no files".
pub fn scratch_key() -> CacheKey {
    Components::new("scratch").key()
}

/// The identity of an image's file system.
pub fn image_key(id: &ImageId) -> CacheKey {
    let mut components = Components::new("image");
    components.add("id", id.to_string());
    components.key()
}

/// The identity of a downloaded file.
pub fn download_key(content: &Digest, name: &str) -> CacheKey {
    let mut components = Components::new("download");
    components.add("content", content.to_string());
    components.add("name", name);
    components.key()
}

/// Under which the file at an address is kept.
pub fn download_address_key(url: &str) -> CacheKey {
    let mut components = Components::new("download address");
    components.add("url", url);
    components.key()
}

/// Under which what an address gave is kept, though it may give something else by now.
pub fn download_content_key(url: &str, content: &Digest) -> CacheKey {
    let mut components = Components::new("download content");
    components.add("url", url);
    components.add("content", content.to_string());
    components.key()
}

/// The identity of a directory of a git repository. `commit` names what is checked out, `reference` (its full name) leads to it.
pub fn git_key(source: &GitSource, commit: &str, reference: Option<&str>) -> CacheKey {
    let mut components = Components::new("git");
    components.add("commit", commit);
    components.add("directory", source.subdir_parts().collect::<Vec<_>>().join("/"));
    components.add("submodules", source.submodules.to_string());
    components.add("mtime", if source.mtime == GitMtime::Commit { "commit" } else { "checkout" });
    if source.keeps_git_dir() {
        // Both are written in `.git`.
        components.add("reference", reference.unwrap_or_default());
        components.add("remote", SafeUrl::new(&source.remote).to_string());
    }
    components.key()
}

/// The identity of the files of an archive from a web server, or of the one file `context`.
pub fn remote_context_key(content: &Digest) -> CacheKey {
    let mut components = Components::new("remote context");
    components.add("content", content.to_string());
    components.key()
}

/// The identity of two stacks merged.
pub fn merge_key(below: &CacheKey, above: &CacheKey) -> CacheKey {
    let mut components = Components::new("merge");
    components.add("below", below.to_string());
    components.add("above", above.to_string());
    components.key()
}

/// A key whose result must not be taken for an earlier one's (`--no-cache`): `nonce` is new each time.
pub fn fresh_key(key: &CacheKey, nonce: &[u8; 16]) -> CacheKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fresh");
    hasher.update(&key.0);
    hasher.update(nonce);
    CacheKey(*hasher.finalize().as_bytes())
}

/// What `WORKDIR` is made of.
pub fn mkdir(op: &MkdirOp, base: &InputIdentity) -> Components {
    let mut components = Components::new("mkdir");
    components.add("path", op.path.to_string());
    components.add("user", op.user.clone());
    add_input(&mut components, "base", base);
    components
}

/// What a `COPY` or `ADD` is made of. `sources` holds, for each of the op's sources, what it reads (`None` for heredocs, whose content is in the op).
pub fn copy(op: &CopyOp, base: &InputIdentity, sources: &[Option<InputIdentity>]) -> Components {
    let mut components = Components::new("copy");
    components.add("destination", op.destination.clone());
    components.add("working directory", op.workdir.to_string());
    components.add("--chown", op.chown.clone().unwrap_or_default());
    components.add("--chmod", op.chmod.clone().unwrap_or_default());
    components.add("--parents", op.parents.to_string());
    for pattern in &op.exclude {
        components.add("--exclude", pattern.clone());
    }
    let unpack = match op.unpack {
        Unpack::Never => "never",
        Unpack::Local => "local",
        Unpack::Always => "always",
    };
    components.add("unpack", unpack);
    components.add("--link", op.link.to_string());
    if !op.link {
        add_input(&mut components, "base", base);
    }
    for (source, identity) in op.sources.iter().zip(sources) {
        match source {
            CopySource::Path { pattern, .. } => components.add("source", source_name(op, pattern, identity.as_ref())),
            CopySource::Download { .. } => components.add("source", "download"),
            CopySource::Inline { name, content } => {
                components.add("heredoc name", name.clone());
                components.add("heredoc", content.clone());
            }
        }
        if let Some(identity) = identity {
            add_input(&mut components, "source", identity);
        }
    }
    components
}

/// What counts of a source's path. Where its files are known, that is the last name: `a/f` and `./b/f` give the same if they hold the same. Otherwise all of it, without what means
/// the root: `./a` and `/a` are `a`. With `--parents` they are not: `/./` is where names begin.
fn source_name(op: &CopyOp, pattern: &str, identity: Option<&InputIdentity>) -> String {
    if op.parents {
        return pattern.to_owned();
    }
    let whole = RootPath::new(pattern);
    match identity {
        // Of a wildcard, the names that it matches are in the checksum; it stays whole all the same, since a class may name a slash.
        Some(InputIdentity::Files { .. }) if !pattern.contains(['*', '?', '[', '\\']) => {
            whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        _ => whole.relative().display().to_string(),
    }
}

/// What a `RUN` is made of. `inputs` holds what each input after the base is, by position (the base is `base`).
pub fn exec(op: &ExecOp, platform: &Platform, base: &InputIdentity, inputs: &[InputIdentity]) -> Components {
    let mut components = Components::new("exec");
    components.add("command", serde_json::to_string(&op.args).unwrap_or_default());
    for (name, value) in op.env.iter() {
        let label = op.build_args.contains(name).then_some(InputLabel::BuildArgument);
        components.parts.push(Part { name: format!("env {name}"), value: value.clone(), label });
    }
    components.add("working directory", op.workdir.to_string());
    components.add("user", op.user.clone());
    if let Some(hostname) = &op.hostname {
        components.add("host name", hostname.clone());
    }
    components.add("platform", platform.to_string());
    let network = match op.network {
        NetworkMode::Default => "default",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
    };
    components.add("network", network);
    components.add("security", if op.security == SecurityMode::Insecure { "insecure" } else { "sandbox" });
    for (name, required) in &op.devices {
        components.add("device", format!("{name}{}", if *required { ",required" } else { "" }));
    }
    for name in op.extra_hosts.iter() {
        components.add("--add-host", name.clone());
    }
    if let Some(script) = &op.script {
        components.add("heredoc name", script.name.clone());
        components.add("heredoc", script.body.clone());
    }
    for mount in &op.mounts {
        add_mount(&mut components, &mount.target.to_string(), &mount.kind, inputs);
    }
    add_input(&mut components, "base", base);
    components
}

fn add_mount(components: &mut Components, target: &str, kind: &ExecMountKind, inputs: &[InputIdentity]) {
    let name = format!("mount {target}");
    match kind {
        ExecMountKind::Bind { input, source, writable } => {
            components.add(name, format!("bind {source} {}", if *writable { "rw" } else { "ro" }));
            if let Some(identity) = inputs.get(input - 1) {
                add_input(components, &format!("mount {target}"), identity);
            }
        }
        ExecMountKind::Cache { id, sharing, seed, subpath, mode, uid, gid, read_only } => {
            // As in BuildKit: where it is kept counts while that is left to the builder, and what is chosen may be chosen anew.
            let is_default =
                *sharing == CacheSharing::Shared && (id == target || id.split_once('/').is_some_and(|(_, rest)| rest == target));
            let kept = if is_default { format!("{id} shared ") } else { String::new() };
            components.add(name, format!("cache {kept}{mode:o} {uid}:{gid} {read_only}"));
            if let Some(path) = subpath {
                components.add(format!("source {target}"), path.to_string());
            }
            if let Some((input, source)) = seed {
                components.add(format!("seed {target}"), source.clone());
                if let Some(identity) = inputs.get(input - 1) {
                    add_input(components, &format!("seed {target}"), identity);
                }
            }
        }
        ExecMountKind::Tmpfs { size, read_only } => {
            components.add(name, format!("tmpfs {}{}", size.unwrap_or(0), if *read_only { " ro" } else { "" }));
        }
        ExecMountKind::Secret { id, env, file, required, mode, uid, gid } => {
            components.add(name, format!("secret {id} {} {file} {mode:o} {uid}:{gid}{}", env.as_deref().unwrap_or(""), needed(*required)));
        }
        ExecMountKind::Ssh { id, required, mode, uid, gid } => {
            components.add(name, format!("ssh {id} {mode:o} {uid}:{gid}{}", needed(*required)));
        }
    }
}

/// A step that fails without a secret is not one that ran without it.
fn needed(required: bool) -> &'static str {
    if required { " required" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::path::RootPath;

    fn op(args: &[&str], env: &[(&str, &str)]) -> ExecOp {
        ExecOp {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            build_args: Default::default(),
            proxy_env: Vec::new(),
            workdir: RootPath::root(),
            user: String::new(),
            hostname: None,
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            devices: Vec::new(),
            extra_hosts: Arc::default(),
            mounts: Vec::new(),
            script: None,
        }
    }

    fn step(key: CacheKey) -> InputIdentity {
        InputIdentity::Result { key, label: InputLabel::Step("x".into()) }
    }

    fn key(op: &ExecOp) -> CacheKey {
        exec(op, &"linux/amd64".parse().unwrap(), &step(scratch_key()), &[]).key()
    }

    #[test]
    fn argv_env_and_their_borders_are_in_the_key() {
        let run = |args, env| key(&op(args, env));
        let plain = run(&["a", "b"], &[]);
        assert_eq!(plain, run(&["a", "b"], &[]));
        assert_ne!(plain, run(&["a b"], &[]));
        assert_ne!(plain, run(&["a", "b"], &[("A", "")]));
        assert_ne!(run(&["a"], &[("A", "B"), ("C", "D")]), run(&["a"], &[("C", "D"), ("A", "B")]));
    }

    #[test]
    fn everything_else_that_a_command_sees_is_in_its_key() {
        let plain = op(&["a"], &[]);
        let without = key(&plain);
        let cache = |id: &str| crate::graph::ExecMount {
            target: RootPath::new("/c"),
            kind: ExecMountKind::Cache {
                id: id.into(),
                sharing: CacheSharing::Shared,
                seed: None,
                subpath: None,
                mode: 0o755,
                uid: 0,
                gid: 0,
                read_only: false,
            },
        };
        for changed in [
            ExecOp { workdir: RootPath::new("/w"), ..plain.clone() },
            ExecOp { user: "u".into(), ..plain.clone() },
            ExecOp { hostname: Some("h".into()), ..plain.clone() },
            ExecOp { extra_hosts: ["h".to_owned()].into(), ..plain.clone() },
            ExecOp { network: NetworkMode::None, ..plain.clone() },
            ExecOp { security: SecurityMode::Insecure, ..plain.clone() },
            ExecOp { devices: vec![("a/b=c".to_owned(), false)], ..plain.clone() },
            ExecOp { script: Some(crate::graph::InlineScript { name: "S".into(), body: "#!/x".into() }), ..plain.clone() },
            ExecOp { mounts: vec![cache("one")], ..plain.clone() },
        ] {
            assert_ne!(key(&changed), without, "{changed:?}");
        }
        let other_base = exec(&plain, &"linux/amd64".parse().unwrap(), &step(CacheKey([1; 32])), &[]).key();
        let other_platform = exec(&plain, &"linux/arm64".parse().unwrap(), &step(scratch_key()), &[]).key();
        assert!(other_base != without && other_platform != without);
        let of = |id| key(&ExecOp { mounts: vec![cache(id)], ..plain.clone() });
        assert_eq!(of("one"), of("two"));
        assert_ne!(of("/c"), of("one"));
        assert_ne!(of("/c"), of("space//c"));
    }

    #[test]
    fn proxies_are_not_in_the_key() {
        let mut with = op(&["a"], &[]);
        with.proxy_env.push(("http_proxy".into(), "http://proxy".into()));
        assert_eq!(key(&with), key(&op(&["a"], &[])));
    }

    #[test]
    fn a_copy_with_link_does_not_depend_on_its_base() {
        let copy_op = |link| CopyOp {
            sources: vec![CopySource::Inline { name: "f".into(), content: "x".into() }],
            destination: "/f".into(),
            workdir: RootPath::root(),
            chown: None,
            chmod: None,
            parents: false,
            with_way: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
            link,
        };
        let on = |link, base| copy(&copy_op(link), &step(base), &[None]).key();
        assert_eq!(on(true, scratch_key()), on(true, CacheKey([1; 32])));
        assert_ne!(on(false, scratch_key()), on(false, CacheKey([1; 32])));
    }
}

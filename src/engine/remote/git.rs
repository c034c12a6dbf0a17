//! Directories of git repositories: which commit an address means, and its files as a snapshot.
//!
//! Each commit is fetched on its own (`--depth=1`) into a directory that goes with the snapshot being made. No mirror of the repository is kept beside it: the
//! checkout itself stays in the store, so an unchanged commit is never fetched again, and there is nothing that two builds could share, lock or find broken. A
//! server that gives no single commits is asked for all branches and tags.
//!
//! git writes below a scratch directory only. What becomes the snapshot is moved from there through descriptors that do not leave it, and gets modes of its
//! own: 0755 for directories and programs, 0644 for the rest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use url::Url;

use crate::diag::{SafeUrl, Secret};
use crate::graph::{GitMtime, GitSource};
use crate::store::{SnapshotId, SnapshotMeta, Store};
use crate::sys::{Links, RootDir, rename_new};
use crate::task::CancellationToken;

use super::git_command::Git;
pub(super) use super::git_command::GitAccess;
use super::git_error::GitError;

/// Settings of git, some of which are secret.
pub(super) type Settings = Vec<(String, Secret<String>)>;

/// Secrets of a build, by name.
pub(super) type Secrets = BTreeMap<String, Secret<Vec<u8>>>;

/// What an address means at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// What is checked out: the name of a commit, or of an annotated tag.
    pub(super) object: String,
    /// The commit behind it, where that is known already.
    pub(super) commit: Option<String>,
    /// The full name of the reference.
    pub(super) reference: Option<String>,
}

impl Resolved {
    /// What is in the cache key: without `.git`, a tag and its commit are the same.
    pub(super) fn identity(&self, source: &GitSource) -> &str {
        match &self.commit {
            Some(commit) if !source.keeps_git_dir() => commit,
            _ => &self.object,
        }
    }
}

/// Finds out what `source` means. The server is not asked where the address has a whole commit.
pub(super) fn resolve(
    store: &Store,
    access: &GitAccess,
    secrets: &Secrets,
    source: &GitSource,
    cancel: &CancellationToken,
) -> Result<Resolved, GitError> {
    let wanted = source.reference.as_deref();
    let resolved = match wanted {
        Some(commit) if is_commit(commit) => Resolved { object: commit.to_ascii_lowercase(), commit: None, reference: None },
        _ => {
            let workspace = store.prepare()?;
            let scratch = make_scratch(&workspace.scratch_path())?;
            let (url, settings) = address(source, secrets, access)?;
            let git = Git::new(access, &scratch, settings, cancel)?;
            match (ask(&git, &scratch, &url, wanted)?, wanted) {
                (Some(resolved), _) => resolved,
                (None, Some(short)) if is_short_commit(short) => find_commit(&git, &scratch, &url, short)?,
                (None, Some(reference)) => return Err(GitError::NoReference { reference: reference.to_owned() }),
                (None, None) => return Err(GitError::Empty),
            }
        }
    };
    match &source.checksum {
        Some(wanted) if ![Some(&resolved.object), resolved.commit.as_ref()].into_iter().flatten().any(|name| name.starts_with(wanted)) => {
            let found =
                resolved.commit.as_ref().map_or_else(|| resolved.object.clone(), |commit| format!("{} or {commit}", resolved.object));
            Err(GitError::Checksum { wanted: wanted.clone(), found })
        }
        _ => Ok(resolved),
    }
}

/// Makes a snapshot of the files that `source` means.
pub(super) fn checkout(
    store: &Store,
    access: &GitAccess,
    secrets: &Secrets,
    source: &GitSource,
    resolved: &Resolved,
    cancel: &CancellationToken,
) -> Result<SnapshotId, GitError> {
    let snapshot = store.prepare()?;
    let scratch = make_scratch(&snapshot.scratch_path())?;
    let (url, settings) = address(source, secrets, access)?;
    let git = Git::new(access, &scratch, settings, cancel)?;
    let tree = scratch.join("tree");
    let format = if resolved.object.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.run(&scratch, &["init", "--quiet", "--template=", format, "tree"])?;
    git.run(&tree, &["remote", "add", "origin", &url])?;
    let commit = fetch(&git, &tree, source, resolved)?;
    git.run(&tree, &["checkout", "--quiet", "--force", "--detach", &commit])?;
    if source.submodules && tree.join(".gitmodules").symlink_metadata().is_ok_and(|found| found.is_file()) {
        // Servers that give no single commits must give all.
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        let shallow = [&update[..], &["--depth=1"]].concat();
        match git.run(&tree, &shallow) {
            Err(GitError::Failed { .. }) => git.run(&tree, &update)?,
            other => other?,
        };
    }
    let mtime = match source.mtime {
        GitMtime::Checkout => None,
        GitMtime::Commit => git.run(&tree, &["log", "-1", "--format=%ct", "HEAD"])?.trim().parse().ok(),
    };
    let fs_path = snapshot.fs_path();
    move_files(&tree, source, &fs_path)?;
    let failed = |source| GitError::Io { path: fs_path.clone(), source };
    let size = Finish { keep_git: source.keeps_git_dir(), mtime }.directory(&fs_path, false).map_err(failed)?;
    fs::remove_dir_all(&scratch).map_err(|source| GitError::Io { path: scratch, source })?;
    let description = format!("git {source}");
    Ok(snapshot.commit(SnapshotMeta { diff_id: None, size, description })?.id)
}

fn make_scratch(path: &Path) -> Result<PathBuf, GitError> {
    fs::create_dir(path).map_err(|source| GitError::Io { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}

/// Whether a reference is the whole name of a commit (SHA-1 or SHA-256).
fn is_commit(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_short_commit(name: &str) -> bool {
    (4..64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The address as git gets it, which has no password, and the settings that log in instead.
fn address(source: &GitSource, secrets: &Secrets, access: &GitAccess) -> Result<(String, Settings), GitError> {
    if source.is_ssh() {
        return if access.ssh_agent.is_some() { Ok((source.remote.clone(), Vec::new())) } else { Err(GitError::NoAgent) };
    }
    let mut url = source.remote.clone();
    if !url.starts_with("http") {
        return Ok((url, Vec::new()));
    }
    let mut header = None;
    if let Ok(mut parsed) = Url::parse(&url)
        && !parsed.username().is_empty()
    {
        let decode = |text: &str| percent_decoded(text);
        let login = format!("{}:{}", decode(parsed.username()), decode(parsed.password().unwrap_or("")));
        // Neither can fail for an address with a server.
        let _ = (parsed.set_username(""), parsed.set_password(None));
        url = parsed.to_string();
        // Submodules with relative addresses are on the same server.
        header = Some((format!("{}/", parsed.origin().ascii_serialization()), format!("Basic {}", STANDARD.encode(login))));
    }
    let names = [source.host(), source.host().split(':').next().unwrap_or_default()];
    let candidates = names.iter().flat_map(|host| [(format!("GIT_AUTH_HEADER.{host}"), false), (format!("GIT_AUTH_TOKEN.{host}"), true)]);
    for (name, is_token) in candidates.chain([("GIT_AUTH_HEADER".to_owned(), false), ("GIT_AUTH_TOKEN".to_owned(), true)]) {
        let Some(secret) = secrets.get(&name) else { continue };
        let value = header_value(&name, secret)?;
        let value = if is_token { format!("Basic {}", STANDARD.encode(format!("x-access-token:{value}"))) } else { value };
        header = Some((scope(&url), value));
        break;
    }
    let Some((scope, value)) = header else { return Ok((url, Vec::new())) };
    let settings = vec![
        (format!("http.{scope}.extraHeader"), Secret::new(format!("Authorization: {value}"))),
        // git would send the header to wherever it is led.
        ("http.followRedirects".to_owned(), Secret::new("false".to_owned())),
    ];
    Ok((url, settings))
}

/// A secret as the value of a header; an end of line that its file has is no part of it.
pub(super) fn header_value(name: &str, secret: &Secret<Vec<u8>>) -> Result<String, GitError> {
    let bad = || GitError::BadSecret { name: name.to_owned() };
    let text = std::str::from_utf8(secret.expose()).map_err(|_| bad())?.trim_end_matches(['\r', '\n']);
    if text.chars().any(char::is_control) { Err(bad()) } else { Ok(text.to_owned()) }
}

/// For which addresses a token is meant: that of the repository; on github.com, where one token is good for all, all of them.
fn scope(url: &str) -> String {
    let all = ["https://github.com/", "https://www.github.com/"];
    all.into_iter().find(|prefix| url.starts_with(prefix)).unwrap_or(url).to_owned()
}

fn percent_decoded(text: &str) -> String {
    let pairs = url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes()).next().map(|(key, _)| key.into_owned());
    pairs.filter(|_| !text.contains(['&', '='])).unwrap_or_else(|| text.to_owned())
}

/// Asks the server what `wanted` is; branches go before tags, as in git-checkout(1).
fn ask(git: &Git<'_>, scratch: &Path, url: &str, wanted: Option<&str>) -> Result<Option<Resolved>, GitError> {
    let wanted = wanted.unwrap_or("HEAD");
    let peeled = format!("{wanted}^{{}}");
    let said = git.run(scratch, &["ls-remote", "--symref", "--", url, wanted, &peeled])?;
    Ok(choose(&said, wanted))
}

/// Finds `wanted` in what `git ls-remote --symref` says.
fn choose(said: &str, wanted: &str) -> Option<Resolved> {
    let lines: BTreeMap<&str, &str> =
        said.lines().filter_map(|line| line.split_once('\t')).filter(|(left, _)| is_commit(left)).map(|(id, name)| (name, id)).collect();
    let branch = format!("refs/heads/{}", wanted.trim_start_matches("refs/heads/"));
    let tag = format!("refs/tags/{}", wanted.trim_start_matches("refs/tags/"));
    let partial = format!("refs/{}", wanted.trim_start_matches("refs/"));
    if wanted == "HEAD" {
        let symbolic = said.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
        let object = (*lines.get("HEAD")?).to_owned();
        return Some(Resolved { object, commit: None, reference: symbolic.map(str::to_owned) });
    }
    let name = [partial, branch, tag].into_iter().find(|name| lines.contains_key(name.as_str()))?;
    let commit = lines.get(format!("{name}^{{}}").as_str()).map(|id| (*id).to_owned());
    Some(Resolved { object: lines[name.as_str()].to_owned(), commit, reference: Some(name) })
}

/// Finds the commit that a short name means, which takes the history of all branches and tags, but not their files.
fn find_commit(git: &Git<'_>, scratch: &Path, url: &str, short: &str) -> Result<Resolved, GitError> {
    let dir = scratch.join("history");
    let missing = || GitError::NoReference { reference: short.to_owned() };
    git.run(scratch, &["init", "--quiet", "--bare", "--template=", "history"])?;
    git.run(&dir, &["remote", "add", "origin", url])?;
    let fetch = ["fetch", "--progress", "--filter=tree:0", "--no-tags", "origin", ALL_BRANCHES, ALL_TAGS];
    match git.run(&dir, &fetch) {
        // It has the other kind of hash, and no short names that are worth the trouble.
        Err(GitError::Failed { said, .. }) if said.contains("object format") => return Err(missing()),
        other => other?,
    };
    let found = git.run(&dir, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{short}^{{commit}}")]);
    let commit = found.map_err(|error| if matches!(error, GitError::Failed { .. }) { missing() } else { error })?;
    Ok(Resolved { object: commit.trim().to_owned(), commit: None, reference: None })
}

const ALL_BRANCHES: &str = "+refs/heads/*:refs/remotes/origin/*";
const ALL_TAGS: &str = "+refs/tags/*:refs/tags/*";

/// Fetches what was resolved, and gives the name of the commit.
fn fetch(git: &Git<'_>, tree: &Path, source: &GitSource, resolved: &Resolved) -> Result<String, GitError> {
    let by_name = resolved.reference.as_ref().filter(|_| !source.fetch_by_commit).map(|name| format!("+{name}:{name}"));
    let mut failure = None;
    // The reference may have moved since it was resolved, or the server may refuse to give single commits away.
    for what in by_name.iter().map(String::as_str).chain([resolved.object.as_str()]) {
        for depth in [&["--depth=1"][..], &[]] {
            let args = [&["fetch", "--progress", "--no-tags", "--update-head-ok"], depth, &["origin", what]].concat();
            match git.run(tree, &args) {
                Ok(_) => {
                    if let Some(commit) = commit_of(git, tree, &resolved.object)? {
                        return Ok(commit);
                    }
                    break;
                }
                Err(GitError::Failed { action, said }) => {
                    // Servers of files only know nothing of depth.
                    let again = said.contains("shallow") || said.contains("depth");
                    failure.get_or_insert(GitError::Failed { action, said });
                    if !again {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    let all = git.run(tree, &["fetch", "--progress", "--no-tags", "--update-head-ok", "origin", ALL_BRANCHES, ALL_TAGS]);
    match all.map_err(|error| failure.unwrap_or(error)).and_then(|_| commit_of(git, tree, &resolved.object))? {
        Some(commit) => Ok(commit),
        None => Err(GitError::NoCommit { commit: resolved.object.clone() }),
    }
}

/// The commit that an object is, or leads to, if it is here.
fn commit_of(git: &Git<'_>, tree: &Path, object: &str) -> Result<Option<String>, GitError> {
    match git.run(tree, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{object}^{{commit}}")]) {
        Ok(commit) => Ok(Some(commit.trim().to_owned())),
        Err(GitError::Failed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves what `source` wants of the checkout to the snapshot. Links in the way to its directory lead nowhere but into the checkout.
fn move_files(tree: &Path, source: &GitSource, to: &Path) -> Result<(), GitError> {
    let path: PathBuf = source.subdir_parts().collect();
    let shown = || source.subdir.clone().unwrap_or_default();
    let root = RootDir::open(tree).map_err(|source| GitError::Io { path: tree.to_owned(), source })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = root.open_at(&path, flags, Mode::empty(), Links::Follow);
    let directory = directory.map_err(|source| GitError::NoDirectory { path: shown(), source })?;
    let failed = |source: rustix::io::Errno| GitError::Io { path: to.to_owned(), source: source.into() };
    let target = rustix::fs::open(to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        let is_git_dir = name.to_bytes() == b".git" && path.as_os_str().is_empty();
        if !matches!(name.to_bytes(), b"." | b"..") && (!is_git_dir || source.keeps_git_dir()) {
            names.push(name);
        }
    }
    for name in names {
        rename_new(&directory, name.as_c_str(), &target, name.as_c_str()).map_err(failed)?;
    }
    Ok(())
}

/// Gives what was checked out its modes and times, and takes away what git left there for itself.
struct Finish {
    keep_git: bool,
    mtime: Option<i64>,
}

impl Finish {
    /// Returns the bytes of the files. `is_git`: it is `.git` or below. Without recursion: trees may be as deep as somebody cares to make them.
    fn directory(&self, path: &Path, is_git: bool) -> std::io::Result<u64> {
        let mut size = 0;
        let mut directories = vec![(path.to_owned(), is_git)];
        let mut at = 0;
        while let Some((path, is_git)) = directories.get(at).cloned() {
            at += 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let (path, kind, is_git_entry) = (entry.path(), entry.file_type()?, entry.file_name() == ".git");
                if is_git_entry && !self.keep_git {
                    // No file of a repository can be called that: it leads to the repository of a submodule.
                    if kind.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
                } else if is_git && LEFT_BEHIND.iter().any(|name| entry.file_name() == *name) {
                    if kind.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
                } else if kind.is_dir() {
                    directories.push((path, is_git || is_git_entry));
                } else {
                    size += self.file(&path, kind.is_symlink())?;
                }
            }
        }
        // From the innermost, since filling a directory changes its time.
        directories.iter().rev().try_for_each(|(path, _)| self.set_mtime(path))?;
        Ok(size)
    }

    fn file(&self, path: &Path, is_link: bool) -> std::io::Result<u64> {
        let metadata = fs::symlink_metadata(path)?;
        if !is_link {
            let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        self.set_mtime(path)?;
        Ok(metadata.len())
    }

    fn set_mtime(&self, path: &Path) -> std::io::Result<()> {
        let Some(seconds) = self.mtime else { return Ok(()) };
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// What a repository does not need: the last of these say where it was fetched from, and when.
const LEFT_BEHIND: &[&str] = &["FETCH_HEAD", "ORIG_HEAD", "logs", "hooks"];

/// The address for messages.
pub(super) fn shown(source: &GitSource) -> String {
    format!("the repository `{}`", SafeUrl::new(&source.remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn a_branch_goes_before_a_tag_and_a_full_name_before_both() {
        let said = format!("{ONE}\trefs/heads/v1\n{TWO}\trefs/tags/v1\n{ONE}\trefs/heads/x/v1\n");
        let found = |wanted: &str| choose(&said, wanted).map(|found| (found.object, found.reference.unwrap()));
        assert_eq!(found("v1"), Some((ONE.into(), "refs/heads/v1".into())));
        assert_eq!(found("refs/tags/v1"), Some((TWO.into(), "refs/tags/v1".into())));
        assert_eq!(found("tags/v1"), Some((TWO.into(), "refs/tags/v1".into())));
        assert_eq!(found("x/v1"), Some((ONE.into(), "refs/heads/x/v1".into())));
        assert_eq!(found("1"), None, "the end of a name is no name");
    }

    #[test]
    fn an_annotated_tag_is_known_with_its_commit_and_head_with_its_branch() {
        let tag = choose(&format!("{ONE}\trefs/tags/v1\n{TWO}\trefs/tags/v1^{{}}\n"), "v1").unwrap();
        assert_eq!((tag.object.as_str(), tag.commit.as_deref()), (ONE, Some(TWO)));
        let head = choose(&format!("ref: refs/heads/main\tHEAD\n{ONE}\tHEAD\n"), "HEAD").unwrap();
        assert_eq!((head.object.as_str(), head.reference.as_deref()), (ONE, Some("refs/heads/main")));
        assert_eq!(choose("", "HEAD"), None);
    }

    fn header_of(address_text: &str, secrets: &[(&str, &str)]) -> (String, Option<(String, String)>) {
        let source = GitSource::parse(address_text).unwrap().unwrap();
        let secrets = secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.as_bytes().to_vec()))).collect();
        let (url, settings) = address(&source, &secrets, &GitAccess::default()).unwrap();
        (url, settings.first().map(|(key, value)| (key.clone(), value.expose().clone())))
    }

    #[test]
    fn secrets_become_headers_for_their_repository_only() {
        let token = format!("Authorization: Basic {}", STANDARD.encode("x-access-token:t"));
        let key = "http.https://h:1/r.git.extraHeader".to_owned();
        assert_eq!(header_of("https://h:1/r.git", &[]).1, None);
        assert_eq!(header_of("https://h:1/r.git", &[("GIT_AUTH_TOKEN", "t\n")]).1, Some((key.clone(), token.clone())));
        assert_eq!(header_of("https://h:1/r.git", &[("GIT_AUTH_TOKEN", "x"), ("GIT_AUTH_TOKEN.h:1", "t")]).1, Some((key.clone(), token)));
        assert_eq!(header_of("https://h:1/r.git", &[("GIT_AUTH_HEADER", "bearer x")]).1, Some((key, "Authorization: bearer x".into())));
        assert_eq!(header_of("https://h:1/r.git", &[("GIT_AUTH_TOKEN.other", "t")]).1, None);
        assert_eq!(
            header_of("https://github.com/a/b.git", &[("GIT_AUTH_TOKEN", "t")]).1.unwrap().0,
            "http.https://github.com/.extraHeader"
        );
    }

    #[test]
    fn passwords_leave_the_address_before_git_sees_it() {
        let (url, header) = header_of("https://me:p%40ss@h/r.git", &[]);
        assert_eq!(url, "https://h/r.git");
        assert_eq!(header, Some(("http.https://h/.extraHeader".into(), format!("Authorization: Basic {}", STANDARD.encode("me:p@ss")))));
    }

    #[test]
    fn ssh_needs_an_agent() {
        let source = GitSource::parse("git@h:r").unwrap().unwrap();
        assert!(matches!(address(&source, &Secrets::new(), &GitAccess::default()), Err(GitError::NoAgent)));
    }
}

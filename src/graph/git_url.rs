//! Addresses of git repositories, in the forms that BuildKit takes: which text is one, and what it asks for.
//!
//! | form | is a repository |
//! |---|---|
//! | `https://HOST/PATH.git`, `http://HOST/PATH.git` | only with that ending |
//! | `ssh://…`, `git://…` | always |
//! | `USER@HOST:PATH` | always, by ssh |
//! | `github.com/…` | only as a build context, since it may be a path as well |
//! | `file://…` and any other scheme | never |
//!
//! Behind it come `?KEY=VALUE&…` and `#REF:SUBDIR`, which must not contradict each other. What git or ssh could take for an option is refused here. Nothing
//! is asked of any server.

use std::fmt;

use crate::diag::SafeUrl;

/// A directory of a git repository at some commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitSource {
    /// The address, without what follows `?` and `#`. It may hold a password.
    pub remote: String,
    /// The commit, branch, tag or full name of a reference; without one it is the default branch.
    pub reference: Option<String>,
    /// The directory in the repository; without one it is all of it.
    pub subdir: Option<String>,
    /// What the name of the commit (or of the tag) must begin with: hexadecimal digits in lower case.
    pub checksum: Option<String>,
    /// Whether `.git` is kept; `None` where nothing is said of it.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    pub submodules: bool,
    /// When its files count as modified.
    pub mtime: GitMtime,
    /// Whether the commit is asked for by its name instead of the reference's.
    pub fetch_by_commit: bool,
}

/// When the files of a checkout count as modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GitMtime {
    /// When they were checked out.
    #[default]
    Checkout,
    /// When the commit was made.
    Commit,
}

/// Why the address of a repository cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// A key of the query is unknown.
    #[error(
        "the address of a repository has no option `{0}`: expected ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules, mtime or fetch-by-commit"
    )]
    UnknownOption(String),
    /// A key has no value.
    #[error("`{0}=` in the address of the repository has no value")]
    NoValue(String),
    /// A key is there twice.
    #[error("`{0}=` is in the address of the repository more than once")]
    Repeated(String),
    /// A value is none of those that the key takes.
    #[error("`{key}={value}` in the address of the repository: expected {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Two parts of the address want different things.
    #[error("the address of the repository asks for two things: {what} `{one}` and `{other}`")]
    Conflict {
        /// Of which kind.
        what: &'static str,
        /// One.
        one: String,
        /// The other.
        other: String,
    },
    /// No reference can have that name.
    #[error("`{0}` cannot be the name of a branch, tag or commit")]
    BadReference(String),
    /// A checksum that is none.
    #[error("the checksum `{0}` of a repository is no name of a commit: expected hexadecimal digits")]
    BadChecksum(String),
    /// The address cannot be given to git.
    #[error("the address of the repository {0}")]
    BadAddress(&'static str),
}

impl GitSource {
    /// Reads the address of a repository; `None` where the text is none.
    pub fn parse(text: &str) -> Option<Result<GitSource, GitUrlError>> {
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, fragment)| (rest, Some(fragment)));
        let (base, query) = rest.split_once('?').map_or((rest, None), |(base, query)| (base, Some(query)));
        let remote = remote(base)?;
        Some(check_address(&remote).and_then(|()| GitSource::with_options(remote, fragment, query)))
    }

    /// As [`GitSource::parse`], for a build context: `github.com/…` is one too.
    pub fn parse_context(text: &str) -> Option<Result<GitSource, GitUrlError>> {
        if !text.starts_with("github.com/") {
            return GitSource::parse(text);
        }
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, fragment)| (rest, Some(fragment)));
        let (base, query) = rest.split_once('?').map_or((rest, None), |(base, query)| (base, Some(query)));
        let remote = format!("https://{base}");
        Some(check_address(&remote).and_then(|()| GitSource::with_options(remote, fragment, query)))
    }

    /// Whether `.git` is part of the files.
    pub fn keeps_git_dir(&self) -> bool {
        // A directory of the repository is no repository.
        self.keep_git_dir.unwrap_or(false) && self.subdir_parts().next().is_none()
    }

    /// The parts of the path to the directory.
    pub fn subdir_parts(&self) -> impl Iterator<Item = &str> {
        self.subdir.as_deref().unwrap_or("").split('/').filter(|part| !matches!(*part, "" | "."))
    }

    /// The server, with its port where that is given, and without user and password.
    pub fn host(&self) -> &str {
        let after_scheme = self.remote.split_once("://").map(|(_, rest)| rest);
        let authority = match after_scheme {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => self.remote.split(':').next().unwrap_or_default(),
        };
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    /// Whether ssh is what leads to it.
    pub fn is_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    /// Demands a commit that begins with these hexadecimal digits (`ADD --checksum`).
    ///
    /// # Errors
    /// It is no such thing, or the address demands another one.
    pub fn demand(&mut self, checksum: &str) -> Result<(), GitUrlError> {
        if checksum.is_empty() || checksum.len() > 64 || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitUrlError::BadChecksum(checksum.to_owned()));
        }
        let wanted = checksum.to_ascii_lowercase();
        match &self.checksum {
            Some(other) if *other != wanted => Err(GitUrlError::Conflict { what: "the checksums", one: other.clone(), other: wanted }),
            _ => {
                self.checksum = Some(wanted);
                Ok(())
            }
        }
    }

    fn with_options(remote: String, fragment: Option<&str>, query: Option<&str>) -> Result<GitSource, GitUrlError> {
        let mut source = GitSource {
            remote,
            reference: None,
            subdir: None,
            checksum: None,
            keep_git_dir: None,
            submodules: true,
            mtime: GitMtime::Checkout,
            fetch_by_commit: false,
        };
        if let Some(fragment) = fragment {
            let fragment = decoded(fragment, false);
            let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
            source.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            source.subdir = Some(subdir.to_owned()).filter(|text| !text.is_empty());
        }
        source.read_query(query.unwrap_or(""))?;
        if source.reference.is_none() {
            source.reference.clone_from(&source.checksum);
        }
        match &source.reference {
            Some(reference) if !is_reference(reference) => Err(GitUrlError::BadReference(reference.clone())),
            _ => Ok(source),
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitUrlError> {
        let (mut seen, mut tag, mut branch) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key, true), decoded(value, true));
            if seen.contains(&key) {
                return Err(GitUrlError::Repeated(key));
            }
            if value.is_empty() && !matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit") && is_option(&key) {
                return Err(GitUrlError::NoValue(key));
            }
            match key.as_str() {
                "ref" => set(&mut self.reference, "the references", value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => set(&mut self.subdir, "the directories", value)?,
                "checksum" | "commit" => self.demand(&value)?,
                "keep-git-dir" => self.keep_git_dir = Some(boolean("keep-git-dir", value)?),
                "submodules" => self.submodules = boolean("submodules", value)?,
                "fetch-by-commit" => self.fetch_by_commit = boolean("fetch-by-commit", value)?,
                "mtime" => {
                    self.mtime = match value.as_str() {
                        "checkout" => GitMtime::Checkout,
                        "commit" => GitMtime::Commit,
                        _ => return Err(GitUrlError::BadValue { key: "mtime", value, expected: "checkout or commit" }),
                    }
                }
                _ => return Err(GitUrlError::UnknownOption(key)),
            }
            seen.push(key);
        }
        for named in [tag, branch].into_iter().flatten() {
            set(&mut self.reference, "the references", named)?;
        }
        Ok(())
    }
}

impl fmt::Display for GitSource {
    /// The address as people write it, without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SafeUrl::new(&self.remote))?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or("")),
            (reference, Some(subdir)) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or("")),
        }
    }
}

/// The address of a repository in the form that git takes; `None` where it is none.
fn remote(base: &str) -> Option<String> {
    let Some((scheme, rest)) = base.split_once("://") else {
        // `USER@HOST:PATH`. Without a user it could be a file with a colon in its name.
        let (authority, _) = base.split_once(':')?;
        let (user, host) = authority.split_once('@')?;
        let is_name =
            |text: &str, more: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(b as char));
        return (is_name(user, "-_") && is_name(host, "-.")).then(|| base.to_owned());
    };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" if decoded(base, false).ends_with(".git") && rest.contains('/') => {}
        "ssh" | "git" => {}
        _ => return None,
    }
    Some(format!("{scheme}://{rest}"))
}

/// Refuses what git or ssh would take for something else than an address.
fn check_address(remote: &str) -> Result<(), GitUrlError> {
    if remote.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(GitUrlError::BadAddress("has blanks in it"));
    }
    let (authority, path) = match remote.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        None => remote.split_once(':').unwrap_or((remote, "")),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() {
        return Err(GitUrlError::BadAddress("names no server"));
    }
    if path.is_empty() {
        return Err(GitUrlError::BadAddress("names no repository"));
    }
    if [authority, host, path].iter().any(|part| part.starts_with('-')) {
        return Err(GitUrlError::BadAddress("has a part that begins with `-`"));
    }
    Ok(())
}

/// Whether a reference can be called that (a part of the rules of git-check-ref-format(1)), and cannot be taken for an option.
fn is_reference(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains(forbidden)
        && !["..", "@{", "//"].iter().any(|part| name.contains(part))
}

fn is_option(key: &str) -> bool {
    ["ref", "tag", "branch", "subdir", "checksum", "commit", "mtime"].contains(&key)
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Sets what may be said several times, but only in one way.
fn set(place: &mut Option<String>, what: &'static str, value: String) -> Result<(), GitUrlError> {
    match place {
        Some(one) if *one != value => Err(GitUrlError::Conflict { what, one: one.clone(), other: value }),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// A switch; the key alone switches on.
fn boolean(key: &'static str, value: String) -> Result<bool, GitUrlError> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitUrlError::BadValue { key, value, expected: "true or false" }),
    }
}

/// Replaces `%41` by `A`, and in a query `+` by a blank; what is malformed is taken as it is.
fn decoded(text: &str, is_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = || u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok();
        rest = after;
        match (first, digits()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) if is_query => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitSource {
        GitSource::parse(text).expect(text).expect(text)
    }

    #[test]
    fn which_text_is_a_repository() {
        for (text, remote) in [
            ("https://example.com/foo.git", Some("https://example.com/foo.git")),
            ("http://example.com/foo.git", Some("http://example.com/foo.git")),
            ("HTTPS://example.com/foo.git", Some("https://example.com/foo.git")),
            ("https://me:pw@example.com/foo.git#main", Some("https://me:pw@example.com/foo.git")),
            ("https://example.com:8443/a/b.git?ref=x", Some("https://example.com:8443/a/b.git")),
            ("git://example.com/foo", Some("git://example.com/foo")),
            ("ssh://git@example.com:22/foo", Some("ssh://git@example.com:22/foo")),
            ("git@example.com:foo/bar.git", Some("git@example.com:foo/bar.git")),
            ("deploy@example.com:foo", Some("deploy@example.com:foo")),
            ("https://example.com/", None),
            ("https://example.com/foo", None),
            ("https://example.com/foo.git/", None),
            ("https://example.com/foo.git.bar", None),
            ("https://example.com/foo.git:#branch", None),
            ("https://example.com/foo?x=.git", None),
            ("https://example.com/foo#a.git", None),
            ("file:///srv/foo.git", None),
            ("ext::sh -c id", None),
            ("example.com/foo.git", None),
            ("github.com/foo/bar", None),
            ("./foo.git", None),
            (".git", None),
            ("a:b", None),
            ("dir@x/a:b", None),
        ] {
            let found = GitSource::parse(text).map(|source| source.expect(text).remote);
            assert_eq!(found.as_deref(), remote, "{text}");
        }
        let context = GitSource::parse_context("github.com/foo/bar#v1:sub").unwrap().unwrap();
        assert_eq!((context.remote.as_str(), context.subdir.as_deref()), ("https://github.com/foo/bar", Some("sub")));
    }

    #[test]
    fn fragments_and_queries_say_which_part_of_which_commit() {
        for (options, reference, subdir) in [
            ("", None, None),
            ("#main", Some("main"), None),
            ("#release/1.2", Some("release/1.2"), None),
            ("#a/b:c/d", Some("a/b"), Some("c/d")),
            ("#:dir", None, Some("dir")),
            ("#main:", Some("main"), None),
            ("#refs/pull/1/head", Some("refs/pull/1/head"), None),
            ("#a%2Fb", Some("a/b"), None),
            ("?ref=v1.0&subdir=/sub", Some("v1.0"), Some("/sub")),
            ("?branch=a%2Fb", Some("refs/heads/a/b"), None),
            ("?branch=refs/heads/x", Some("refs/heads/x"), None),
            ("?tag=v1", Some("refs/tags/v1"), None),
            ("?commit=ABCDEF12", Some("abcdef12"), None),
            ("?checksum=abc&ref=main", Some("main"), None),
            ("?ref=main#main:x", Some("main"), Some("x")),
        ] {
            for base in ["https://h/r.git", "git@h:r"] {
                let source = parse(&format!("{base}{options}"));
                assert_eq!((source.reference.as_deref(), source.subdir.as_deref()), (reference, subdir), "{options}");
            }
        }
    }

    #[test]
    fn switches_of_the_query() {
        let plain = parse("https://h/r.git");
        assert!(plain.submodules && plain.keep_git_dir.is_none() && !plain.fetch_by_commit && plain.mtime == GitMtime::Checkout);
        let all = parse("https://h/r.git?submodules=0&keep-git-dir&mtime=commit&fetch-by-commit=true&commit=ab");
        assert!(!all.submodules && all.keeps_git_dir() && all.fetch_by_commit && all.mtime == GitMtime::Commit);
        assert_eq!(all.checksum.as_deref(), Some("ab"));
        assert!(parse("https://h/r.git?submodules").submodules);
        assert!(!parse("https://h/r.git?keep-git-dir=1&subdir=x").keeps_git_dir(), "a part of a repository is none");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, part) in [
            ("https://h/r.git?what=x", "no option `what`"),
            ("https://h/r.git?ref=", "`ref=` in the address"),
            ("https://h/r.git?ref=a&ref=b", "more than once"),
            ("https://h/r.git?ref=a#b", "`b` and `a`"),
            ("https://h/r.git?subdir=a#:b", "`b` and `a`"),
            ("https://h/r.git?branch=a&tag=b", "refs/tags/b"),
            ("https://h/r.git?tag=a&ref=b", "refs/tags/a"),
            ("https://h/r.git?mtime=now", "checkout or commit"),
            ("https://h/r.git?keep-git-dir=maybe", "true or false"),
            ("https://h/r.git?checksum=xyz", "hexadecimal"),
            ("https://h/r.git?checksum=a&commit=b", "`a` and `b`"),
            ("https://h/r.git#--upload-pack=id", "cannot be the name"),
            ("https://h/r.git#a..b", "cannot be the name"),
            ("https://h/r.git#a b", "cannot be the name"),
            ("https://h/r.git#a@{1}", "cannot be the name"),
            ("ssh://-oProxyCommand=id/r", "begins with `-`"),
            ("git@h:-x", "begins with `-`"),
            ("git@h:", "names no repository"),
            ("git://h", "names no repository"),
            ("ssh:///r", "names no server"),
            ("git://h/a\nb", "blanks"),
        ] {
            let error = GitSource::parse(text).expect(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let source = parse("https://me:hunter2@h:1/r.git#main:sub");
        assert_eq!(source.to_string(), "https://h:1/r.git#main:sub");
        assert_eq!((source.host(), parse("git@h.x:r").host()), ("h:1", "h.x"));
    }

    #[test]
    fn a_checksum_of_the_instruction_and_one_of_the_address_must_agree() {
        let mut source = parse("https://h/r.git?checksum=abc");
        assert!(source.demand("ABC").is_ok());
        assert!(matches!(source.demand("abd"), Err(GitUrlError::Conflict { .. })));
        assert!(matches!(source.demand("sha256:1"), Err(GitUrlError::BadChecksum(_))));
    }
}

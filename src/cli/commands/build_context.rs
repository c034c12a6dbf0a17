//! `strake build --build-context NAME=VALUE`: which kinds of value there are.

use std::path::PathBuf;

use crate::engine::{BuildContext, ContextSource, Error, Layout};
use crate::graph::{ContextName, ContextNameError, GitSource, RemoteTree};

/// Reads a flag.
pub(super) fn parse(text: &str) -> Result<(ContextName, BuildContext), String> {
    let (name, value) = text.split_once('=').ok_or("expected `NAME=VALUE`")?;
    let name = name.parse().map_err(|error: ContextNameError| error.to_string())?;
    let context = match value.split_once("://") {
        Some(("docker-image", "scratch")) => BuildContext::Scratch,
        Some(("docker-image", image)) => BuildContext::Image(image.parse().map_err(|error: crate::oci::ReferenceError| error.to_string())?),
        Some(("oci-layout", layout)) => BuildContext::Layout(oci_layout(layout)?),
        _ if let Some(tree) = remote(value) => BuildContext::Remote(tree?),
        _ if value.starts_with("target:") => return Err("`target:` is for bake files only".into()),
        Some((scheme, _)) => {
            return Err(format!(
                "`{scheme}://` is no kind of context: expected a directory, `docker-image://`, `oci-layout://`, or an address of a git repository or web server"
            ));
        }
        None if value.is_empty() => return Err("the context has no value".into()),
        None if value == "-" => return Err("a named context cannot be standard input".into()),
        None => BuildContext::Directory(value.into()),
    };
    Ok((name, context))
}

/// What is not on this machine: a git repository, or what a web server has.
fn remote(value: &str) -> Option<Result<RemoteTree, String>> {
    match GitSource::parse_context(value) {
        Some(parsed) => Some(parsed.map(RemoteTree::Git).map_err(|error| error.to_string())),
        None if value.starts_with("http://") || value.starts_with("https://") => Some(Ok(RemoteTree::Http { url: value.to_owned() })),
        None => None,
    }
}

/// The context of a build: a directory, or an address. What exists is a directory, whatever it looks like.
pub(super) fn main_context(path: PathBuf) -> Result<ContextSource, Error> {
    let Some(text) = path.to_str().filter(|_| !path.exists()) else { return Ok(ContextSource::Directory(path)) };
    match remote(text) {
        Some(tree) => Ok(ContextSource::Remote(tree.map_err(|message| Error::Usage { message, hint: None })?)),
        None if text.contains("://") => {
            let scheme = text.split("://").next().unwrap_or_default();
            let message = format!("`{scheme}://` is no kind of context");
            let hint = "give a directory, `-`, or an address that begins with https://, http://, ssh:// or git://";
            Err(Error::Usage { message, hint: Some(hint.into()) })
        }
        None => Ok(ContextSource::Directory(path)),
    }
}

/// The context of `context ls`, which must be on this machine.
pub(super) fn local(path: PathBuf) -> Result<PathBuf, Error> {
    match main_context(path)? {
        ContextSource::Directory(path) => Ok(path),
        ContextSource::Remote(tree) => {
            let hint = "no ignore file applies to it: a build sees all that is there".to_owned();
            Err(Error::Usage { message: format!("`{tree}` is not on this machine, so its files cannot be listed"), hint: Some(hint) })
        }
        ContextSource::Stdin => Ok("-".into()),
    }
}

/// `DIR[:TAG][@DIGEST]`.
fn oci_layout(text: &str) -> Result<Layout, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|error: crate::oci::DigestError| error.to_string())?)),
        None => (text, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
        _ => (rest, None),
    };
    if dir.is_empty() {
        return Err("`oci-layout://` needs a directory".into());
    }
    Ok(Layout { dir: dir.into(), tag, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_what_they_are() {
        let value = |text: &str| parse(&format!("name={text}")).map(|(_, context)| context);
        assert_eq!(value("../dir"), Ok(BuildContext::Directory("../dir".into())));
        assert_eq!(value("docker-image://scratch"), Ok(BuildContext::Scratch));
        assert!(matches!(value("docker-image://alpine:3.20"), Ok(BuildContext::Image(_))));
        let layout =
            |dir: &str, tag: Option<&str>| BuildContext::Layout(Layout { dir: dir.into(), tag: tag.map(str::to_owned), digest: None });
        assert_eq!(value("oci-layout:///x:y/z"), Ok(layout("/x:y/z", None)));
        assert_eq!(value("oci-layout://dir:tag"), Ok(layout("dir", Some("tag"))));
        let remote = |text: &str| match value(text) {
            Ok(BuildContext::Remote(tree)) => tree.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(remote("https://x.test/a.tar.gz"), "https://x.test/a.tar.gz");
        assert_eq!(remote("https://me:pw@x.test/a.git#v1:sub"), "https://x.test/a.git#v1:sub");
        assert_eq!(remote("git@x.test:a"), "git@x.test:a");
        assert_eq!(remote("github.com/a/b"), "https://github.com/a/b");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(matches!(
            value(&format!("oci-layout://dir@{digest}")),
            Ok(BuildContext::Layout(Layout { digest: Some(_), tag: None, .. }))
        ));
    }

    #[test]
    fn what_cannot_be_a_context_is_refused_with_a_reason() {
        for (text, part) in [
            ("name", "NAME=VALUE"),
            ("=x", "not an image reference"),
            ("Upper=x", "lower case"),
            ("n=", "no value"),
            ("n=-", "standard input"),
            ("n=https://x.test/a.git?what=1", "no option `what`"),
            ("n=file:///srv/a.git", "no kind of context"),
            ("n=s3://x", "no kind of context"),
            ("n=target:x", "bake"),
            ("n=docker-image://A", "lower case"),
            ("n=oci-layout://", "needs a directory"),
            ("n=oci-layout://d@sha256:1", "sha256"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

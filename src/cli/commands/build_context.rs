//! `strake build --build-context NAME=VALUE`: which kinds of value there are.

use std::path::PathBuf;

use crate::engine::{BuildContext, Error, Layout};
use crate::graph::{ContextName, ContextNameError};

/// Reads a flag.
pub(super) fn parse(text: &str) -> Result<(ContextName, BuildContext), String> {
    let (name, value) = text.split_once('=').ok_or("expected `NAME=VALUE`")?;
    let name = name.parse().map_err(|error: ContextNameError| error.to_string())?;
    let context = match value.split_once("://") {
        Some(("docker-image", "scratch")) => BuildContext::Scratch,
        Some(("docker-image", image)) => BuildContext::Image(image.parse().map_err(|error: crate::oci::ReferenceError| error.to_string())?),
        Some(("oci-layout", layout)) => BuildContext::Layout(oci_layout(layout)?),
        _ if let Some(place) = remote(value) => return Err(format!("contexts from {place} are not supported yet")),
        _ if value.starts_with("target:") => return Err("`target:` is for bake files only".into()),
        Some((scheme, _)) => {
            return Err(format!("`{scheme}://` is no kind of context: expected a directory, `docker-image://` or `oci-layout://`"));
        }
        None if value.is_empty() => return Err("the context has no value".into()),
        None if value == "-" => return Err("a named context cannot be standard input".into()),
        None => BuildContext::Directory(value.into()),
    };
    Ok((name, context))
}

/// Where a context is fetched from, if it is not here.
fn remote(value: &str) -> Option<&'static str> {
    let begins = |starts: &[&str]| starts.iter().any(|start| value.starts_with(start));
    let is_http = begins(&["http://", "https://"]);
    let is_repository = is_http && value.split(['#', '?']).next().is_some_and(|url| url.ends_with(".git"));
    match () {
        () if is_repository || begins(&["git@", "git://", "ssh://", "github.com/"]) => Some("git"),
        () if is_http => Some("web servers"),
        () => None,
    }
}

/// The context of a build, which must be here. What exists is a directory, whatever it looks like.
pub(super) fn local(path: PathBuf) -> Result<PathBuf, Error> {
    match path.to_str().and_then(remote) {
        Some(place) if !path.exists() => {
            let message = format!("contexts from {place} are not supported yet");
            Err(Error::Usage { message, hint: Some("fetch it, and name the directory that it is in".into()) })
        }
        _ => Ok(path),
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
            ("n=https://x.test/a.tar", "web servers are not supported yet"),
            ("n=https://x.test/a.git", "git are not supported yet"),
            ("n=git@x.test:a", "git are not supported yet"),
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

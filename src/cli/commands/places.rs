//! How places of images are written on the command line: `docker://NAME`, `store:NAME`, `dir:DIR`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`,
//! `docker-daemon:NAME`.
//! What a name without a prefix means is up to the command.

use std::path::PathBuf;

use crate::cli::env;
use crate::engine::{ArchiveFormat, Engine, Error, Place};
use crate::oci::{Digest, Reference};

/// Reads a place, for clap. A path ends at its first colon; a mere name is a registry's.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let reference = |text: &str| text.parse::<Reference>().map_err(|error| error.to_string());
    let file = |rest: &str| match rest.split_once(':') {
        Some((path, name)) => (PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (PathBuf::from(rest), None),
    };
    let named = |rest: &str| if rest.is_empty() || rest.starts_with(':') { Err(format!("`{text}` names no file")) } else { Ok(file(rest)) };
    if let Some(rest) = text.strip_prefix("docker://") {
        return reference(rest).map(Place::Registry);
    }
    match text.split_once(':') {
        Some(("store", "")) => Err("`store:` is followed by the image's name".to_owned()),
        Some(("store", name)) => Ok(Place::Store(name.to_owned())),
        Some(("oci", rest)) => match rest.split_once('@') {
            Some((_, digest)) if digest.parse::<Digest>().is_ok() => {
                Err(format!("`{text}` names an image by its digest: name the tag that it has in the directory, as in `oci:DIR:TAG`"))
            }
            _ => named(rest).map(|(dir, tag)| Place::Layout { dir, tag }),
        },
        Some((kind @ ("oci-archive" | "docker-archive"), rest)) => {
            let format = if kind == "oci-archive" { ArchiveFormat::Oci } else { ArchiveFormat::Docker };
            named(rest).map(|(path, name)| Place::Archive { path, format, name })
        }
        Some(("dir", "")) => Err("`dir:` is followed by a directory".to_owned()),
        Some(("dir", rest)) => Ok(Place::Directory(PathBuf::from(rest))),
        Some(("docker-daemon", name)) => {
            if name.parse::<Digest>().is_err() {
                reference(name)?;
            }
            Ok(Place::Daemon { socket: env::docker_socket()?, name: name.to_owned() })
        }
        Some((kind @ ("containers-storage" | "sif" | "tarball"), _)) => Err(format!(
            "`{kind}:` is not supported: use a registry, `store:`, `dir:`, `oci:`, `oci-archive:`, `docker-archive:` or `docker-daemon:`"
        )),
        _ => reference(text).map(Place::Registry),
    }
}

/// A name at a registry, with `docker://` before it or not, for clap.
pub(super) fn at_registry(text: &str) -> Result<Reference, String> {
    match place(text)? {
        Place::Registry(reference) => Ok(reference),
        other => Err(format!("`{other}` is no name at a registry")),
    }
}

/// The same, where a mere name (or an ID) is the store's.
pub(super) fn stored_place(text: &str) -> Result<Place, String> {
    if has_prefix(text) { place(text) } else { Ok(Place::Store(text.to_owned())) }
}

/// The same, where a mere name is an image of the store, or where the store does not have it, of its registry; with `remote` always of its registry.
pub(super) fn found_place(engine: &Engine, text: &str, remote: bool) -> Result<Place, Error> {
    let usage = |message| Error::Usage { message, hint: None };
    if remote || has_prefix(text) { place(text).map_err(usage) } else { engine.place_of(text) }
}

/// The same of a result's place, where a mere name is in the same store or registry as the image that it was made of.
pub(super) fn place_beside(origin: Option<&Place>, text: &str) -> Result<Place, Error> {
    let read = if matches!(origin, Some(Place::Registry(_))) { place } else { stored_place };
    read(text).map_err(|message| Error::Usage { message, hint: None })
}

/// Whether a place says itself what it is.
pub(super) fn has_prefix(text: &str) -> bool {
    const KINDS: [&str; 9] =
        ["store", "oci", "oci-archive", "docker-archive", "dir", "docker-daemon", "containers-storage", "sif", "tarball"];
    text.starts_with("docker://") || text.split_once(':').is_some_and(|(kind, _)| KINDS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_their_prefix() {
        assert!(matches!(place("debian:12"), Ok(Place::Registry(name)) if name.familiar() == "debian:12"));
        assert!(matches!(place("docker://localhost:5000/a"), Ok(Place::Registry(name)) if name.registry() == "localhost:5000"));
        assert!(matches!(place("store:app:1"), Ok(Place::Store(name)) if name == "app:1"));
        assert!(
            matches!(place("oci:/a/b:v1"), Ok(Place::Layout { dir, tag: Some(tag) }) if dir == std::path::Path::new("/a/b") && tag == "v1")
        );
        assert!(matches!(place("oci:a"), Ok(Place::Layout { tag: None, .. })));
        let named = place("docker-archive:x.tar:acme/app:2");
        assert!(matches!(named, Ok(Place::Archive { format: ArchiveFormat::Docker, name: Some(name), .. }) if name == "acme/app:2"));
        let by_digest = format!("oci:a@sha256:{}", "0".repeat(64));
        assert!(matches!(place("dir:/a/b:c"), Ok(Place::Directory(dir)) if dir == std::path::Path::new("/a/b:c")));
        assert!(matches!(at_registry("docker://debian:12"), Ok(name) if name.familiar() == "debian:12"));
        assert!(at_registry("oci:a").is_err() && at_registry("debian").is_ok());
        assert!(matches!(place("docker-daemon:app:1"), Ok(Place::Daemon { name, .. }) if name == "app:1"));
        for bad in
            [by_digest.as_str(), "dir:", "oci:", "oci::v1", "store:", "docker-daemon:", "docker-daemon:a b", "sif:x", "acme/Upper:1", ""]
        {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn a_mere_name_is_what_the_command_makes_of_it() {
        assert!(matches!(stored_place("debian:12"), Ok(Place::Store(name)) if name == "debian:12"));
        assert!(matches!(stored_place("0123abcd"), Ok(Place::Store(_))));
        assert!(matches!(stored_place("docker://debian:12"), Ok(Place::Registry(_))));
        assert!(matches!(stored_place("oci:a:b"), Ok(Place::Layout { .. })));
        assert!(stored_place("containers-storage:x").is_err());
    }
}

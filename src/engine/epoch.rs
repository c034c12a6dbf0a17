//! The time of a build: `SOURCE_DATE_EPOCH` as BuildKit takes it, and what `--reproducible` takes where nobody gave one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::context::{GitError, commit_time};
use crate::executor::Sources;
use crate::graph::{EpochSource, GitMtime, GitSource, PlanRequest, RemoteTree, SOURCE_DATE_EPOCH, epoch_source};
use crate::image::layer::{MemberKind, TarReader, decompressor};
use crate::oci::{Digest, Platform};
use crate::path::RootPath;
use crate::progress::{Progress, StepOutcome};
use crate::store::Store;
use crate::sys::tree::{Kind, Tree};
use crate::task::{CancellationToken, blocking};

use super::Error;
use super::build::Context;

/// The latest second that a date of an image can have: the end of the year 9999.
const LATEST: i64 = 253_402_300_799;

/// The time of a build.
pub(super) struct Epoch {
    /// In seconds since the epoch, where it has one.
    pub(super) seconds: Option<i64>,
    /// The build arguments, with the time in place of the name of what has it.
    pub(super) build_args: BTreeMap<String, String>,
}

/// What a build's time can come from.
pub(super) struct Origins<'a> {
    /// The build context.
    pub(super) context: &'a Context,
    /// The named contexts that are not on this machine, by name.
    pub(super) named: &'a BTreeMap<String, RemoteTree>,
    /// Where remote files come from.
    pub(super) sources: &'a dyn Sources,
    /// Where fetched files are.
    pub(super) store: &'a Store,
    /// Stops the build.
    pub(super) cancel: &'a CancellationToken,
    /// Where remarks go.
    pub(super) progress: &'a Progress,
}

/// Finds the time of a build. One that is `reproducible` always has one.
///
/// # Errors
/// Mistakes of the Dockerfile, a value that means nothing, and a source that cannot be had.
pub(super) async fn build_epoch(request: &PlanRequest<'_>, reproducible: bool, from: &Origins<'_>) -> Result<Epoch, Error> {
    let mut build_args = request.build_args.clone();
    let mut seconds = None;
    if let Some(source) = epoch_source(request).map_err(Error::Diagnostics)? {
        let is_number = matches!(source, EpochSource::Seconds(_));
        seconds = source_time(source, from).await?;
        if !is_number {
            build_args.insert(SOURCE_DATE_EPOCH.to_owned(), seconds.map(|seconds| seconds.to_string()).unwrap_or_default());
        }
    }
    if reproducible && seconds.is_none() {
        seconds = Some(reproducible_epoch(from).await?);
    }
    Ok(Epoch { seconds, build_args })
}

/// Tells where `SOURCE_DATE_EPOCH` names something else for another of the platforms than for the first: there is one time for all of them.
///
/// # Errors
/// Mistakes of the Dockerfile.
pub(super) fn warn_of_other_times(request: &PlanRequest<'_>, platforms: &[Platform], progress: &Progress) -> Result<(), Error> {
    let of = |platform: &Platform| epoch_source(&PlanRequest { target_platform: platform.clone(), ..request.clone() });
    let Some((first, others)) = platforms.split_first().filter(|(_, others)| !others.is_empty()) else { return Ok(()) };
    let source = of(first).map_err(Error::Diagnostics)?;
    for other in others {
        if of(other).map_err(Error::Diagnostics)? != source {
            progress.warn(format!(
                "{SOURCE_DATE_EPOCH} names a stage that adds something else for {other} than for {first}: the time of what it adds for {first} is that of all images"
            ));
        }
    }
    Ok(())
}

/// The time of what `SOURCE_DATE_EPOCH` names.
async fn source_time(source: EpochSource, from: &Origins<'_>) -> Result<Option<i64>, Error> {
    let Origins { context, progress, .. } = *from;
    let unknown = |what: &str| {
        progress.warn(format!("{SOURCE_DATE_EPOCH} names {what}, which has no time of its own: times are not changed"));
        Ok(None)
    };
    match source {
        EpochSource::Seconds(seconds) => in_range(seconds).map(Some),
        EpochSource::Context => match context {
            Context::Archive(tree, _) => {
                newest_file(&**tree).map_err(|source| Error::Io { action: "read", path: tree.path().to_owned(), source })
            }
            Context::Remote(tree) => remote_time(tree, from).await,
            Context::Directory(_) => unknown("the build context"),
        },
        EpochSource::NamedContext(name) => match from.named.get(&name) {
            Some(tree) => remote_time(tree, from).await,
            None => unknown(&format!("the build context `{name}`")),
        },
        EpochSource::Http { url, checksum } => from_server(&url, checksum.as_ref(), from).await,
        EpochSource::Git(source) => remote_time(&RemoteTree::Git(source), from).await,
        EpochSource::Unknown(value) => Err(Error::Usage {
            message: format!("{SOURCE_DATE_EPOCH} is `{value}`: that is neither a number nor a context or stage"),
            hint: Some("give seconds since 1970, `context`, or the name of a build context or of a stage with one ADD of a URL".into()),
        }),
    }
}

/// A time that images can carry.
pub(super) fn in_range(seconds: i64) -> Result<i64, Error> {
    if (-62_167_219_200..=LATEST).contains(&seconds) {
        return Ok(seconds);
    }
    Err(Error::Usage { message: format!("the time {seconds} is outside of the years 0 to 9999"), hint: None })
}

/// When a server says that a file was changed; where it does not, the time of the newest file in it, should it be an archive.
async fn from_server(url: &str, checksum: Option<&Digest>, from: &Origins<'_>) -> Result<Option<i64>, Error> {
    let Origins { sources, progress, .. } = *from;
    let step = progress.start(format!("[internal] {SOURCE_DATE_EPOCH} of {}", crate::diag::SafeUrl::new(url)), None);
    let download = sources.download(url, checksum, &step).await?;
    step.finish(StepOutcome::Done);
    if let Some(expected) = checksum.filter(|expected| **expected != download.digest) {
        let message = format!("the content of `{}` hashes to {}, not to {expected}", crate::diag::SafeUrl::new(url), download.digest);
        return Err(Error::Usage { message, hint: Some("the file has changed on the server; check it, and correct --checksum".into()) });
    }
    if download.modified.is_some() {
        return Ok(download.modified);
    }
    Ok(blocking(move || newest_in_archive(&download.path)).await)
}

/// The time of remote files: that of the commit, or that of the archive.
async fn remote_time(tree: &RemoteTree, from: &Origins<'_>) -> Result<Option<i64>, Error> {
    let source = match tree {
        RemoteTree::Http { url } => return from_server(url, None, from).await,
        RemoteTree::Git(source) => GitSource { mtime: GitMtime::Commit, ..source.clone() },
    };
    // Everything that is checked out gets the commit's time, the directory with it.
    let output = from.sources.fetch(&RemoteTree::Git(source), from.cancel).await?;
    let Some(top) = output.snapshots.last() else { return Ok(None) };
    let path = from.store.snapshot_path(*top);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) => Ok(Some(std::os::unix::fs::MetadataExt::mtime(&metadata))),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

/// The files of git repositories with the commit's time instead of that at which they are checked out: in a build that has a time, as in BuildKit.
pub(super) fn with_commit_times(tree: RemoteTree) -> RemoteTree {
    match tree {
        RemoteTree::Git(source) => RemoteTree::Git(GitSource { mtime: GitMtime::Commit, ..source }),
        http @ RemoteTree::Http { .. } => http,
    }
}

/// The time of the newest file in an archive; `None` if it is none.
fn newest_in_archive(path: &Path) -> Option<i64> {
    let tar = decompressor(std::fs::File::open(path).ok()?, None).ok()?;
    let mut reader = TarReader::unhashed(tar, 1 << 20);
    let mut newest = None;
    while let Some(member) = reader.next().ok()? {
        if member.kind == MemberKind::File {
            newest = newest.max(Some(member.mtime.0));
        }
    }
    newest
}

/// The time of the newest file of a tree.
fn newest_file(tree: &dyn Tree) -> std::io::Result<Option<i64>> {
    let mut newest = None;
    let mut pending = vec![RootPath::root()];
    while let Some(dir) = pending.pop() {
        for entry in tree.read_dir(&dir)? {
            let path = dir.join(&entry.name);
            match entry.kind {
                Kind::Directory => pending.push(path),
                Kind::File => newest = newest.max(tree.metadata(&path)?.map(|metadata| metadata.mtime.0)),
                _ => {}
            }
        }
    }
    Ok(newest)
}

/// The time of a build that is to be the same everywhere, and nobody gave a time for: that of the commit which the context's work tree has checked out; without one,
/// the epoch itself.
///
/// # Errors
/// There is a repository that cannot be read: taking another time then would give another digest, and nobody would know why.
async fn reproducible_epoch(from: &Origins<'_>) -> Result<i64, Error> {
    let dir = match from.context {
        Context::Directory(dir) => Some(dir.as_path()),
        Context::Remote(tree @ RemoteTree::Git(_)) => return Ok(remote_time(tree, from).await?.unwrap_or(0)),
        Context::Archive(..) | Context::Remote(_) => None,
    };
    let failed = |source: GitError| Error::Commit { source };
    match dir.map(commit_time).transpose().map_err(failed)?.flatten() {
        Some(seconds) => in_range(seconds),
        None => {
            from.progress.message(format!("no {SOURCE_DATE_EPOCH}, and no git commit to take the time from: it is 1970-01-01"));
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_of_an_archive_counts_and_not_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        for (name, kind, mtime) in
            [("d/", tar::EntryType::Directory, 900), ("a", tar::EntryType::Regular, 500), ("b", tar::EntryType::Regular, 300)]
        {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mtime(mtime);
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        tar.into_inner().unwrap();
        assert_eq!(newest_in_archive(&path), Some(500));
        std::fs::write(&path, "no archive").unwrap();
        assert_eq!(newest_in_archive(&path), None);
    }

    #[test]
    fn times_that_no_date_can_say_are_refused() {
        assert!(in_range(0).is_ok() && in_range(-1).is_ok() && in_range(LATEST).is_ok());
        assert!(in_range(LATEST + 1).is_err() && in_range(i64::MIN).is_err());
    }
}

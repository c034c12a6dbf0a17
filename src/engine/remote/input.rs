//! The Dockerfile of a build whose context is not on this machine.
//!
//! It is read from the context, unless `-f` says `-` or has an absolute path, which is one of this machine. A web server may also give the Dockerfile alone: then that is
//! all of the context, and it is called `context`, as for BuildKit. With any context, `-f` may be the address of a Dockerfile. No ignore file applies: what is in a repository or archive was chosen by whoever made it.

use std::path::{Path, PathBuf};

use crate::cache::Output;
use crate::diag::{SafeUrl, SourceFile};
use crate::engine::build::{Context, Input, read_bounded, read_dockerfile, read_stdin};
use crate::engine::{DockerfileSource, Error};
use crate::executor::ops;
use crate::graph::RemoteTree;
use crate::path::RootPath;
use crate::progress::StepOutcome;
use crate::store::Store;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};
use crate::task::{CancellationToken, blocking};

use super::Remotes;

/// The only file of a context that is no archive.
const LONE_FILE: &str = "/context";

impl Remotes {
    /// Reads the Dockerfile of the context `tree`.
    pub(in crate::engine) async fn read_input(
        &self,
        tree: RemoteTree,
        dockerfile: DockerfileSource,
        cancel: &CancellationToken,
    ) -> Result<Input, Error> {
        let name = tree.to_string();
        let file = match dockerfile {
            DockerfileSource::Stdin => blocking(read_stdin).await?,
            DockerfileSource::Read(file) => file,
            DockerfileSource::Path(path) if path.is_absolute() => blocking(move || read_dockerfile(&path)).await?,
            dockerfile => {
                let files = self.load(&tree, cancel).await?;
                let store = self.store.clone();
                blocking(move || find(&store, &files, dockerfile)).await?
            }
        };
        let name = format!("{name}\0{}", file.name());
        Ok(Input { file, path: None, context: Context::Remote(tree), name })
    }

    /// Reads a Dockerfile that a web server has.
    pub(in crate::engine) async fn dockerfile(&self, url: &str) -> Result<SourceFile, Error> {
        let shown = SafeUrl::new(url).to_string();
        let step = self.progress.start(format!("[internal] load build definition from {shown}"), None);
        let found = self.download(url, None, &step).await;
        step.finish(if found.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        let path = found?.path;
        blocking(move || {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(&path).and_then(|file| read_bounded(file, &mut bytes));
            read.map_err(|source| Error::Dockerfile { path: PathBuf::from(&shown), source })?;
            Ok(SourceFile::from_bytes(shown, bytes))
        })
        .await
    }

    async fn load(&self, tree: &RemoteTree, cancel: &CancellationToken) -> Result<Output, Error> {
        let step = self.progress.start(format!("[internal] load {tree}"), None);
        let loaded = self.fetch(tree, cancel).await;
        step.finish(if loaded.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        Ok(loaded?)
    }
}

/// Finds and reads the Dockerfile in the files of a context.
fn find(store: &Store, files: &Output, dockerfile: DockerfileSource) -> Result<SourceFile, Error> {
    let view = ops::view(store, &files.snapshots)?;
    let failed = |path: &Path, source| Error::Dockerfile { path: path.to_owned(), source };
    let is_file = |path: &RootPath| -> std::io::Result<bool> {
        let found = resolve(&view, path, LastLink::Follow)?;
        Ok(view.metadata(&found)?.is_some_and(|found| found.kind == Kind::File))
    };
    let lone = RootPath::new(LONE_FILE);
    let root = RootPath::root();
    let is_lone = view.read_dir(&root).is_ok_and(|entries| entries.len() == 1) && is_file(&lone).unwrap_or(false);
    let path = match dockerfile {
        _ if is_lone => PathBuf::from("context"),
        DockerfileSource::Path(path) => path,
        _ => {
            let usual = ["Dockerfile", "dockerfile"].into_iter().find(|name| is_file(&root.join(name)).unwrap_or(false));
            PathBuf::from(usual.unwrap_or("Dockerfile"))
        }
    };
    // Read through the tree, so that a link in it cannot name a file of this machine.
    let opened = resolve(&view, &RootPath::new(&path), LastLink::Follow).and_then(|found| view.open(&found));
    let mut bytes = Vec::new();
    opened.and_then(|file| read_bounded(file, &mut bytes)).map_err(|source| failed(&path, source))?;
    Ok(SourceFile::from_bytes(path.display().to_string(), bytes))
}

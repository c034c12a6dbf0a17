//! What a build reads of the user's: the Dockerfile, the build context, and what stands in for stages and images.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::{Archive, LocalContext, StdinInput, sniff_stdin};
use crate::diag::SourceFile;
use crate::engine::epoch::with_commit_times;
use crate::engine::remote::Remotes;
use crate::engine::{Engine, Error};
use crate::graph::{BuildGraph, ContextName, GitSource, NamedContext, NamedContexts, Op, RemoteTree, SourceOp};
use crate::image::load::Layout;
use crate::store::{ActiveSnapshot, Store};
use crate::task::{CancellationToken, blocking};

use super::{BuildContext, ContextSource, DockerfileSource};

/// What was read of the user's input.
pub(in crate::engine) struct Input {
    pub(in crate::engine) file: SourceFile,
    /// The Dockerfile on disk, for its ignore file.
    pub(in crate::engine) path: Option<PathBuf>,
    pub(in crate::engine) context: Context,
    pub(in crate::engine) name: String,
}

/// The files of a build, before it is known whether any step wants them.
pub(in crate::engine) enum Context {
    Directory(PathBuf),
    /// Unpacked in a snapshot that is never committed.
    Archive(Box<LocalContext>, ActiveSnapshot),
    /// Not on this machine: the graph has it.
    Remote(RemoteTree),
}

impl Context {
    /// Where the files are, if not on this machine.
    pub(in crate::engine) fn remote(&self) -> Option<RemoteTree> {
        match self {
            Context::Remote(tree) => Some(tree.clone()),
            _ => None,
        }
    }
}

impl Engine {
    /// Reads the Dockerfile, wherever it is, and finds the files of the build.
    pub(in crate::engine) async fn read_input(
        &self,
        context: ContextSource,
        dockerfile: DockerfileSource,
        remotes: &Remotes,
        cancel: &CancellationToken,
    ) -> Result<Input, Error> {
        let dockerfile = match dockerfile {
            DockerfileSource::Url(url) => DockerfileSource::Read(remotes.dockerfile(&url).await?),
            dockerfile => dockerfile,
        };
        match context {
            ContextSource::Remote(tree) => remotes.read_input(tree, dockerfile, cancel).await,
            // One small file, read in less time than another thread would need to begin.
            ContextSource::Directory(_) if !matches!(dockerfile, DockerfileSource::Stdin) => read_input(context, dockerfile, &self.store),
            context => {
                let store = self.store.clone();
                blocking(move || read_input(context, dockerfile, &store)).await
            }
        }
    }
}

/// The context as steps read it, and what must live as long.
pub(super) struct OpenContext {
    pub(super) tree: Option<Arc<LocalContext>>,
    _dir: Option<ActiveSnapshot>,
}

/// Opens the context if a step reads it: a build without COPY does not care what is in its directory.
pub(super) fn open_context(context: Context, dockerfile: Option<&Path>, graph: &BuildGraph) -> Result<OpenContext, Error> {
    let wanted = graph.nodes().any(|id| matches!(graph.node(id).op, Op::Source(SourceOp::Context { name: None })));
    match context {
        Context::Directory(dir) if wanted => Ok(OpenContext { tree: Some(Arc::new(LocalContext::open(&dir, dockerfile)?)), _dir: None }),
        Context::Archive(tree, dir) => Ok(OpenContext { tree: Some(Arc::new(*tree)), _dir: Some(dir) }),
        Context::Directory(_) | Context::Remote(_) => Ok(OpenContext { tree: None, _dir: None }),
    }
}

/// The named contexts, as far as the graph knows them.
pub(in crate::engine) fn named_contexts(given: &[(ContextName, BuildContext)]) -> NamedContexts {
    let kind = |context: &BuildContext| match context {
        BuildContext::Directory(_) => NamedContext::Directory,
        BuildContext::Image(reference) => NamedContext::Image(reference.clone()),
        BuildContext::Layout(_) => NamedContext::Layout,
        BuildContext::Scratch => NamedContext::Scratch,
        BuildContext::Remote(tree) => NamedContext::Remote(tree.clone()),
    };
    given.iter().map(|(name, context)| (name.clone(), kind(context))).collect()
}

/// The named contexts that are directories with an image, by name.
pub(in crate::engine) fn layouts(given: &[(ContextName, BuildContext)]) -> BTreeMap<String, Layout> {
    let layout = |(name, context): &(ContextName, BuildContext)| match context {
        BuildContext::Layout(layout) => Some((name.to_string(), layout.clone())),
        _ => None,
    };
    given.iter().filter_map(layout).collect()
}

/// Refuses named contexts that are no directories, also where no step reads them: whoever gave one meant something.
pub(super) fn check_named(given: &[(ContextName, BuildContext)]) -> Result<(), Error> {
    for (name, context) in given {
        if let BuildContext::Directory(dir) = context {
            let named = |source| Error::NamedContext { name: name.to_string(), source };
            LocalContext::with_rules(dir, crate::context::IgnoreRules::default(), crate::context::Owners::Root).map_err(named)?;
        }
    }
    Ok(())
}

/// Opens the named contexts that a step reads, each with the ignore file that it has itself.
pub(super) fn open_named(given: &[(ContextName, BuildContext)], graph: &BuildGraph) -> Result<BTreeMap<String, Arc<LocalContext>>, Error> {
    let mut opened = BTreeMap::new();
    let named = |id| match &graph.node(id).op {
        Op::Source(SourceOp::Context { name }) => name.clone(),
        _ => None,
    };
    for wanted in graph.nodes().filter_map(named) {
        // The last one of a name counts.
        let found = given.iter().rev().find(|(name, _)| name.to_string() == wanted);
        let Some((name, BuildContext::Directory(dir))) = found else { continue };
        let context = LocalContext::open(dir, None).map_err(|source| Error::NamedContext { name: name.to_string(), source })?;
        opened.insert(wanted, Arc::new(context));
    }
    Ok(opened)
}

fn read_input(context: ContextSource, dockerfile: DockerfileSource, store: &Store) -> Result<Input, Error> {
    match (context, dockerfile) {
        (ContextSource::Stdin, DockerfileSource::Stdin) => {
            let hint = "one of them must come from a file".to_owned();
            Err(Error::Usage { message: "context and Dockerfile cannot both be standard input".into(), hint: Some(hint) })
        }
        (ContextSource::Stdin, dockerfile) => match sniff_stdin(std::io::stdin())? {
            StdinInput::Dockerfile(_) if !matches!(dockerfile, DockerfileSource::Default) => {
                let hint = "leave `-f` out, or give an archive or a directory as the context".to_owned();
                Err(Error::Usage { message: "there are two Dockerfiles: standard input and that of `-f`".into(), hint: Some(hint) })
            }
            // Its context is a directory without files.
            StdinInput::Dockerfile(text) => {
                let dir = store.prepare()?;
                let context = Context::Archive(Box::new(LocalContext::open(&dir.fs_path(), None)?), dir);
                Ok(Input { file: SourceFile::new("-", text), path: None, context, name: "stdin".into() })
            }
            StdinInput::Archive(archive) => read_archive(archive, dockerfile, store),
        },
        (ContextSource::Remote(tree), _) => Err(Error::Usage { message: format!("`{tree}` is not on this machine"), hint: None }),
        (ContextSource::Directory(dir), DockerfileSource::Stdin) => {
            check_directory(&dir)?;
            let file = read_stdin()?;
            let name = dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string();
            Ok(Input { file, path: None, context: Context::Directory(dir), name })
        }
        (ContextSource::Directory(dir), DockerfileSource::Read(file)) => {
            check_directory(&dir)?;
            let name = format!("{}\0{}", dir.canonicalize().unwrap_or_else(|_| dir.clone()).display(), file.name());
            Ok(Input { file, path: None, context: Context::Directory(dir), name })
        }
        (ContextSource::Directory(dir), dockerfile) => {
            check_directory(&dir)?;
            let path = find_dockerfile(&dir, &dockerfile);
            let file = read_dockerfile(&path)?;
            let name = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            let name = format!("{}\0{}", name.display(), path.display());
            Ok(Input { file, path: Some(path), context: Context::Directory(dir), name })
        }
    }
}

/// A Dockerfile from standard input.
pub(in crate::engine) fn read_stdin() -> Result<SourceFile, Error> {
    let mut bytes = Vec::new();
    read_bounded(std::io::stdin().lock(), &mut bytes).map_err(|source| Error::Dockerfile { path: "-".into(), source })?;
    Ok(SourceFile::from_bytes("-", bytes))
}

/// `--build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR`: the context keeps its `.git`.
pub(in crate::engine) fn keep_git_dir(context: ContextSource, build_args: &BTreeMap<String, String>) -> ContextSource {
    let is_on = build_args.get(KEEP_GIT_ARGUMENT).is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    match context {
        ContextSource::Remote(RemoteTree::Git(source)) if is_on => {
            ContextSource::Remote(RemoteTree::Git(GitSource { keep_git_dir: Some(true), ..source }))
        }
        context => context,
    }
}

/// Contexts with the time of the commit where they are from git.
pub(super) fn dated(context: ContextSource, named: Vec<(ContextName, BuildContext)>) -> (ContextSource, Vec<(ContextName, BuildContext)>) {
    let context = match context {
        ContextSource::Remote(tree) => ContextSource::Remote(with_commit_times(tree)),
        context => context,
    };
    let dated = |context| match context {
        BuildContext::Remote(tree) => BuildContext::Remote(with_commit_times(tree)),
        context => context,
    };
    (context, named.into_iter().map(|(name, context)| (name, dated(context))).collect())
}

/// The named contexts that are not on this machine, by name.
pub(super) fn remote_contexts(given: &[(ContextName, BuildContext)]) -> BTreeMap<String, RemoteTree> {
    let remote = |(name, context): &(ContextName, BuildContext)| match context {
        BuildContext::Remote(tree) => Some((name.to_string(), tree.clone())),
        _ => None,
    };
    given.iter().filter_map(remote).collect()
}

/// The build argument that keeps `.git` in a context from git.
const KEEP_GIT_ARGUMENT: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

fn check_directory(dir: &Path) -> Result<(), Error> {
    // Opening says what is wrong with it in words, whether a step reads it or not.
    LocalContext::with_rules(dir, crate::context::IgnoreRules::default(), crate::context::Owners::Root)?;
    Ok(())
}

pub(in crate::engine) fn find_dockerfile(dir: &Path, dockerfile: &DockerfileSource) -> PathBuf {
    match dockerfile {
        DockerfileSource::Path(path) if path.is_absolute() || path.exists() || !dir.join(path).exists() => path.clone(),
        DockerfileSource::Path(path) => dir.join(path),
        _ => {
            let (upper, lower) = (dir.join("Dockerfile"), dir.join("dockerfile"));
            if !upper.exists() && lower.exists() { lower } else { upper }
        }
    }
}

/// How large a Dockerfile may be: far more than anyone writes, and far less than `/dev/zero`.
const MAX_DOCKERFILE: u64 = 256 << 20;

pub(in crate::engine) fn read_bounded(reader: impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    reader.take(MAX_DOCKERFILE + 1).read_to_end(bytes)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_DOCKERFILE >> 20)));
    }
    Ok(())
}

pub(in crate::engine) fn read_dockerfile(path: &Path) -> Result<SourceFile, Error> {
    let failed = |source| Error::Dockerfile { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    read_bounded(std::fs::File::open(path).map_err(failed)?, &mut bytes).map_err(failed)?;
    let name = path.strip_prefix("./").unwrap_or(path).display().to_string();
    Ok(SourceFile::from_bytes(name, bytes))
}

fn read_archive(archive: Archive, dockerfile: DockerfileSource, store: &Store) -> Result<Input, Error> {
    let dir = store.prepare()?;
    let context = archive.into_context(&dir.fs_path())?;
    let relative = match dockerfile {
        DockerfileSource::Read(file) => {
            return Ok(Input { file, path: None, context: Context::Archive(Box::new(context), dir), name: "stdin".into() });
        }
        DockerfileSource::Path(path) => path,
        _ => PathBuf::from("Dockerfile"),
    };
    // Read through the tree, so that a link in the archive cannot name a file of this machine.
    let in_tree = crate::path::RootPath::new(&relative);
    let failed = |source| Error::Dockerfile { path: relative.clone(), source };
    let resolved = crate::sys::tree::resolve(&context, &in_tree, crate::sys::tree::LastLink::Follow).map_err(failed)?;
    let file = crate::sys::tree::Tree::open(&context, &resolved).map_err(failed)?;
    let mut bytes = Vec::new();
    read_bounded(file, &mut bytes).map_err(failed)?;
    let file = SourceFile::from_bytes(relative.display().to_string(), bytes);
    Ok(Input { file, path: None, context: Context::Archive(Box::new(context), dir), name: "stdin".into() })
}

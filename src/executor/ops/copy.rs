//! COPY and ADD: puts files into a new layer, with neither a mount nor a process.
//!
//! What surprises: a directory gives its contents, not itself; a destination that exists keeps its owner and mode, but directories below it take the
//! source's; the destination and the parents made for it get `--chown` and the number of `--chmod` too (not where an archive is unpacked), and pass on the group
//! of a directory with set-group-ID; the destination gets the time of the directory whose contents it gets; a link at the destination is followed, a link inside
//! of what is being merged is replaced. `.dockerignore` is the caller's: the source tree has applied it already.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::add_archive;
use super::archive_plan::Plan;
use super::error::Error;
use super::layer_diff::LayerDiff;
use super::select::{Naming, SourceRoot, select};
use super::share::Sharing;
use super::upper::{Attributes, Existing, MadeDirectory, Mtime, Over, Upper, UpperDir};
use super::walk::{Rules, Walk};
use crate::context::IgnoreRules;
use crate::graph::FileMode;
use crate::image::layer::{KnownFiles, LayerEntries, LayerOptions, LayerStream, LayerWritten, Member, diff_id_knowing};
use crate::path::RootPath;
use crate::store::view::MergedView;
use crate::store::{ContentCopier, write_all};
use crate::sys::tree::{DirEntry, Kind, LastLink, Metadata, Tree, resolve};

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Which sources are unpacked instead of copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unpack {
    /// None: COPY, and `ADD --unpack=false`.
    Never,
    /// Local files that turn out to be tar archives: ADD.
    Sniff,
    /// Downloads too: `ADD --unpack`. What is no archive is copied.
    Always,
}

/// What to copy.
#[derive(Clone)]
pub enum CopySource {
    /// Files of a context, an image or a stage.
    Tree {
        /// Where they are.
        tree: Arc<dyn Tree>,
        /// Which: a path or a wildcard, as written after expansion.
        pattern: String,
    },
    /// A here-document.
    File {
        /// Its name in a destination directory.
        name: String,
        /// Its content.
        content: Vec<u8>,
        /// Its mode.
        mode: u32,
    },
    /// A file of this machine, such as a download.
    HostFile {
        /// Where it is.
        path: PathBuf,
        /// Its name in a destination directory.
        name: String,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// When it was modified, where that is known.
        mtime: Option<(i64, u32)>,
    },
}

/// A COPY or ADD instruction.
#[derive(Clone)]
pub struct CopyRequest {
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Where to, as written after expansion: whether it ends in a slash matters.
    pub destination: String,
    /// What a relative destination starts from.
    pub workdir: RootPath,
    /// `--chown`.
    pub chown: Option<Owner>,
    /// `--chmod`.
    pub chmod: Option<FileMode>,
    /// `--parents`.
    pub parents: bool,
    /// With `parents`: links on the way to a source are copied, too, and followed. No wildcards.
    pub with_way: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `--link`: the base is taken for empty, so that the layer does not depend on it.
    pub link: bool,
    /// What is unpacked.
    pub unpack: Unpack,
    /// How many bytes the files of one archive may have together; `None` is as many as those of a layer.
    pub max_unpacked: Option<u64>,
    /// The time of what has none of its own (made directories, here-documents): seconds and nanoseconds since the epoch. `None` is now.
    pub created_time: Option<(i64, u32)>,
}

impl CopyRequest {
    /// Fills an empty tree with `source`, as it is.
    pub fn fill(source: CopySource) -> CopyRequest {
        CopyRequest {
            sources: vec![source],
            destination: "/".to_owned(),
            workdir: RootPath::root(),
            chown: None,
            chmod: None,
            parents: false,
            with_way: false,
            exclude: Vec::new(),
            link: true,
            unpack: Unpack::Never,
            max_unpacked: None,
            created_time: None,
        }
    }
}

/// How many bytes of an unpacked archive are kept for its diff ID.
const MAX_KNOWN: usize = 64 << 20;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many entries were made, without the destination's parents.
    pub entries: u64,
    /// How many bytes of content were copied.
    pub bytes: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// A file that others have changed since the source was listed: what was copied is not what its checksum was made of.
    pub changed: Option<RootPath>,
    /// The layer as a stream, where that was asked for and came out on the way.
    pub layer: Option<LayerWritten>,
}

/// Copies into the empty directory `upper`, which becomes a snapshot in overlay form above `base`. After an error, `upper` is garbage.
pub fn copy(base: &MergedView, upper: &Path, request: &CopyRequest) -> Result<Copied, Error> {
    copy_with(base, upper, request, Aids::default())
}

/// What else a copy may have and give.
#[derive(Clone, Copy, Default)]
pub struct Aids<'a> {
    /// An earlier snapshot to share with what did not change.
    pub sharing: Option<&'a Sharing<'a>>,
    /// How the layer is made a stream, if its diff ID is wanted ([`Copied::layer`]).
    pub diff: Option<&'a LayerOptions>,
}

/// The same with `aids`.
pub fn copy_with(base: &MergedView, upper: &Path, request: &CopyRequest, aids: Aids<'_>) -> Result<Copied, Error> {
    let nothing;
    let base = if request.link {
        nothing = base.without_layers();
        &nothing
    } else {
        base
    };
    let layer = upper;
    let upper = Upper::open(base, upper)?;
    let destination = Destination::new(base, request)?;
    let mut copied = Copied::default();
    let diff = aids.diff.map(|options| (layer, options));
    let known = copy_sources(&upper, &destination, request, (aids.sharing, diff), &mut copied)?;
    let finished = upper.finish()?;
    copied.layer = copied.layer.filter(|_| finished.as_promised);
    if let (Some(known), Some((layer, options))) = (known, diff) {
        // Should this fail, whoever needs the layer as a stream will be told why.
        copied.layer = diff_id_knowing(layer, base.layers(), options, known).ok();
    }
    copied.warnings = finished.warnings;
    Ok(copied)
}

/// Where the sources go.
struct Destination {
    path: RootPath,
    /// It is a directory whatever is there: it was written as one.
    is_directory: bool,
}

impl Destination {
    fn new(base: &MergedView, request: &CopyRequest) -> Result<Destination, Error> {
        let written = request.destination.as_str();
        let last = written.rsplit('/').next().unwrap_or_default();
        let path = request.workdir.join(written);
        let path = resolve(base, &path, LastLink::Follow).map_err(|source| Error::ReadBase { path, source })?;
        let is_directory = matches!(last, "" | ".") || request.parents || path.is_root();
        Ok(Destination { path, is_directory })
    }
}

struct Copier<'a> {
    upper: &'a Upper<'a>,
    destination: &'a Destination,
    request: &'a CopyRequest,
    sharing: Option<&'a Sharing<'a>>,
    /// The layer's directory, and how it is made a stream: where it may be found out while it is written.
    diff: Option<(&'a Path, &'a LayerOptions)>,
    /// Whether there is one source only, so that the destination is its own.
    is_alone: bool,
    rules: Rules,
    content: ContentCopier,
    made: MadeDirectory,
    /// How many sources became the file that the destination names.
    onto_file: Cell<usize>,
    /// How many files that sources name themselves a pattern of `--exclude` would be about, and what the first of them is called.
    not_excluded: Cell<Option<(usize, OsString)>>,
    /// What the only source unpacked.
    unpacked: Cell<Option<KnownFiles>>,
}

fn copy_sources(
    upper: &Upper<'_>,
    destination: &Destination,
    request: &CopyRequest,
    (sharing, diff): (Option<&Sharing<'_>>, Option<(&Path, &LayerOptions)>),
    copied: &mut Copied,
) -> Result<Option<KnownFiles>, Error> {
    let exclude = IgnoreRules::from_patterns(request.exclude.iter().map(String::as_str), "--exclude").map_err(Error::Select)?;
    let existing = if request.parents { Existing::Keep } else { Existing::Overwrite };
    let rules = Rules { chown: request.chown, chmod: request.chmod.clone(), exclude, existing };
    let made = made_directory(request);
    let content = ContentCopier::default();
    // Several sources are not written in the order of a stream.
    let is_alone = request.sources.len() == 1;
    let diff = diff.filter(|_| is_alone && !request.parents);
    let (onto_file, not_excluded, unpacked) = (Cell::new(0), Cell::default(), Cell::default());
    let mut copier =
        Copier { upper, destination, request, sharing, diff, is_alone, rules, content, made, onto_file, not_excluded, unpacked };
    for source in &request.sources {
        match source {
            CopySource::Tree { tree, pattern } => {
                let roots = select(tree.as_ref(), pattern, Naming::of(request.parents, request.with_way))?;
                copier.is_alone = is_alone && roots.len() == 1;
                copier.diff = diff.filter(|_| copier.is_alone);
                if roots.is_empty() && request.parents {
                    upper.enter_all(&destination.path, &copier.made)?;
                }
                for root in roots {
                    copier.root(tree.as_ref(), &root, copied)?;
                }
            }
            CopySource::File { name, content, mode } => copier.here_document(name, content, *mode, copied)?,
            CopySource::HostFile { path, name, mode, uid, gid, mtime } => {
                let owner = request.chown.unwrap_or(Owner { uid: *uid, gid: *gid });
                copier.host_file(path, name, *mode, owner, *mtime, copied)?;
            }
        }
    }
    if copier.onto_file.get() > 1 {
        upper.warn(format!(
            "{} sources were copied to the file `{}`, so only the last is left: end the destination with `/` for a directory",
            copier.onto_file.get(),
            destination.path
        ));
    }
    if let Some((count, first)) = copier.not_excluded.take() {
        let others = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        let first = first.display();
        upper.warn(format!(
            "`--exclude` has a say in what is in directories: `{first}`{others}, which a source names itself, was copied all the same"
        ));
    }
    Ok(copier.unpacked.take())
}

/// The mode of directories that are made for the destination.
const MADE_MODE: u32 = 0o755;

/// What directories get that are made for the destination.
fn made_directory(request: &CopyRequest) -> MadeDirectory {
    let mode = request.chmod.as_ref().map_or(MADE_MODE, FileMode::of_made_directories);
    MadeDirectory { mode, owner: request.chown, mtime: made_time(request) }
}

/// The time of what has none of its own.
fn made_time(request: &CopyRequest) -> Mtime {
    request.created_time.map_or(Mtime::Now, Mtime::At)
}

impl Copier<'_> {
    fn root(&self, tree: &dyn Tree, root: &SourceRoot, copied: &mut Copied) -> Result<(), Error> {
        let is_directory = root.metadata.kind == Kind::Directory;
        let base = root.exclude_base(self.request.parents);
        let mut walk = Walk::new(self.upper, tree, &self.rules, &self.content, base);
        walk.sharing = self.sharing.filter(|_| tree.checksums_cover_xattrs());
        if self.request.parents {
            if walk.excludes(&root.path, root.metadata.kind)? {
                return Ok(());
            }
            self.below_parents(&walk, root)?;
        } else if is_directory {
            let directory = self.upper.enter_all(&self.destination.path, &self.made)?;
            directory.set_mtime(self.time_of(&root.path, &root.metadata));
            walk.diff = self.begin_diff(&directory, || self.gets_entries(&directory, tree, &root.path));
            walk.contents(&root.path, directory)?;
        } else if root.metadata.kind == Kind::File && self.request.unpack != Unpack::Never {
            let open = || tree.open(&root.path).map_err(|source| Error::Read { path: root.path.clone(), source });
            if self.unpack(open, copied)? {
                walk.is_as_listed(&root.path, &open()?, &root.metadata);
            } else {
                self.file(&walk, root)?;
            }
        } else {
            self.file(&walk, root)?;
        }
        if !self.request.parents && !is_directory && self.excludes_name(&root.name) {
            let (count, first) = self.not_excluded.take().unwrap_or_else(|| (0, root.name.clone()));
            self.not_excluded.set(Some((count + 1, first)));
        }
        let (entries, bytes) = walk.totals();
        copied.entries += entries;
        copied.bytes += bytes;
        copied.changed = copied.changed.take().or_else(|| walk.changed());
        if let Some(diff) = walk.diff {
            copied.layer = diff.finish();
        }
        Ok(())
    }

    /// Whether a pattern of `--exclude` would be about a file of this name.
    fn excludes_name(&self, name: &OsStr) -> bool {
        self.rules.exclude.decide(name.as_encoded_bytes()).ignored
    }

    /// The time of the directory that gets the contents of the directory `source`: that one's, whether it was there before or not. A tree's own root has the time at which
    /// somebody put it there.
    fn time_of(&self, source: &RootPath, metadata: &Metadata) -> Mtime {
        match self.request.created_time {
            None if !source.is_root() => Mtime::At(metadata.mtime),
            _ => made_time(self.request),
        }
    }

    /// Whether something new is made directly in `directory` if it gets the contents of `source`.
    fn gets_entries(&self, directory: &UpperDir, tree: &dyn Tree, source: &RootPath) -> bool {
        let is_new = |entry: &DirEntry| entry.kind != Kind::Directory || directory.covers(&entry.name).is_ok_and(|covers| !covers);
        tree.read_dir(source).is_ok_and(|entries| entries.iter().any(is_new))
    }

    /// Begins to find out the diff ID of a layer in which `directory` is filled, and nothing else. A directory of the base gets a new time if something new is made
    /// directly in it, as `gets_entries` says. That need not be exact: a wrong guess is found out in the end.
    fn begin_diff(&self, directory: &Arc<UpperDir>, gets_entries: impl FnOnce() -> bool) -> Option<LayerDiff> {
        let (layer, options) = self.diff?;
        let stream = LayerStream::open(layer, self.upper.base().layers(), options).ok()?;
        let gets_entries = gets_entries();
        let mut above = LayerEntries::default();
        let way = directory.way();
        for (at, made) in way.iter().enumerate() {
            let gets_entries = way.get(at + 1).map_or(gets_entries, |next| !next.in_base());
            above.directory(made.path().clone(), made.promise(gets_entries)?);
        }
        let diff = LayerDiff::new(stream);
        diff.take(0, above);
        Some(diff)
    }

    fn file(&self, walk: &Walk<'_>, root: &SourceRoot) -> Result<(), Error> {
        let (directory, name) = self.place_for(&root.name)?;
        walk.file(&root.path, &root.metadata, (&directory, &name))
    }

    /// Copies with the directories above, which are made like those of the source.
    fn below_parents(&self, walk: &Walk<'_>, root: &SourceRoot) -> Result<(), Error> {
        let mut directory = self.upper.enter_all(&self.destination.path, &self.made)?;
        let read_error = |source| Error::Read { path: walk.base.clone(), source };
        if let Some(pivot) = walk.tree.metadata(&walk.base).map_err(read_error)? {
            directory.set_mtime(self.time_of(&walk.base, &pivot));
        }
        if root.name.is_empty() {
            return walk.contents(&root.path, directory);
        }
        let mut source = walk.base.clone();
        let above = RootPath::new(&root.name).parent().unwrap_or_else(RootPath::root);
        for name in above.components() {
            source = source.join(name);
            let read_error = |error| Error::Read { path: source.clone(), source: error };
            let metadata =
                walk.tree.metadata(&source).map_err(read_error)?.ok_or_else(|| Error::Missing { path: source.clone(), near: None })?;
            // Something comes into it after it has got its time.
            let new = || Ok(Attributes { mtime: made_time(self.request), ..walk.attributes(&source, &metadata)? });
            directory = self.upper.enter(&directory, name, new, Existing::KeepAllBut { mode: metadata.mode })?;
        }
        if root.metadata.kind == Kind::Directory {
            walk.directory(&root.path, &root.metadata, &directory)
        } else {
            walk.file(&root.path, &root.metadata, (&directory, root.path.file_name().unwrap_or_default()))
        }
    }

    /// The directory and the name that a single file goes to; `own` is the name that it has itself.
    fn place_for(&self, own: &OsStr) -> Result<(Arc<UpperDir>, OsString), Error> {
        let path = &self.destination.path;
        if !self.destination.is_directory
            && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        {
            let directory = self.upper.enter_all(&parent, &self.made)?;
            if self.upper.entry(&directory, name)?.is_none_or(|metadata| metadata.kind != Kind::Directory) {
                self.onto_file.set(self.onto_file.get() + 1);
                return Ok((directory, name.to_owned()));
            }
            // From where it is open: entered anew, the directory above would have the time of this.
            let inside = self.upper.enter(&directory, name, || Ok(self.made.below(&directory)), Existing::Keep)?;
            return Ok((inside, own.to_owned()));
        }
        Ok((self.upper.enter_all(path, &self.made)?, own.to_owned()))
    }

    /// Unpacks a file if it is an archive. Returns whether it was.
    fn unpack(&self, open: impl Fn() -> Result<File, Error>, copied: &mut Copied) -> Result<bool, Error> {
        if !add_archive::is_archive(open()?) {
            return Ok(false);
        }
        // `--chmod` has no say in unpacking.
        let made = MadeDirectory { mode: MADE_MODE, ..self.made };
        let directory = self.upper.enter_all(&self.destination.path, &made)?;
        let has_nothing_below = !directory.in_base() || self.upper.base().layers().is_empty();
        if self.is_alone && has_nothing_below && self.unpack_planned(&directory, &open()?, copied)? {
            return Ok(true);
        }
        let known = self.diff.map(|_| KnownFiles::new(MAX_KNOWN));
        let (unpacked, known) = add_archive::unpack(self.upper, &directory, open()?, self.request, known)?;
        self.unpacked.set(known);
        copied.entries += unpacked.entries;
        copied.bytes += unpacked.bytes;
        Ok(true)
    }

    /// Unpacks an archive into a directory that has nothing in it, if it is one that can be planned. Returns whether it was.
    fn unpack_planned(&self, directory: &Arc<UpperDir>, archive: &File, copied: &mut Copied) -> Result<bool, Error> {
        let attributes = |member: &Member| add_archive::attributes(member, self.request.chown);
        let Some(plan) = Plan::read(archive, directory.path(), &add_archive::implied(self.request), attributes) else { return Ok(false) };
        if plan.bytes > add_archive::limit(self.request) {
            return Ok(false);
        }
        copied.entries += plan.members;
        copied.bytes += plan.bytes;
        let diff = self.begin_diff(directory, || true);
        plan.unpack(self.upper, directory, archive, diff.as_ref())?;
        copied.layer = diff.and_then(LayerDiff::finish);
        Ok(true)
    }

    fn here_document(&self, name: &str, content: &[u8], mode: u32, copied: &mut Copied) -> Result<(), Error> {
        let owner = self.request.chown.unwrap_or(Owner { uid: 0, gid: 0 });
        let (directory, name) = self.place_for(OsStr::new(name))?;
        let attributes = self.file_attributes(mode, owner, self.request.created_time);
        let fd = self.upper.create(&directory, &name, Over::Files, attributes.mode)?;
        write_all(&fd, content).map_err(|error| directory.write_error(&name, error))?;
        copied.entries += 1;
        copied.bytes += content.len() as u64;
        self.upper.finish_file(&directory, &name, &fd, &attributes)
    }

    fn host_file(
        &self,
        path: &Path,
        name: &str,
        mode: u32,
        owner: Owner,
        mtime: Option<(i64, u32)>,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        let failed = |source| Error::ReadHost { path: path.to_owned(), source };
        let open = || File::open(path).map_err(failed);
        if self.request.unpack == Unpack::Always && self.unpack(open, copied)? {
            return Ok(());
        }
        let mut from = open()?;
        let metadata = crate::sys::inode::metadata(&rustix::fs::fstat(&from).map_err(|error| failed(error.into()))?).map_err(failed)?;
        let (directory, name) = self.place_for(OsStr::new(name))?;
        let attributes = self.file_attributes(mode, owner, mtime.or(self.request.created_time));
        let fd = self.upper.create(&directory, &name, Over::Files, attributes.mode)?;
        copied.bytes +=
            self.content.copy(&mut from, metadata.dev, metadata.size, &fd).map_err(|error| directory.write_error(&name, error))?;
        copied.entries += 1;
        self.upper.finish_file(&directory, &name, &fd, &attributes)
    }

    fn file_attributes(&self, mode: u32, owner: Owner, mtime: Option<(i64, u32)>) -> Attributes {
        let mode = self.request.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, false));
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime: mtime.map_or(Mtime::Now, Mtime::At), xattrs: Vec::new() }
    }
}

//! Copies a directory's contents into a directory of the new layer.
//!
//! Directories are jobs on a stack. A job makes its directory, copies the files in it and leaves a job for each directory, so that no more descriptors are
//! open than the tree is deep, and helpers join in once a tree turns out to be large. Whichever thread fails first stops the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::content::ContentCopier;
use super::copy::{ChmodRule, Owner};
use super::error::Error;
use super::share::Sharing;
use super::upper::{Attributes, Existing, Mtime, Over, Upper, UpperDir};
use crate::context::{DirectoryState, FileStamp, IgnoreRules};
use crate::path::RootPath;
use crate::sys::inode::Xattrs;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};

/// From how many entries on a second thread is worth its start.
const HELP_FROM: u64 = 256;
/// How many threads work on one tree.
const MAX_THREADS: usize = 4;
/// How many entries of one directory make one job.
const CHUNK: usize = 512;

/// What applies to everything that one instruction copies.
pub(super) struct Rules {
    pub(super) chown: Option<Owner>,
    pub(super) chmod: Option<ChmodRule>,
    pub(super) exclude: IgnoreRules,
    pub(super) existing: Existing,
}

/// Copies from one tree into one layer.
pub(super) struct Walk<'a> {
    pub(super) upper: &'a Upper<'a>,
    pub(super) tree: &'a dyn Tree,
    pub(super) rules: &'a Rules,
    pub(super) content: &'a ContentCopier,
    /// An earlier snapshot to share files with.
    pub(super) sharing: Option<&'a Sharing<'a>>,
    /// Where the patterns of `exclude` start.
    pub(super) base: RootPath,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// The first name of each file that has several.
    links: Mutex<HashMap<(u64, u64), RootPath>>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    running: usize,
    failure: Option<Error>,
}

struct Job {
    source: RootPath,
    target: Target,
    state: DirectoryState,
}

enum Target {
    /// The contents of the source go into this directory.
    Into(Arc<UpperDir>),
    /// The source becomes a directory in this one.
    In(Arc<UpperDir>, Metadata),
    /// These entries of the source go into this directory.
    Entries(Arc<UpperDir>, Vec<DirEntry>),
}

impl<'a> Walk<'a> {
    pub(super) fn new(upper: &'a Upper<'a>, tree: &'a dyn Tree, rules: &'a Rules, content: &'a ContentCopier, base: RootPath) -> Walk<'a> {
        let (entries, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let (links, queue, wake) = (Mutex::default(), Mutex::default(), Condvar::new());
        Walk { upper, tree, rules, content, sharing: None, base, entries, bytes, links, queue, wake }
    }

    /// How many entries were made, and how many bytes were copied.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Copies what is in the directory `source` into `target`.
    pub(super) fn contents(&self, source: &RootPath, target: Arc<UpperDir>) -> Result<(), Error> {
        let state = self.state_above(source, true);
        self.lock().jobs.push(Job { source: source.clone(), target: Target::Into(target), state });
        self.run()
    }

    /// Copies the directory `source` itself into `parent`, under its own name.
    pub(super) fn directory(&self, source: &RootPath, metadata: Metadata, parent: Arc<UpperDir>) -> Result<(), Error> {
        let state = self.state_above(source, false);
        self.lock().jobs.push(Job { source: source.clone(), target: Target::In(parent, metadata), state });
        self.run()
    }

    /// Copies something else than a directory to `name` in `directory`.
    pub(super) fn file(&self, source: &RootPath, metadata: &Metadata, directory: &UpperDir, name: &std::ffi::OsStr) -> Result<(), Error> {
        let mut linked = None;
        if metadata.nlink > 1 && metadata.kind != Kind::Symlink {
            // Held until the file is whole, so that nobody links to half of it.
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = links.get(&(metadata.dev, metadata.ino)) {
                self.entries.fetch_add(1, Ordering::Relaxed);
                return self.upper.hard_link(directory, name, Over::Files, first);
            }
            links.insert((metadata.dev, metadata.ino), directory.path().join(name));
            linked = Some(links);
        }
        match metadata.kind {
            Kind::File => self.regular(source, metadata, directory, name)?,
            Kind::Symlink => {
                let attributes = self.attributes(source, metadata)?;
                let target = self.tree.read_link(source).map_err(|error| read_error(source, error))?;
                self.upper.symlink(directory, name, Over::Files, &target, &attributes)?;
            }
            // A socket without its process is nothing.
            Kind::Socket | Kind::Directory => return Ok(()),
            kind => {
                let attributes = self.attributes(source, metadata)?;
                if !self.upper.node(directory, name, Over::Files, kind, metadata.rdev, &attributes)? {
                    self.upper.warn(format!("`{source}` is left out: such a device cannot be made"));
                    return Ok(());
                }
            }
        }
        drop(linked);
        self.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn regular(&self, source: &RootPath, metadata: &Metadata, directory: &UpperDir, name: &std::ffi::OsStr) -> Result<(), Error> {
        let known = self.sharing.and_then(|sharing| Some((sharing, sharing.content(metadata)?)));
        if let Some((sharing, content)) = known {
            let attributes = self.attributes_with(metadata, Vec::new());
            if sharing.share(self.upper, directory, name, (&content, metadata.size), &attributes)? {
                self.bytes.fetch_add(metadata.size, Ordering::Relaxed);
                return Ok(());
            }
        }
        let (mut from, xattrs) = self.tree.open_with_xattrs(source).map_err(|error| read_error(source, error))?;
        let attributes = self.attributes_with(metadata, xattrs);
        let to = self.upper.create(directory, name, Over::Files, attributes.mode)?;
        let copied = self.content.copy(&mut from, metadata.dev, metadata.size, &to).map_err(|error| directory.write_error(name, error))?;
        self.bytes.fetch_add(copied, Ordering::Relaxed);
        // Only what did not change since it was hashed is what was hashed.
        if let Some((sharing, content)) = known
            && FileStamp::of_open(&from).ok() == FileStamp::of(metadata)
        {
            sharing.copied(&directory.path().join(name), content);
        }
        self.upper.finish_file(directory, name, &to, &attributes)
    }

    /// What the copy of an entry gets.
    pub(super) fn attributes(&self, source: &RootPath, metadata: &Metadata) -> Result<Attributes, Error> {
        let xattrs = self.tree.xattrs(source).map_err(|error| read_error(source, error))?;
        Ok(self.attributes_with(metadata, xattrs))
    }

    fn attributes_with(&self, metadata: &Metadata, xattrs: Xattrs) -> Attributes {
        let owner = self.rules.chown.unwrap_or(Owner { uid: metadata.uid, gid: metadata.gid });
        let mode = match &self.rules.chmod {
            Some(rule) if metadata.kind != Kind::Symlink => rule(metadata.mode, metadata.kind == Kind::Directory),
            _ => metadata.mode,
        };
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime: Mtime::At(metadata.mtime), xattrs }
    }

    fn run(&self) -> Result<(), Error> {
        std::thread::scope(|scope| {
            let mut alone = true;
            loop {
                let mut queue = self.lock();
                if alone && queue.jobs.len() > 1 && self.entries.load(Ordering::Relaxed) >= HELP_FROM {
                    alone = false;
                    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
                    for _ in 1..threads {
                        scope.spawn(|| while self.step(self.lock()) {});
                    }
                }
                if queue.failure.is_some() {
                    queue.jobs.clear();
                }
                if !self.step(queue) {
                    break;
                }
            }
        });
        let mut queue = self.lock();
        queue.jobs.clear();
        queue.failure.take().map_or(Ok(()), Err)
    }

    /// Does one job, or waits for one. Returns whether there may be more.
    fn step(&self, mut queue: MutexGuard<'_, Queue>) -> bool {
        let job = loop {
            if queue.failure.is_some() {
                return false;
            }
            if let Some(job) = queue.jobs.pop() {
                break job;
            }
            if queue.running == 0 {
                return false;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.running += 1;
        drop(queue);
        let result = self.work(job);
        let mut queue = self.lock();
        queue.running -= 1;
        if let Err(error) = result {
            queue.failure.get_or_insert(error);
        }
        self.wake.notify_all();
        true
    }

    fn work(&self, job: Job) -> Result<(), Error> {
        let Job { source, target, state } = job;
        let (directory, entries) = match target {
            Target::Entries(directory, entries) => (directory, entries),
            Target::Into(directory) => (directory, self.read(&source)?),
            Target::In(parent, metadata) => {
                let name = source.file_name().unwrap_or_default();
                let new = || self.attributes(&source, &metadata);
                let directory = self.upper.enter(&parent, name, new, self.rules.existing)?;
                self.entries.fetch_add(1, Ordering::Relaxed);
                (directory, self.read(&source)?)
            }
        };
        let mut chunks = entries.chunks(CHUNK);
        let now = chunks.next().unwrap_or_default();
        let later: Vec<Job> = chunks
            .map(|chunk| Job {
                source: source.clone(),
                target: Target::Entries(Arc::clone(&directory), chunk.to_vec()),
                state: state.clone(),
            })
            .collect();
        if !later.is_empty() {
            self.lock().jobs.extend(later);
            self.wake.notify_all();
        }
        for entry in now {
            self.entry(&source, entry, &directory, &state)?;
        }
        Ok(())
    }

    fn entry(&self, parent: &RootPath, entry: &DirEntry, directory: &Arc<UpperDir>, state: &DirectoryState) -> Result<(), Error> {
        let source = parent.join(&entry.name);
        let mut inner = DirectoryState::default();
        if !self.rules.exclude.is_empty() {
            let relative = self.relative(&source);
            let ignored = self.rules.exclude.decide_in(state, relative).ignored;
            if ignored && (entry.kind != Kind::Directory || !self.keeps_below(&source, state)?) {
                return Ok(());
            }
            if entry.kind == Kind::Directory {
                inner = self.rules.exclude.enter(state, relative);
            }
        }
        // What vanishes while it is copied was not there.
        let Some(metadata) = self.tree.metadata(&source).map_err(|error| read_error(&source, error))? else { return Ok(()) };
        if metadata.kind != Kind::Directory {
            return self.file(&source, &metadata, directory, &entry.name);
        }
        self.lock().jobs.push(Job { source, target: Target::In(Arc::clone(directory), metadata), state: inner });
        self.wake.notify_one();
        Ok(())
    }

    /// Whether an excluded directory holds something that a later pattern brings back.
    fn keeps_below(&self, directory: &RootPath, above: &DirectoryState) -> Result<bool, Error> {
        let rules = &self.rules.exclude;
        let mut todo = vec![(directory.clone(), above.clone())];
        while let Some((directory, above)) = todo.pop() {
            let relative = self.relative(&directory);
            if !rules.may_reinclude_below(relative) {
                continue;
            }
            let state = rules.enter(&above, relative);
            for entry in self.read(&directory)? {
                let path = directory.join(&entry.name);
                if !rules.decide_in(&state, self.relative(&path)).ignored {
                    return Ok(true);
                }
                if entry.kind == Kind::Directory {
                    todo.push((path, state.clone()));
                }
            }
        }
        Ok(false)
    }

    /// What the patterns of `exclude` say about the directories above `source`, or about it too.
    fn state_above(&self, source: &RootPath, itself: bool) -> DirectoryState {
        let rules = &self.rules.exclude;
        let mut state = DirectoryState::default();
        if rules.is_empty() {
            return state;
        }
        let relative = self.relative(source);
        for (end, _) in relative.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state = rules.enter(&state, relative.get(..end).unwrap_or_default());
        }
        if itself && !relative.is_empty() {
            state = rules.enter(&state, relative);
        }
        state
    }

    /// Whether `--exclude` leaves out `source` itself, with all that is in it.
    pub(super) fn excludes(&self, source: &RootPath, kind: Kind) -> Result<bool, Error> {
        let rules = &self.rules.exclude;
        if rules.is_empty() || !rules.decide(self.relative(source)).ignored {
            return Ok(false);
        }
        Ok(kind != Kind::Directory || !self.keeps_below(source, &self.state_above(source, false))?)
    }

    fn relative<'p>(&self, path: &'p RootPath) -> &'p [u8] {
        let cut = if self.base.is_root() { 1 } else { self.base.as_bytes().len() + 1 };
        path.as_bytes().get(cut..).unwrap_or_default()
    }

    fn read(&self, directory: &RootPath) -> Result<Vec<DirEntry>, Error> {
        self.tree.read_dir(directory).map_err(|error| read_error(directory, error))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_error(path: &RootPath, source: std::io::Error) -> Error {
    Error::Read { path: path.clone(), source }
}

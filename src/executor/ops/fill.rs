//! Fills small files of an archive while the archive is read on.
//!
//! Making a file's name and writing the file cost about the same, so two threads share them: the names come first, in the order of the archive. The second
//! thread is started once an archive turns out to be large, and ends at the first failure.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::error::Error;
use super::upper::{Attributes, Upper, UpperDir};
use crate::image::layer::KnownFiles;
use crate::path::RootPath;

/// From how many files on a second thread is worth its start.
const HELP_FROM: usize = 64;
/// How many files are handed over at once, and how many times that wait: all of them are open.
const BATCH: usize = 16;
const WAITING: usize = 4;

/// A file that was made, with what it is to become.
pub(super) struct NewFile {
    pub(super) directory: Arc<UpperDir>,
    pub(super) name: OsString,
    pub(super) fd: OwnedFd,
    pub(super) attributes: Attributes,
    pub(super) content: Vec<u8>,
}

/// Takes files to be filled.
pub(super) struct Filler<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    batch: Vec<NewFile>,
    given: usize,
    mode: Mode<'scope>,
}

enum Mode<'scope> {
    Here(Worker<'scope>),
    Thread(SyncSender<Work>, ScopedJoinHandle<'scope, Worker<'scope>>),
    /// It failed, and said so.
    Failed,
}

enum Work {
    Fill(Vec<NewFile>),
    Forget(RootPath),
    ForgetAll,
    /// Answers when all that came before is done.
    Settle(SyncSender<()>),
}

struct Worker<'a> {
    upper: &'a Upper<'a>,
    known: Option<KnownFiles>,
    failure: Option<Error>,
}

impl<'scope, 'env> Filler<'scope, 'env> {
    /// Keeps what it can of the files in `known`.
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, upper: &'scope Upper<'scope>, known: Option<KnownFiles>) -> Self {
        Filler { scope, batch: Vec::new(), given: 0, mode: Mode::Here(Worker { upper, known, failure: None }) }
    }

    /// Fills a file, at some time before [`Filler::settle`] returns.
    pub(super) fn fill(&mut self, file: NewFile) -> Result<(), Error> {
        self.batch.push(file);
        self.given += 1;
        if self.given == HELP_FROM {
            self.start();
        }
        if self.batch.len() < BATCH { Ok(()) } else { self.send_batch() }
    }

    /// Waits until all files are filled.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.send_batch()?;
        let (done, wait) = sync_channel(1);
        self.send(Work::Settle(done))?;
        // Without an answer the thread has failed, which the next call is told.
        wait.recv().or_else(|_| self.send(Work::ForgetAll))
    }

    /// A file was replaced, or got another name: what was known of it is wrong.
    pub(super) fn forget(&mut self, path: RootPath) -> Result<(), Error> {
        self.send_batch()?;
        self.send(Work::Forget(path))
    }

    /// The same of everything below a directory, and so, to be simple, of everything.
    pub(super) fn forget_all(&mut self) -> Result<(), Error> {
        self.send_batch()?;
        self.send(Work::ForgetAll)
    }

    /// Waits, and gives what is known.
    pub(super) fn finish(mut self) -> Result<Option<KnownFiles>, Error> {
        self.settle()?;
        match self.mode {
            Mode::Here(worker) => worker.finish(),
            Mode::Thread(sender, thread) => {
                drop(sender);
                joined(thread).finish()
            }
            Mode::Failed => Ok(None),
        }
    }

    fn start(&mut self) {
        if crate::task::parallelism() == 1 {
            return;
        }
        let Mode::Here(worker) = &mut self.mode else { return };
        let known = worker.known.take();
        let upper = worker.upper;
        let (sender, receiver) = sync_channel(WAITING);
        let (give, take) = sync_channel(1);
        let work = move || {
            let known = take.recv().unwrap_or_default();
            Worker { upper, known, failure: None }.run(&receiver)
        };
        // What is known goes after it, since it would be lost with a thread that cannot be started.
        match std::thread::Builder::new().name("fill".to_owned()).spawn_scoped(self.scope, work) {
            Ok(thread) => {
                give.send(known).unwrap_or_default();
                self.mode = Mode::Thread(sender, thread);
            }
            Err(_) => worker.known = known,
        }
    }

    fn send_batch(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { self.send(Work::Fill(batch)) }
    }

    fn send(&mut self, work: Work) -> Result<(), Error> {
        match &mut self.mode {
            Mode::Here(worker) => {
                worker.apply(work);
                worker.failure.take().map_or(Ok(()), Err)
            }
            Mode::Thread(sender, _) => match sender.send(work) {
                Ok(()) => Ok(()),
                Err(_) => match std::mem::replace(&mut self.mode, Mode::Failed) {
                    Mode::Thread(sender, thread) => {
                        drop(sender);
                        joined(thread).finish().map(drop)
                    }
                    _ => Ok(()),
                },
            },
            Mode::Failed => Ok(()),
        }
    }
}

/// The worker of a thread that ends; a panic of it goes on here.
fn joined<'a>(thread: ScopedJoinHandle<'_, Worker<'a>>) -> Worker<'a> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Worker<'_> {
    fn run(mut self, works: &Receiver<Work>) -> Self {
        while self.failure.is_none()
            && let Ok(work) = works.recv()
        {
            self.apply(work);
        }
        self
    }

    fn apply(&mut self, work: Work) {
        match work {
            Work::Fill(files) => {
                self.failure = files.into_iter().find_map(|file| self.fill(file).err());
            }
            Work::Forget(path) => self.known.iter_mut().for_each(|known| known.forget(&path)),
            Work::ForgetAll => self.known.iter_mut().for_each(KnownFiles::forget_all),
            Work::Settle(done) => done.send(()).unwrap_or_default(),
        }
    }

    fn fill(&mut self, file: NewFile) -> Result<(), Error> {
        let NewFile { directory, name, fd, attributes, content } = file;
        crate::store::write_all(&fd, &content).map_err(|error| directory.write_error(&name, error))?;
        self.upper.finish_file(&directory, &name, &fd, &attributes)?;
        if let Some(known) = &mut self.known
            && attributes.xattrs.is_empty()
        {
            known.add(directory.path().join(&name), &fd, content);
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<KnownFiles>, Error> {
        self.failure.map_or(Ok(self.known), Err)
    }
}

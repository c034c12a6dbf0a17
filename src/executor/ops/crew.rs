//! A work that is cut into pieces, for several threads.
//!
//! The calling thread cuts the pieces, and does them alone as long as the work is small; then helpers do them too. Few pieces wait. Whichever thread fails first
//! stops the others.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::error::Error;

/// How many threads work together.
const MAX_THREADS: usize = 4;

struct Crew<P> {
    queue: Mutex<Queue<P>>,
    wake: Condvar,
}

struct Queue<P> {
    pieces: VecDeque<P>,
    /// No more pieces will come.
    ended: bool,
    failure: Option<Error>,
}

/// Does the pieces that `next` cuts, each by `work`; by several threads from when on `is_large` says so. `next` is dropped when it has given the last one.
///
/// # Errors
/// The first failure of `next` or `work`. Pieces that waited then are dropped.
pub(super) fn run<P: Send>(
    mut next: impl FnMut() -> Option<Result<P, Error>>,
    work: impl Fn(P) -> Result<(), Error> + Sync,
    is_large: impl Fn() -> bool,
) -> Result<(), Error> {
    while !is_large() {
        match next() {
            Some(piece) => work(piece?)?,
            None => return Ok(()),
        }
    }
    let threads = crate::task::parallelism().min(MAX_THREADS);
    let crew = Crew { queue: Mutex::new(Queue { pieces: VecDeque::new(), ended: false, failure: None }), wake: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| while crew.help(&work) {});
        }
        while crew.lock().failure.is_none()
            && let Some(piece) = next()
        {
            match piece {
                Ok(piece) => crew.hand_out(piece, threads, &work),
                Err(error) => crew.fail(error),
            }
        }
        drop(next);
        crew.lock().ended = true;
        crew.wake.notify_all();
        while crew.help(&work) {}
    });
    let queue = crew.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failure.map_or(Ok(()), Err)
}

impl<P> Crew<P> {
    /// Leaves a piece to the helpers, or does the first of those that wait if there are enough.
    fn hand_out(&self, piece: P, threads: usize, work: &impl Fn(P) -> Result<(), Error>) {
        let mut queue = self.lock();
        queue.pieces.push_back(piece);
        self.wake.notify_one();
        if queue.pieces.len() < 2 * threads {
            return;
        }
        let first = queue.pieces.pop_front();
        drop(queue);
        if let Some(Err(error)) = first.map(work) {
            self.fail(error);
        }
    }

    /// Does one piece, or waits for one. Returns whether there may be more.
    fn help(&self, work: &impl Fn(P) -> Result<(), Error>) -> bool {
        let mut queue = self.lock();
        let piece = loop {
            if queue.failure.is_some() {
                return false;
            }
            if let Some(piece) = queue.pieces.pop_front() {
                break piece;
            }
            if queue.ended {
                return false;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        if let Err(error) = work(piece) {
            self.fail(error);
        }
        true
    }

    fn fail(&self, error: Error) {
        self.lock().failure.get_or_insert(error);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue<P>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Work: cancellation, the one way from async code to blocking code, and the places where tests interrupt it.

mod fault;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use fault::{FAULT_POINTS, FaultPlan, fault_point};
use tokio::task::JoinHandle;
pub use tokio_util::sync::CancellationToken;

/// Runs blocking work on a thread of its own and waits for it; a panic of the work goes on in the caller.
///
/// The threads are tokio's, of which the runtime keeps a bounded number. Cancelling the caller does not stop the work: long work takes a
/// [`CancellationToken`] and looks at it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, so nothing waits for a value any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Starts blocking work on a thread of its own, as tokio's function of this name does, and counts it as long as it is not over (see [`is_idle`]).
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let busy = Busy::new();
    tokio::task::spawn_blocking(move || {
        let _busy = busy;
        work()
    })
}

/// Whether no blocking work is going on, or waiting for its turn.
pub fn is_idle() -> bool {
    BUSY.load(Ordering::Acquire) == 0
}

/// How much blocking work there is.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// One more in [`BUSY`], until it is dropped.
struct Busy;

impl Busy {
    fn new() -> Busy {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Release);
    }
}

/// How many threads can work at the same time. Asked of the system once: the limits of a container are in files of its control groups.
pub fn parallelism() -> usize {
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Does something with each of `items`, on all cores; what comes of it is in their order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = parallelism().min(items.len()).max(1);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

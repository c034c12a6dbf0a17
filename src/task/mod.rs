//! Work: cancellation, and the one way from async code to blocking code.

pub use tokio_util::sync::CancellationToken;

/// Runs blocking work on a thread of its own and waits for it; a panic of the work goes on in the caller.
///
/// The threads are tokio's, of which the runtime keeps a bounded number. Cancelling the caller does not stop the work: long work takes a
/// [`CancellationToken`] and looks at it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, so nothing waits for a value any more.
            Err(_) => std::future::pending().await,
        },
    }
}

//! How long something takes, on a machine that does other things too.

use std::time::Duration;

/// Panics if `work` takes more processor time than `limit`, three times in a row.
pub(crate) fn within<T>(limit: Duration, what: &str, mut work: impl FnMut() -> T) -> T {
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        let start = processor_time();
        let outcome = work();
        took = processor_time() - start;
        if took <= limit {
            return outcome;
        }
    }
    panic!("{what} took {took:?}, more than {limit:?}");
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

//! Pauses between attempts: exponential, with jitter, and as long as the server asks.

use std::time::{Duration, SystemTime};

use super::error::{Error, TransportCause};
use super::options::RetryPolicy;

/// Progress after which earlier failures are forgotten: a server that cuts after every few bytes must not keep us for ever.
const FORGIVING: u64 = 1 << 20;

/// Counts the failures of one undertaking.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    progress: u64,
}

impl Backoff {
    pub(super) fn new(policy: RetryPolicy) -> Backoff {
        Backoff { policy, failures: 0, progress: 0 }
    }

    /// Notes that `bytes` have moved for good.
    pub(super) fn advanced(&mut self, bytes: u64) {
        self.progress = self.progress.saturating_add(bytes);
        if self.progress >= FORGIVING {
            self.failures = 0;
            self.progress = 0;
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// Gives `error` back where trying again makes no sense: it is final, the attempts are used up, or the server wants a longer pause than we grant.
    pub(super) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        if error.is_retryable() { self.pause_anyway(error).await } else { Err(error) }
    }

    /// The same for an error after which the caller knows another way.
    pub(super) async fn pause_anyway(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        self.progress = 0;
        // A host that cannot be reached at all is rarely there a moment later; a misspelt name should not take long to say so.
        let unreachable = matches!(error, Error::Transport { cause: TransportCause::Connect, .. });
        // A server that says nothing has taken its whole time already.
        let hopeless = unreachable || matches!(error, Error::Timeout { .. });
        let attempts = if hopeless { self.policy.attempts.min(3) } else { self.policy.attempts };
        if self.failures >= attempts.max(1) {
            return Err(error);
        }
        let own = self.own_pause();
        let pause = match error.retry_after() {
            Some(asked) if asked > self.policy.longest_retry_after => return Err(error),
            Some(asked) => asked.max(own),
            None => own,
        };
        tracing::debug!(%error, ?pause, failures = self.failures, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn own_pause(&self) -> Duration {
        let doubled = self.policy.first_pause.saturating_mul(1 << (self.failures - 1).min(16));
        let full = doubled.min(self.policy.longest_pause);
        full.mul_f64(0.5 + 0.5 * fraction())
    }
}

/// A random number in 0..1; without a source of randomness, the middle.
fn fraction() -> f64 {
    let mut bytes = [0; 2];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / 65536.0,
        Err(_) => 0.5,
    }
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        assert!(parse_retry_after(&soon).unwrap() > Duration::from_secs(20));
        assert_eq!(parse_retry_after("soon"), None);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_keep_their_jitter() {
        let policy =
            RetryPolicy { first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(1), ..RetryPolicy::default() };
        let pause = |failures| Backoff { policy, failures, progress: 0 }.own_pause();
        assert!((50..=100).contains(&pause(1).as_millis()));
        assert!((200..=400).contains(&pause(3).as_millis()));
        assert!((500..=1000).contains(&pause(40).as_millis()));
    }
}

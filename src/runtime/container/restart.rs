//! When a container that has ended is started again, by Docker's rules: at once at first, then after twice as long each time up to a minute, and at once again after a run
//! of some length.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::RestartPolicy;
use super::protocol::{ClientFrame, Incoming};
use super::serve::Ended;

/// The first delay.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How long a connection may take to say what it wants while nothing runs.
const ATTENTION: Duration = Duration::from_millis(200);

/// The restarts of one container since a user started it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restarts {
    pub(super) count: u32,
    delay: Duration,
}

impl Restarts {
    pub(super) fn new() -> Restarts {
        Restarts { count: 0, delay: Duration::ZERO }
    }

    /// How long to wait before the next start; `None` where there is none. `lasted` is how long the container ran.
    pub(super) fn next(&mut self, policy: RestartPolicy, ended: &Ended, lasted: Duration) -> Option<Duration> {
        let again = match policy {
            _ if ended.by_hand || ended.with_supervisor => false,
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(most) => ended.code != 0 && (most == 0 || self.count < most),
        };
        if !again {
            return None;
        }
        self.delay = if self.delay.is_zero() || lasted >= GOOD { FIRST } else { (self.delay * 2).min(LONGEST) };
        self.count = self.count.saturating_add(1);
        Some(self.delay)
    }
}

/// Why there was no next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// A user ended the container.
    ByHand,
    /// The supervisor was asked to end.
    WithSupervisor,
}

/// Waits before the next start. Nothing else that a client may want than to end the container can be had now: it is hung up on. `asked` becomes readable where the supervisor is to end.
pub(super) fn wait_out(listener: &UnixListener, asked: Option<BorrowedFd<'_>>, delay: Duration) -> Result<(), GivenUp> {
    let deadline = Instant::now() + delay;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut polled = vec![PollFd::new(listener, PollFlags::IN)];
        polled.extend(asked.as_ref().map(|asked| PollFd::new(asked, PollFlags::IN)));
        if poll(&mut polled, Some(&timeout)).is_ok() && polled.get(1).is_some_and(|asked| !asked.revents().is_empty()) {
            return Err(GivenUp::WithSupervisor);
        }
        if let Ok((stream, _)) = listener.accept()
            && sends_signal(stream)
        {
            return Err(GivenUp::ByHand);
        }
    }
}

/// Whether the client's first words are a signal.
fn sends_signal(mut stream: UnixStream) -> bool {
    let (mut incoming, mut buffer) = (Incoming::default(), [0; 64]);
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(ATTENTION)));
    while ready.is_ok() {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => incoming.push(&buffer[..length]),
            _ => return false,
        }
        match incoming.next_of_client() {
            Ok(None) => {}
            Ok(Some(ClientFrame::Signal(_))) => return true,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: u8, by_hand: bool) -> Ended {
        Ended { code, oom_killed: false, by_hand, with_supervisor: false }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut restarts = Restarts::new();
        let mut next = |lasted| restarts.next(RestartPolicy::Always, &ended(0, false), lasted).unwrap().as_millis();
        let delays: Vec<u128> = (0..12).map(|_| next(Duration::ZERO)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(next(GOOD), 100);
    }

    #[test]
    fn what_a_user_ended_stays_ended_and_failures_are_counted() {
        let mut restarts = Restarts::new();
        assert_eq!(restarts.next(RestartPolicy::Always, &ended(137, true), GOOD), None);
        assert_eq!(restarts.next(RestartPolicy::OnFailure(2), &ended(0, false), GOOD), None);
        let mut failures = || restarts.next(RestartPolicy::OnFailure(2), &ended(1, false), GOOD).is_some();
        assert_eq!([failures(), failures(), failures()], [true, true, false]);
        assert!(restarts.next(RestartPolicy::OnFailure(0), &ended(1, false), GOOD).is_some());
        assert_eq!(restarts.next(RestartPolicy::No, &ended(1, false), GOOD), None);
        let with_machine = Ended { with_supervisor: true, ..ended(1, false) };
        assert_eq!(restarts.next(RestartPolicy::Always, &with_machine, GOOD), None);
    }
}

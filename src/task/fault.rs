//! Fault points: named places where a test has this process killed, or stopped, when it comes by for the n-th time.
//!
//! They stand wherever something is half done: before and after a rename, a transaction, a lease. A test first asks for a list of what a command passes, and then
//! kills it at each of these. They are in builds with debug assertions, which is what tests run, and in others with the feature `fault-points`; otherwise
//! [`fault_point`] is an empty function and no binary has the names.
//!
//! What is armed holds for this process and those that it forks, not for those that it executes.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Whether this build has fault points.
pub const FAULT_POINTS: bool = cfg!(any(debug_assertions, feature = "fault-points"));

/// What is to happen in this process.
#[derive(Debug, Default)]
pub struct FaultPlan {
    strike: Option<Strike>,
    trace: Option<PathBuf>,
}

#[derive(Debug)]
struct Strike {
    point: String,
    passing: u32,
    passed: AtomicU32,
    signal: rustix::process::Signal,
}

impl FaultPlan {
    /// Reads `POINT:N`, at whose `N`-th passing this process kills itself, or `POINT:N:stop`, where it stops until it is told to go on. The name of each point
    /// that is passed is added to the file `trace`, a line each.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(strike: Option<&str>, trace: Option<PathBuf>) -> Result<FaultPlan, String> {
        let strike =
            strike.map(|text| Strike::parse(text).ok_or_else(|| format!("`{text}` is not POINT:N or POINT:N:stop"))).transpose()?;
        Ok(FaultPlan { strike, trace })
    }

    /// Arms the points of this process; the first plan counts.
    pub fn arm(self) {
        if FAULT_POINTS && (self.strike.is_some() || self.trace.is_some()) {
            let _ = PLAN.set(self);
        }
    }

    fn pass(&self, name: &str) {
        if let Some(path) = &self.trace {
            let appended = std::fs::File::options().append(true).create(true).open(path);
            // A list that cannot be written is noticed by whoever reads it.
            let _ = appended.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
        }
        if let Some(strike) = self.strike.as_ref().filter(|strike| strike.point == name)
            && strike.passed.fetch_add(1, Ordering::Relaxed) + 1 == strike.passing
        {
            strike.hit();
        }
    }
}

impl Strike {
    fn parse(text: &str) -> Option<Strike> {
        let (text, signal) = match text.strip_suffix(":stop") {
            Some(text) => (text, rustix::process::Signal::STOP),
            None => (text, rustix::process::Signal::KILL),
        };
        let (point, passing) = text.rsplit_once(':')?;
        let passing = passing.parse().ok().filter(|passing| *passing > 0)?;
        Some(Strike { point: point.to_owned(), passing, passed: AtomicU32::new(0), signal })
    }

    /// The whole process, whichever thread this is.
    fn hit(&self) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), self.signal);
        // The kernel delivers it on the way back from the call at the latest, to this thread or to another, which ends or stops all.
        if self.signal == rustix::process::Signal::KILL {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

static PLAN: OnceLock<FaultPlan> = OnceLock::new();

/// A place where a test may kill this process. Costs a load where nothing is armed, and nothing in a release.
#[inline]
pub fn fault_point(name: &'static str) {
    if FAULT_POINTS && let Some(plan) = PLAN.get() {
        plan.pass(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_name_a_point_and_a_passing() {
        let strike = FaultPlan::parse(Some("blob:named:3"), None).unwrap().strike.unwrap();
        assert_eq!((strike.point.as_str(), strike.passing, strike.signal), ("blob:named", 3, rustix::process::Signal::KILL));
        let strike = FaultPlan::parse(Some("blob:named:1:stop"), None).unwrap().strike.unwrap();
        assert_eq!((strike.point.as_str(), strike.passing, strike.signal), ("blob:named", 1, rustix::process::Signal::STOP));
        for text in ["", "blob", "blob:", "blob:0", "blob:x", "blob:1:go"] {
            assert!(FaultPlan::parse(Some(text), None).is_err(), "{text}");
        }
    }

    #[test]
    fn passed_points_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let plan = FaultPlan::parse(None, Some(trace.clone())).unwrap();
        ["one", "two", "one"].into_iter().for_each(|name| plan.pass(name));
        assert_eq!(std::fs::read_to_string(trace).unwrap(), "one\ntwo\none\n");
    }
}

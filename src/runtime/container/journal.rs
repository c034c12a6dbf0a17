//! The journal of what happened to containers, images, volumes and networks: a file with one JSON object for each event, in the words of `docker events`.
//!
//! Whoever does something appends a line in one write, so that lines of several processes never mix. A file that has grown large is set aside as `events.log.1`, in the
//! place of the one before.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How large the file may become, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// How often a journal that is followed is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// Something that happened. The names are those of Docker's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action; of containers and images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The ID; of containers and images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The container's image; containers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// To what it happened: `container`, `image`, `volume`, `network`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened: `start`, `die`.
    #[serde(rename = "Action")]
    pub action: String,
    /// To which one.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What something happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its ID, or name.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is known of it.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// Something that has just happened.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// To what.
    pub kind: &'a str,
    /// What.
    pub action: &'a str,
    /// To which one.
    pub id: &'a str,
    /// What is known of that.
    pub attributes: &'a BTreeMap<String, String>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventOptions {
    /// Only those of that time or later; without it, only what happens from now on, or all where there is an end.
    pub since: Option<Timestamp>,
    /// Only those before that time.
    pub until: Option<Timestamp>,
}

/// A journal.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal in that file, which need not be there.
    pub fn new(path: &Path) -> Journal {
        Journal { path: path.to_owned() }
    }

    /// Records an event. What cannot be written is not recorded: nothing fails for it.
    pub fn write(&self, recorded: &Recorded<'_>) {
        if let Err(error) = self.append(recorded) {
            tracing::debug!(%error, "an event is not on record");
        }
    }

    fn append(&self, recorded: &Recorded<'_>) -> io::Result<()> {
        let now = Timestamp::now();
        let of_both = |text: &str| (matches!(recorded.kind, "container" | "image") && !text.is_empty()).then(|| text.to_owned());
        let event = Event {
            status: of_both(recorded.action),
            id: of_both(recorded.id),
            from: recorded.attributes.get("image").filter(|_| recorded.kind == "container").cloned(),
            kind: recorded.kind.to_owned(),
            action: recorded.action.to_owned(),
            actor: Actor { id: recorded.id.to_owned(), attributes: recorded.attributes.clone() },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(&line)?;
        if file.metadata()?.len() > MAX_SIZE {
            std::fs::rename(&self.path, self.older())?;
        }
        Ok(())
    }

    fn older(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".1");
        PathBuf::from(name)
    }

    /// Gives events to `sink` until that says `false`, or until the time is over.
    pub fn read(&self, options: &EventOptions, sink: &mut dyn FnMut(&Event) -> bool) -> io::Result<()> {
        let known = if options.until.is_some() { Some(Timestamp::UNIX_EPOCH) } else { None };
        let since = options.since.or(known);
        let begin = since.unwrap_or_else(Timestamp::now);
        let mut files: Vec<File> = Vec::new();
        if since.is_some() {
            files.extend(File::open(self.older()));
        }
        files.extend(File::open(&self.path));
        let mut current = None;
        for file in files {
            let mut lines = Lines { reader: BufReader::new(file), line: Vec::new() };
            if !lines.deliver(begin, options.until, sink)? {
                return Ok(());
            }
            current = Some(lines);
        }
        loop {
            // What was written by now is read before it is asked whether the time is over.
            let over = options.until.is_some_and(|until| Timestamp::now() >= until);
            let rotated = match (&current, std::fs::metadata(&self.path)) {
                (Some(lines), Ok(named)) => lines.reader.get_ref().metadata()?.ino() != named.ino(),
                (None, Ok(_)) => true,
                _ => false,
            };
            if let Some(lines) = &mut current
                && !lines.deliver(begin, options.until, sink)?
            {
                return Ok(());
            }
            if rotated {
                current = File::open(&self.path).ok().map(|file| Lines { reader: BufReader::new(file), line: Vec::new() });
                continue;
            }
            if over {
                return Ok(());
            }
            std::thread::sleep(FOLLOW_EVERY);
        }
    }
}

/// Reads events from a file that may grow.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    /// Delivers all whole lines that there are now. `false` once the sink has had enough.
    fn deliver(&mut self, since: Timestamp, until: Option<Timestamp>, sink: &mut dyn FnMut(&Event) -> bool) -> io::Result<bool> {
        loop {
            if self.reader.read_until(b'\n', &mut self.line)? == 0 || self.line.last() != Some(&b'\n') {
                return Ok(true);
            }
            // A line that is no event was not written by us.
            let event = serde_json::from_slice::<Event>(&self.line).ok();
            self.line.clear();
            let Some(event) = event else { continue };
            let Ok(time) = Timestamp::from_nanosecond(i128::from(event.time_nano)) else { continue };
            if time >= since && until.is_none_or(|until| time < until) && !sink(&event) {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_in_order_and_limited_by_time() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(&dir.path().join("events.log"));
        let before = Timestamp::now();
        for action in ["create", "start", "die"] {
            let attributes = std::iter::once(("image".to_owned(), "i".to_owned())).collect();
            journal.write(&Recorded { kind: "container", action, id: "abc", attributes: &attributes });
        }
        let read = |since, until| {
            let mut seen = Vec::new();
            journal
                .read(&EventOptions { since: Some(since), until: Some(until) }, &mut |event| {
                    seen.push(event.action.clone());
                    true
                })
                .unwrap();
            seen
        };
        assert_eq!(read(before, Timestamp::now()), ["create", "start", "die"]);
        assert!(read(Timestamp::UNIX_EPOCH, before).is_empty());
        assert!(read(Timestamp::now(), Timestamp::now()).is_empty());
    }
}

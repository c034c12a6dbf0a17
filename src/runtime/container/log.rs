//! A container's output on disk, in the format of Docker's `json-file` driver, so that collectors for it work: one object for each line,
//! `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}`.
//!
//! A line longer than 16 KiB is cut into several records, of which only the last ends with a newline. What is not UTF-8 is replaced, since JSON cannot hold
//! it; attached clients get the bytes as they are. Reading needs no supervisor, only the files.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::ContainerDir;
use super::{Error, LogDriver, LogSettings};

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output, or a part of a very long one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The text, with its newline.
    pub log: String,
    /// Where it was written.
    pub stream: LogStream,
    /// When it was read from the container: RFC 3339.
    pub time: String,
}

/// The longest text of one record in bytes.
const MAX_LINE: usize = 16 * 1024;

/// Writes the log of a running container.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    settings: LogSettings,
    /// `None` with the driver `none`, or after a failed rotation.
    file: Option<File>,
    size: u64,
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    /// Appends to the log at `path`.
    pub(super) fn open(path: &Path, settings: LogSettings) -> Result<LogWriter, Error> {
        let (mut file, mut size) = (None, 0);
        if settings.driver != LogDriver::None {
            let opened = append(path).map_err(Error::file("open", path))?;
            size = opened.metadata().map_or(0, |metadata| metadata.len());
            file = Some(opened);
        }
        Ok(LogWriter { path: path.to_owned(), settings, file, size, partial: [Vec::new(), Vec::new()] })
    }

    /// Records output. A disk that is full costs the log, not the container.
    pub(super) fn write(&mut self, stream: LogStream, bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        partial.extend_from_slice(bytes);
        let (mut out, time) = (Vec::with_capacity(bytes.len() * 2), Timestamp::now().to_string());
        let mut rest = &partial[..];
        while let Some(length) = record_length(rest) {
            record(&mut out, stream, &rest[..length], &time);
            rest = &rest[length..];
            // A file ends after the record that fills it, however much came at once.
            if self.settings.max_size.is_some_and(|max| self.size + out.len() as u64 >= max) {
                self.append(&out);
                out.clear();
            }
        }
        self.partial[stream as usize] = rest.to_vec();
        self.append(&out);
    }

    /// Records lines that never got their newline.
    pub(super) fn finish(&mut self) {
        let time = Timestamp::now().to_string();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                let mut out = Vec::new();
                record(&mut out, stream, &partial, &time);
                self.append(&out);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(bytes) {
            tracing::debug!(%error, "the container's log misses some output");
        }
        self.size += bytes.len() as u64;
        if self.settings.max_size.is_some_and(|max| self.size >= max) {
            self.rotate();
        }
    }

    /// Begins a new file: `container.log` becomes `container.log.1`, that `container.log.2`, and the oldest goes.
    fn rotate(&mut self) {
        let older = (1..self.settings.max_files).rev();
        for number in older {
            let to = numbered(&self.path, number);
            // One that is not there yet is fine.
            if number > 1 {
                let _ = std::fs::rename(compressed(&numbered(&self.path, number - 1)), compressed(&to));
                let _ = std::fs::rename(numbered(&self.path, number - 1), to);
            } else if std::fs::rename(&self.path, &to).is_ok() && self.settings.compress {
                // What cannot be compressed stays as it is.
                let _ = compress(&to);
            }
        }
        if self.settings.max_files <= 1 {
            let _ = std::fs::remove_file(&self.path);
        }
        self.file = append(&self.path).ok();
        self.size = 0;
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Replaces a file by its compressed form; readers find the one or the other.
fn compress(path: &Path) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&partial)?;
    let mut to = GzEncoder::new(file, Compression::default());
    std::io::copy(&mut File::open(path)?, &mut to)?;
    to.finish()?;
    std::fs::rename(&partial, compressed(path))?;
    std::fs::remove_file(path)
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}

/// An older file as it was written: one that is compressed is unpacked into a file without a name.
fn open_older(path: &Path) -> std::io::Result<File> {
    File::open(path).or_else(|_| {
        let packed = File::open(compressed(path))?;
        let mut plain = File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC)?);
        std::io::copy(&mut MultiGzDecoder::new(packed), &mut plain)?;
        plain.rewind()?;
        Ok(plain)
    })
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// How many bytes make the first record: up to a newline, else the most that fits; `None` where neither is there.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    if let Some(newline) = window.iter().position(|byte| *byte == b'\n') {
        return Some(newline + 1);
    }
    if bytes.len() < MAX_LINE {
        return None;
    }
    // Not in the middle of a character.
    let is_start = |index: &usize| bytes.get(*index).is_none_or(|byte| byte & 0xc0 != 0x80);
    Some((MAX_LINE - 3..=MAX_LINE).rev().find(is_start).unwrap_or(MAX_LINE))
}

fn record(out: &mut Vec<u8>, stream: LogStream, text: &[u8], time: &str) {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        log: &'a str,
        stream: LogStream,
        time: &'a str,
    }
    // Cannot fail: strings into memory.
    let _ = serde_json::to_writer(&mut *out, &Borrowed { log: &String::from_utf8_lossy(text), stream, time });
    out.push(b'\n');
}

/// Which part of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Whether to wait for more until the container ends.
    pub follow: bool,
    /// Only so many last records.
    pub tail: Option<usize>,
    /// Only records of that time or later.
    pub since: Option<Timestamp>,
    /// Only records before that time.
    pub until: Option<Timestamp>,
}

/// How often a log that is followed is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// Gives the records of the container's log to `sink`, oldest first, until that says `false`.
pub fn logs(dir: &Path, options: &LogOptions, sink: &mut dyn FnMut(LogRecord) -> bool) -> Result<(), Error> {
    let dir = ContainerDir::new(dir);
    let path = dir.log();
    let mut files = parts(&path);
    let skip = tail_start(&mut files, options.tail).map_err(Error::file("read", &path))?;
    let Some((newest, older)) = files.split_last_mut() else { return follow_from(&dir, None, options, sink) };
    for file in older.iter_mut().skip(skip) {
        if !Lines::new(file).deliver(options, sink).map_err(Error::file("read", &path))? {
            return Ok(());
        }
    }
    let newest = newest.try_clone().map_err(Error::file("read", &path))?;
    follow_from(&dir, Some(newest), options, sink)
}

/// Delivers `file` to its end, and, where the log is followed, what comes after.
fn follow_from(
    dir: &ContainerDir,
    mut file: Option<File>,
    options: &LogOptions,
    sink: &mut dyn FnMut(LogRecord) -> bool,
) -> Result<(), Error> {
    let path = dir.log();
    let failed = || Error::file("read", &path);
    loop {
        let Some(current) = &file else {
            // Not begun yet.
            if !options.follow || !dir.is_locked()? {
                return Ok(());
            }
            file = File::open(&path).ok();
            std::thread::sleep(FOLLOW_EVERY);
            continue;
        };
        let mut lines = Lines::new(current);
        loop {
            // Looked at before reading: what was written by then is read.
            let live = options.follow && dir.is_locked()?;
            let rotated = is_rotated(current, &path);
            if !lines.deliver(options, sink).map_err(failed())? {
                return Ok(());
            }
            if rotated {
                break;
            }
            if !live {
                return Ok(());
            }
            std::thread::sleep(FOLLOW_EVERY);
        }
        file = File::open(&path).ok();
    }
}

fn is_rotated(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

/// The files of the log, oldest first.
fn parts(path: &Path) -> Vec<File> {
    let older = (1..).map_while(|number| open_older(&numbered(path, number)).ok());
    let mut files: Vec<File> = older.collect();
    files.reverse();
    files.extend(File::open(path));
    files
}

/// Moves to where the last `tail` records begin: gives the index of the file and seeks in it.
fn tail_start(files: &mut [File], tail: Option<usize>) -> std::io::Result<usize> {
    let Some(mut wanted) = tail else { return Ok(0) };
    for (index, file) in files.iter_mut().enumerate().rev() {
        let mut end = file.seek(SeekFrom::End(0))?;
        let length = end;
        let mut block = vec![0; 64 * 1024];
        while end > 0 {
            let start = end.saturating_sub(block.len() as u64);
            let piece = &mut block[..usize::try_from(end - start).unwrap_or(0)];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(piece)?;
            for (offset, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let after = start + offset as u64 + 1;
                // The newline at the very end finishes the last record and begins none.
                if after < length {
                    wanted = wanted.saturating_sub(1);
                }
                if wanted == 0 {
                    file.seek(SeekFrom::Start(after))?;
                    return Ok(index);
                }
            }
            end = start;
        }
        file.seek(SeekFrom::Start(0))?;
        wanted = wanted.saturating_sub(usize::from(length > 0));
        if wanted == 0 {
            return Ok(index);
        }
    }
    Ok(0)
}

/// Reads records from a file that may grow.
struct Lines<'a> {
    reader: BufReader<&'a File>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a File) -> Lines<'a> {
        Lines { reader: BufReader::with_capacity(64 * 1024, file), line: Vec::new() }
    }

    /// Delivers all whole records that there are now. `false` once the sink or the time limit has had enough.
    fn deliver(&mut self, options: &LogOptions, sink: &mut dyn FnMut(LogRecord) -> bool) -> std::io::Result<bool> {
        loop {
            if self.reader.read_until(b'\n', &mut self.line)? == 0 || self.line.last() != Some(&b'\n') {
                return Ok(true);
            }
            // A line that is no record was not written by us.
            let record = serde_json::from_slice::<LogRecord>(&self.line).ok();
            self.line.clear();
            let Some(record) = record else { continue };
            if options.since.is_some() || options.until.is_some() {
                let Ok(time) = record.time.parse::<Timestamp>() else { continue };
                if options.since.is_some_and(|since| time < since) {
                    continue;
                }
                if options.until.is_some_and(|until| time >= until) {
                    return Ok(false);
                }
            }
            if !sink(record) {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(settings: LogSettings, writes: &[(LogStream, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(&dir.path().join("container.log"), settings).unwrap();
        writes.iter().for_each(|(stream, bytes)| writer.write(*stream, bytes));
        writer.finish();
        dir
    }

    fn read(dir: &Path, options: &LogOptions) -> Vec<String> {
        let mut texts = Vec::new();
        logs(dir, options, &mut |record| {
            texts.push(record.log);
            true
        })
        .unwrap();
        texts
    }

    #[test]
    fn a_line_is_one_record_however_it_was_written() {
        let dir = written(
            LogSettings::default(),
            &[(LogStream::Stdout, b"one\ntw"), (LogStream::Stderr, b"oops\n"), (LogStream::Stdout, b"o\nend")],
        );
        assert_eq!(read(dir.path(), &LogOptions::default()), ["one\n", "oops\n", "two\n", "end"]);
        let text = std::fs::read_to_string(dir.path().join("container.log")).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!((first["log"].as_str(), first["stream"].as_str()), (Some("oops\n"), Some("stderr")));
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = "a".to_owned() + &"é".repeat(20_000) + "\n";
        let dir = written(LogSettings::default(), &[(LogStream::Stdout, line.as_bytes())]);
        let records = read(dir.path(), &LogOptions::default());
        assert!(records.len() == 3 && records.iter().all(|text| text.len() <= MAX_LINE));
        assert_eq!(records.concat(), line);
    }

    #[test]
    fn the_tail_is_the_last_records_of_all_files() {
        let lines: Vec<String> = (0..10).map(|n| format!("line {n}\n")).collect();
        let writes: Vec<_> = lines.iter().map(|line| (LogStream::Stdout, line.as_bytes())).collect();
        for max_size in [None, Some(200)] {
            let dir = written(LogSettings { max_size, max_files: 20, ..LogSettings::default() }, &writes);
            assert_eq!(dir.path().join("container.log.1").exists(), max_size.is_some());
            assert_eq!(read(dir.path(), &LogOptions::default()), lines);
            for tail in [0, 1, 2, 5, 9, 10, 99] {
                let options = LogOptions { tail: Some(tail), ..LogOptions::default() };
                assert_eq!(read(dir.path(), &options), lines[10 - tail.min(10)..], "{tail} of {max_size:?}");
            }
        }
    }

    #[test]
    fn rotation_keeps_as_many_files_as_allowed() {
        let settings = LogSettings { max_size: Some(1), max_files: 3, ..LogSettings::default() };
        let dir = written(settings, &[(LogStream::Stdout, b"1\n"), (LogStream::Stdout, b"2\n"), (LogStream::Stdout, b"3\n")]);
        assert_eq!(read(dir.path(), &LogOptions::default()), ["2\n", "3\n"]);
        assert!(!dir.path().join("container.log.3").exists());
        let settings = LogSettings { compress: true, ..settings };
        let dir = written(settings, &[(LogStream::Stdout, b"1\n"), (LogStream::Stdout, b"2\n"), (LogStream::Stdout, b"3\n")]);
        let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["container.log", "container.log.1.gz", "container.log.2.gz"]);
        assert_eq!(read(dir.path(), &LogOptions::default()), ["2\n", "3\n"]);
        assert_eq!(read(dir.path(), &LogOptions { tail: Some(2), ..LogOptions::default() }), ["2\n", "3\n"]);
    }

    #[test]
    fn times_limit_what_is_shown() {
        let dir = written(LogSettings::default(), &[(LogStream::Stdout, b"x\n")]);
        let later = Timestamp::now() + jiff::Span::new().hours(1);
        assert!(read(dir.path(), &LogOptions { since: Some(later), ..LogOptions::default() }).is_empty());
        assert_eq!(read(dir.path(), &LogOptions { until: Some(later), ..LogOptions::default() }), ["x\n"]);
    }
}

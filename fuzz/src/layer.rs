//! Layers: a tar stream is unpacked, whatever it says.
//!
//! ```text
//! rBYTES              the stream itself, its headers' checksums mended
//! f NAME CONTENT      or line by line: a file,
//! d NAME              a directory,
//! l NAME TARGET       a link,
//! h NAME TARGET       a hard link,
//! p NAME              a pipe,
//! c NAME              a character device,
//! x KEY VALUE         a record about the next entry,
//! g                   the stream is cut in the middle of a block
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strake::image::layer::{Applied, ApplyOptions, Devices, LayerOptions, apply, write_layer};
use strake::store::view::{LayerStack, Marks};
use tar::{EntryType, Header};

use crate::cost;

/// What lies beside the layer.
const VICTIM: &str = "untouched";

/// Panics where something does not hold for this stream.
pub fn check(data: &[u8]) {
    let stream = match data.split_first() {
        Some((b'r', raw)) => mended(raw),
        _ => written_out(data),
    };
    cost::within(Duration::from_secs(5), "unpacking a layer", || {
        let place = Place::new();
        if place.unpack(&stream).is_err() {
            return;
        }
        // What is there can be written, and reads as the same again.
        let first = place.written();
        let again = Place::new();
        again.unpack(&first).expect("a layer that was written can be unpacked");
        assert_eq!(place.listed(), again.listed(), "unpacking what was written makes other files");
        assert_eq!(first, again.written(), "writing the same files gives other bytes");
    });
}

/// A directory with a layer in it, and something that must stay as it is.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = base.join(format!("strake-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(dir.join("outside")).expect("a new directory");
        std::fs::create_dir(dir.join("layer")).expect("a new directory");
        std::fs::write(dir.join("outside/victim"), VICTIM).expect("a new file");
        Place(dir)
    }

    fn unpack(&self, stream: &[u8]) -> Result<Applied, strake::image::layer::Error> {
        let options = ApplyOptions {
            devices: if rustix::process::geteuid().is_root() { Devices::Create } else { Devices::Skip },
            marks: if rustix::process::geteuid().is_root() { Marks::Trusted } else { Marks::User },
            max_unpacked_size: 1 << 20,
            max_entries: 10_000,
            ..ApplyOptions::default()
        };
        let applied = apply(stream, &self.0.join("layer"), &options);
        assert_eq!(std::fs::read_to_string(self.0.join("outside/victim")).ok().as_deref(), Some(VICTIM));
        let names = |dir: &Path| std::fs::read_dir(dir).map(Iterator::count).unwrap_or_default();
        assert_eq!((names(&self.0), names(&self.0.join("outside"))), (2, 1), "something was made outside");
        let victim = std::fs::symlink_metadata(self.0.join("outside/victim")).expect("it is there");
        assert_eq!((victim.nlink(), victim.mode() & 0o7777 & !0o22, victim.uid()), (1, 0o644, rustix::process::geteuid().as_raw()));
        applied
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let options = LayerOptions { marks: if rustix::process::geteuid().is_root() { Marks::Trusted } else { Marks::User }, ..LayerOptions::default() };
        let stack = LayerStack::from(Vec::<PathBuf>::new());
        write_layer(&self.0.join("layer"), &stack, &mut out, &options).expect("what was unpacked can be written");
        out
    }

    /// Each entry with what makes it what it is.
    fn listed(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.0.join("layer")];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
                // A whiteout of what is not below says nothing, so it is not written.
                if metadata.mode() & 0o170_000 == 0o020_000 && metadata.rdev() == 0 {
                    continue;
                }
                let what = match () {
                    () if metadata.is_symlink() => format!("-> {:?}", std::fs::read_link(&path).ok()),
                    () if metadata.is_file() => format!("{:?}", std::fs::read(&path).ok()),
                    () => String::new(),
                };
                let line = format!("{:o} {}:{} {} {what}", metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev());
                if metadata.is_dir() {
                    left.push(path.clone());
                }
                found.insert(path.strip_prefix(&self.0).expect("it is below").to_owned(), line);
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The stream with right checksums wherever there might be a header, so that other bytes than those of checksums are found out.
fn mended(raw: &[u8]) -> Vec<u8> {
    let mut stream = raw.to_vec();
    let mut at = 0;
    while at + 512 <= stream.len() {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&stream[at..at + 512]);
        if header.as_bytes().iter().any(|byte| *byte != 0) {
            header.set_cksum();
            stream[at..at + 512].copy_from_slice(header.as_bytes());
        }
        let size = header.entry_size().unwrap_or(0).min(1 << 20);
        at += 512 + usize::try_from(size.next_multiple_of(512)).unwrap_or_default();
    }
    stream
}

fn written_out(lines: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut records = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').take(200) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (kind, name, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match kind {
            b"f" => entry(&mut stream, &mut records, EntryType::Regular, name, b"", rest),
            b"d" => entry(&mut stream, &mut records, EntryType::Directory, name, b"", b""),
            b"l" => entry(&mut stream, &mut records, EntryType::Symlink, name, rest, b""),
            b"h" => entry(&mut stream, &mut records, EntryType::Link, name, rest, b""),
            b"p" => entry(&mut stream, &mut records, EntryType::Fifo, name, b"", b""),
            b"c" => entry(&mut stream, &mut records, EntryType::Char, name, b"", b""),
            b"x" => record(&mut records, name, rest),
            b"g" => {
                stream.truncate(stream.len().saturating_sub(100));
                return stream;
            }
            _ => {}
        }
    }
    stream.resize(stream.len() + 1024, 0);
    stream
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..rest + 9).find(|length| rest + length.to_string().len() == *length).unwrap_or(rest);
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

fn entry(stream: &mut Vec<u8>, records: &mut Vec<u8>, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) {
    if name.len() > 100 {
        record(records, b"path", name);
    }
    if link.len() > 100 {
        record(records, b"linkpath", link);
    }
    if !records.is_empty() {
        block(stream, EntryType::XHeader, b"pax", b"", records);
        records.clear();
    }
    block(stream, kind, &name[..name.len().min(100)], &link[..link.len().min(100)], content);
}

fn block(stream: &mut Vec<u8>, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    if kind == EntryType::Char {
        // Which devices there are is the kernel's business; this one harms nobody.
        let _ = header.set_device_major(1).and_then(|()| header.set_device_minor(3));
    }
    header.set_cksum();
    stream.extend_from_slice(header.as_bytes());
    stream.extend_from_slice(content);
    stream.resize(stream.len().next_multiple_of(512), 0);
}

//! Writes canonical tar streams: the same entries give the same bytes, for ever.
//!
//! Headers are plain ustar, and a PAX header goes before one only for what does not fit: long names, large numbers, times before the epoch, extended
//! attributes. Owners are numbers (their names are blank), times are whole seconds: BuildKit and containerd truncate them in layers too, and so a layer that is
//! unpacked and packed again stays what it was.

use std::io::{self, Read, Write};

use crate::oci::{Algorithm, Digest};

use super::Error;
use super::hashing::HashingWriter;

/// The largest numbers that fit in a header.
const MAX_ID: u64 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// What an entry is, with what only that kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind<'a> {
    /// A file of this size; its data follows.
    File(u64),
    Directory,
    Symlink(&'a [u8]),
    HardLink(&'a [u8]),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// An entry's header.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// The path without a leading slash; a directory's without a trailing one.
    pub(super) path: &'a [u8],
    pub(super) kind: EntryKind<'a>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whole seconds since the epoch.
    pub(super) mtime: i64,
    /// Sorted by name.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes a tar stream and hashes it.
pub(super) struct TarWriter<W> {
    out: HashingWriter<W>,
    entries: u64,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W, algorithm: Algorithm) -> TarWriter<W> {
        TarWriter { out: HashingWriter::new(out, algorithm), entries: 0 }
    }

    /// Writes an entry that has no data.
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        self.entries += 1;
        let directory = (entry.kind == EntryKind::Directory).then(|| [entry.path, b"/"].concat());
        let path = directory.as_deref().unwrap_or(entry.path);
        let mut records = Vec::new();
        let header = header_block(entry, path, &mut records);
        if !records.is_empty() {
            self.out.put(&extended_block(path, records.len() as u64))?;
            self.out.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.put(&header)
    }

    /// Writes a file's header and as many bytes of `data` as the header says. The inner result is false where `data` has fewer.
    pub(super) fn file(&mut self, entry: &Entry<'_>, data: &mut impl Read) -> io::Result<Result<bool, Error>> {
        let EntryKind::File(size) = entry.kind else { return Ok(self.entry(entry).map(|()| true)) };
        if let Err(error) = self.entry(entry) {
            return Ok(Err(error));
        }
        let whole = self.out.put_from(data, size)?.and_then(|count| self.pad(size).map(|()| count == size));
        Ok(whole)
    }

    /// Writes a file whose bytes are at hand, as many as the header says.
    pub(super) fn small_file(&mut self, entry: &Entry<'_>, data: &[u8]) -> Result<(), Error> {
        self.entry(entry)?;
        self.out.put(data)?;
        self.pad(data.len() as u64)
    }

    /// Ends the archive; gives the digest, size and number of entries of the whole stream.
    pub(super) fn finish(mut self) -> Result<(Digest, u64, u64), Error> {
        self.out.put(&[0; 1024])?;
        let (digest, size) = self.out.finish()?;
        Ok((digest, size, self.entries))
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.out.put(&[0; 512][..padding])
    }
}

/// Makes an entry's header; what does not fit goes to `records`, in the order of their keys.
fn header_block(entry: &Entry<'_>, path: &[u8], records: &mut Vec<u8>) -> [u8; 512] {
    let mut block = [0u8; 512];
    let (flag, size, link, device) = match entry.kind {
        EntryKind::File(size) => (b'0', size, &b""[..], None),
        EntryKind::HardLink(to) => (b'1', 0, to, None),
        EntryKind::Symlink(to) => (b'2', 0, to, None),
        EntryKind::CharDevice(major, minor) => (b'3', 0, &b""[..], Some((major, minor))),
        EntryKind::BlockDevice(major, minor) => (b'4', 0, &b""[..], Some((major, minor))),
        EntryKind::Directory => (b'5', 0, &b""[..], None),
        EntryKind::Fifo => (b'6', 0, &b""[..], None),
    };
    for (name, value) in entry.xattrs {
        put_record(records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    let gid = fit(entry.gid.into(), MAX_ID, b"gid", records);
    if link.len() > 100 {
        put_record(records, b"linkpath", link);
    }
    let mtime = match u64::try_from(entry.mtime) {
        Ok(seconds) => fit(seconds, MAX_SIZE, b"mtime", records),
        Err(_) => {
            put_record(records, b"mtime", entry.mtime.to_string().as_bytes());
            0
        }
    };
    let (prefix, name) = split_path(path).unwrap_or_else(|| {
        put_record(records, b"path", path);
        (b"", &path[..path.len().min(100)])
    });
    let size = fit(size, MAX_SIZE, b"size", records);
    let uid = fit(entry.uid.into(), MAX_ID, b"uid", records);
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], entry.mode.into());
    octal(&mut block[108..116], uid);
    octal(&mut block[116..124], gid);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], mtime);
    block[156] = flag;
    let link = &link[..link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if let Some((major, minor)) = device {
        octal(&mut block[329..337], major.into());
        octal(&mut block[337..345], minor.into());
    }
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    put_checksum(&mut block);
    block
}

/// The header of a PAX header with `size` bytes of records.
fn extended_block(path: &[u8], size: u64) -> [u8; 512] {
    let mut block = [0u8; 512];
    // Only seen by programs that do not know PAX.
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let name = [b"PaxHeaders.0/", &name[..name.len().min(87)]].concat();
    block[..name.len()].copy_from_slice(&name);
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], 0);
    block[156] = b'x';
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_checksum(&mut block);
    block
}

/// Splits a path into a prefix of at most 155 bytes and a name of at most 100, as late as possible; `None` where it has to go elsewhere.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let last = path.len() - 1;
    let cut = path[..156.min(last)].iter().rposition(|byte| *byte == b'/')?;
    (cut > 0 && path.len() - cut - 1 <= 100).then(|| (&path[..cut], &path[cut + 1..]))
}

/// `number` where it fits in its field; otherwise it becomes a record and the field is 0.
fn fit(number: u64, limit: u64, key: &[u8], records: &mut Vec<u8>) -> u64 {
    if number <= limit {
        return number;
    }
    put_record(records, key, number.to_string().as_bytes());
    0
}

/// Appends `<length> <key>=<value>\n`, where the length counts its own digits.
fn put_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Octal digits, all but the last byte of the field, which stays zero.
fn octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

fn put_checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block[154] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for (value, expected) in [("", "5 k=\n"), ("123", "8 k=123\n"), ("1234", "9 k=1234\n"), ("12345", "11 k=12345\n")] {
            let mut records = Vec::new();
            put_record(&mut records, b"k", value.as_bytes());
            assert_eq!(String::from_utf8(records).unwrap(), expected);
        }
    }

    #[test]
    fn a_path_is_split_only_where_both_parts_fit() {
        let long = [&[b'a'; 120][..], b"/", &[b'b'; 100]].concat();
        assert_eq!(split_path(&long).map(|(prefix, name)| (prefix.len(), name.len())), Some((120, 100)));
        let name_too_long = [&[b'a'; 10][..], b"/", &[b'b'; 101]].concat();
        assert_eq!(split_path(&name_too_long), None);
        let prefix_too_long = [&[b'a'; 156][..], b"/", b"b"].concat();
        assert_eq!(split_path(&prefix_too_long), None);
        let directory = [&[b'a'; 100][..], b"/"].concat();
        assert_eq!(split_path(&directory), None);
    }
}

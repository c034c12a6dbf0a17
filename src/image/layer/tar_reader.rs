//! Reads the entries of a tar stream that is not trusted: ustar, GNU and PAX, with every form of sparse file.
//!
//! The headers' structure is the crate `tar`'s. Putting headers together is our own, for two reasons: an extended header's size must be limited before it
//! is read, and PAX values are bytes with a length (an attribute's value may well hold a newline). Where the formats leave room we read as Go's `archive/tar`
//! does, since that is what layers are tested with: links and devices have no data whatever their size says, and an archive may end without its end marker.

use std::io::Read;

use tar::Header;

use crate::oci::{Algorithm, Digest};

use super::hashing::HashingReader;
use super::{Error, Xattrs};

const BLOCK: u64 = 512;

/// How many pieces a sparse file may have.
const MAX_SPARSE_PIECES: usize = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry, all its headers put together. Its data is read with [`TarReader::data`].
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: MemberKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    /// The file's size, holes included.
    pub(crate) size: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) rdev: (u32, u32),
    pub(crate) xattrs: Xattrs,
    /// Offset and length of each piece of a sparse file's data, in order and not overlapping.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

/// The extended headers that describe the entry after them.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Xattrs,
    sparse: PaxSparse,
    any: bool,
}

/// GNU's records for sparse files, in their three versions.
#[derive(Default)]
struct PaxSparse {
    major: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    offset: Option<u64>,
    map: Option<Vec<(u64, u64)>>,
}

/// A tar stream.
pub(crate) struct TarReader<R> {
    source: HashingReader<R>,
    max_header: u64,
    /// What is left of the current entry's data, and of the padding after it.
    data_left: u64,
    padding: u64,
    ended: bool,
    header_at: u64,
}

impl<R: Read> TarReader<R> {
    /// Reads `inner`, and hashes it by `algorithm`; extended headers may have up to `max_header` bytes.
    pub(crate) fn new(inner: R, max_header: u64, algorithm: Algorithm) -> TarReader<R> {
        TarReader { source: HashingReader::new(inner, algorithm), max_header, data_left: 0, padding: 0, ended: false, header_at: 0 }
    }

    /// Like [`TarReader::new`], for an archive whose digest nobody asks for: [`TarReader::finish`] does not tell it.
    pub(crate) fn unhashed(inner: R, max_header: u64) -> TarReader<R> {
        TarReader { source: HashingReader::unhashed(inner), max_header, data_left: 0, padding: 0, ended: false, header_at: 0 }
    }

    /// The next entry; skips what is left of the one before.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut extended = Extended::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return if extended.any { Err(self.malformed("an extended header without an entry")) } else { Ok(None) };
            };
            let size = self.number(&header.as_old().size)?;
            match header.as_old().linkflag[0] {
                b'x' | b'X' => {
                    let records = self.extended_data(size)?;
                    self.read_pax(&records, &mut extended)?;
                }
                b'L' => extended.name = Some(until_nul(&self.extended_data(size)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.extended_data(size)?).to_vec()),
                // Defaults for all entries (git writes its commit there) and volume labels: Docker reads past them too.
                b'g' | b'V' => {
                    self.set_data(size);
                    continue;
                }
                _ => return self.member(&header, size, extended).map(Some),
            }
            extended.any = true;
        }
    }

    /// The next bytes of the current entry's data; empty at its end. Give what was used to [`TarReader::consume`].
    pub(crate) fn data(&mut self) -> Result<&[u8], Error> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let position = self.source.position();
        let available = self.source.peek()?;
        if available.is_empty() {
            return Err(Error::Truncated { position });
        }
        let count = available.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        Ok(&available[..count])
    }

    /// Where in the stream the next byte of [`TarReader::data`] stands.
    pub(crate) fn position(&self) -> u64 {
        self.source.position()
    }

    /// Marks `count` bytes of [`TarReader::data`] as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.data_left = self.data_left.saturating_sub(count as u64);
        self.source.consume(count);
    }

    /// Reads whatever follows the end of the archive; gives the digest and the size of the whole stream.
    pub(crate) fn finish(self) -> Result<(Digest, u64), Error> {
        self.source.finish()
    }

    fn skip_data(&mut self) -> Result<(), Error> {
        loop {
            let count = self.data()?.len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        self.data_left = std::mem::take(&mut self.padding);
        while self.data_left > 0 {
            let count = self.data()?.len();
            self.consume(count);
        }
        Ok(())
    }

    fn set_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn header(&mut self) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.header_at = self.source.position();
        let mut header = Header::new_old();
        match self.source.read_full(header.as_mut_bytes())? {
            0 => return Ok(None),
            512 => {}
            _ => return Err(Error::Truncated { position: self.source.position() }),
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let stored = self.number(&header.as_old().cksum)?;
        let (unsigned, signed) = checksums(header.as_bytes());
        if stored != unsigned && i64::try_from(stored) != Ok(signed) {
            return Err(self.malformed("the header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extended_data(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > self.max_header {
            return Err(Error::HeaderTooLarge { size, limit: self.max_header, position: self.header_at });
        }
        self.set_data(size);
        let mut out = Vec::with_capacity(usize::try_from(size).unwrap_or_default().min(1 << 16));
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(out);
            }
            out.extend_from_slice(data);
            let count = data.len();
            self.consume(count);
        }
    }

    fn read_pax(&self, mut records: &[u8], extended: &mut Extended) -> Result<(), Error> {
        while !records.is_empty() && records[0] != 0 {
            let (key, value, rest) = pax_record(records).ok_or_else(|| self.malformed("a PAX record is broken"))?;
            records = rest;
            // An empty value takes an earlier record back.
            let some = (!value.is_empty()).then_some(value);
            match key {
                b"path" => extended.name = some.map(<[u8]>::to_vec),
                b"linkpath" => extended.link = some.map(<[u8]>::to_vec),
                b"size" => extended.size = some.map(|text| self.decimal(text)).transpose()?,
                b"uid" => extended.uid = some.map(|text| self.decimal(text)).transpose()?,
                b"gid" => extended.gid = some.map(|text| self.decimal(text)).transpose()?,
                b"mtime" => extended.mtime = some.map(|text| self.time(text)).transpose()?,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        extended.xattrs.retain(|(known, _)| known != name);
                        extended.xattrs.push((name.to_vec(), value.to_vec()));
                    } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                        self.read_sparse_record(name, value, &mut extended.sparse)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read_sparse_record(&self, name: &[u8], value: &[u8], sparse: &mut PaxSparse) -> Result<(), Error> {
        match name {
            b"major" => sparse.major = Some(self.decimal(value)?),
            b"name" => sparse.name = Some(value.to_vec()),
            b"realsize" | b"size" => sparse.real_size = Some(self.decimal(value)?),
            b"offset" => sparse.offset = Some(self.decimal(value)?),
            b"numbytes" => {
                let offset = sparse.offset.take().ok_or_else(|| self.malformed("a sparse file's map is broken"))?;
                sparse.map.get_or_insert_default().push((offset, self.decimal(value)?));
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty());
                let numbers = numbers.map(|text| self.decimal(text)).collect::<Result<Vec<u64>, Error>>()?;
                sparse.map = Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            }
            _ => {}
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Member, Error> {
        let old = header.as_old();
        let flag = old.linkflag[0];
        let name = extended.name.unwrap_or_else(|| header_name(header));
        let link = extended.link.unwrap_or_else(|| until_nul(&old.linkname).to_vec());
        let kind = match flag {
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::CharDevice,
            b'4' => MemberKind::BlockDevice,
            b'5' | b'D' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            // Before POSIX a directory was told by its slash.
            0 if name.last() == Some(&b'/') => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            _ => return Err(self.malformed("an entry's type is unknown")),
        };
        let size = if kind == MemberKind::File || flag == b'D' { extended.size.unwrap_or(size) } else { 0 };
        let mut member = Member {
            kind,
            mode: u32::try_from(self.number(&old.mode)? & 0o7777).unwrap_or_default(),
            uid: self.owner(extended.uid, &old.uid)?,
            gid: self.owner(extended.gid, &old.gid)?,
            mtime: match extended.mtime {
                Some(time) => time,
                // Base-256 fields before the epoch are in two's complement.
                None => (self.number(&old.mtime)? as i64, 0),
            },
            size,
            link,
            rdev: self.device(header)?,
            xattrs: extended.xattrs,
            sparse: None,
            name,
        };
        self.set_data(size);
        if kind == MemberKind::File {
            self.sparse_map(header, flag, extended.sparse, &mut member)?;
        }
        Ok(member)
    }

    fn sparse_map(&mut self, header: &Header, flag: u8, pax: PaxSparse, member: &mut Member) -> Result<(), Error> {
        let (map, real_size) = if flag == b'S' {
            self.gnu_sparse(header)?
        } else if pax.major == Some(1) {
            (self.sparse_map_in_data()?, pax.real_size.unwrap_or(member.size))
        } else if let Some(map) = pax.map {
            (map, pax.real_size.unwrap_or(member.size))
        } else {
            return Ok(());
        };
        if let Some(name) = pax.name {
            member.name = name;
        }
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in &map {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real_size);
            end = next.ok_or_else(|| self.malformed("a sparse file's map is out of order or out of bounds"))?;
            stored = stored.saturating_add(*length);
        }
        if stored != self.data_left {
            return Err(self.malformed("a sparse file's map does not fit its data"));
        }
        member.size = real_size;
        member.sparse = Some(map);
        Ok(())
    }

    fn gnu_sparse(&mut self, header: &Header) -> Result<(Vec<(u64, u64)>, u64), Error> {
        let Some(gnu) = header.as_gnu() else {
            return Err(self.malformed("a sparse file without a GNU header"));
        };
        let mut map = Vec::new();
        let real_size = self.number(&gnu.realsize)?;
        let mut more = gnu.isextended[0] != 0;
        for piece in &gnu.sparse {
            self.push_piece(&mut map, &piece.offset, &piece.numbytes)?;
        }
        while more {
            let mut block = [0; 512];
            if self.source.read_full(&mut block)? < block.len() {
                return Err(Error::Truncated { position: self.source.position() });
            }
            for piece in block[..504].chunks_exact(24) {
                self.push_piece(&mut map, &piece[..12], &piece[12..])?;
            }
            more = block[504] != 0;
        }
        Ok((map, real_size))
    }

    fn push_piece(&self, map: &mut Vec<(u64, u64)>, offset: &[u8], length: &[u8]) -> Result<(), Error> {
        if offset[0] == 0 || length[0] == 0 {
            return Ok(());
        }
        if map.len() >= MAX_SPARSE_PIECES {
            return Err(self.malformed("a sparse file has too many pieces"));
        }
        map.push((self.number(offset)?, self.number(length)?));
        Ok(())
    }

    /// The map of version 1.0: decimal numbers, one a line, in front of the data and padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        let start = self.data_left;
        let count = usize::try_from(self.line_number()?).unwrap_or(usize::MAX);
        if count > MAX_SPARSE_PIECES {
            return Err(self.malformed("a sparse file has too many pieces"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((self.line_number()?, self.line_number()?));
        }
        let used = start - self.data_left;
        let mut padding = (BLOCK - used % BLOCK) % BLOCK;
        while padding > 0 {
            let step = self.data()?.len().min(usize::try_from(padding).unwrap_or_default());
            if step == 0 {
                return Err(self.malformed("a sparse file's map is broken"));
            }
            self.consume(step);
            padding -= step as u64;
        }
        Ok(map)
    }

    fn line_number(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for _ in 0..21 {
            let Some(&byte) = self.data()?.first() else { break };
            self.consume(1);
            if byte == b'\n' {
                return Ok(value);
            }
            if !byte.is_ascii_digit() {
                break;
            }
            value = value.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
        }
        Err(self.malformed("a sparse file's map is broken"))
    }

    fn owner(&self, pax: Option<u64>, field: &[u8]) -> Result<u32, Error> {
        let id = match pax {
            Some(id) => id,
            None => self.number(field)?,
        };
        // The largest number means "no change" to chown.
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| self.malformed("an owner's number is too large"))
    }

    fn device(&self, header: &Header) -> Result<(u32, u32), Error> {
        let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
            (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
            _ => return Ok((0, 0)),
        };
        let part = |field: &[u8]| u32::try_from(self.number(field)?).map_err(|_| self.malformed("a device's number is too large"));
        Ok((part(major)?, part(minor)?))
    }

    /// A number field: octal digits between blanks (none mean 0), or base 256.
    fn number(&self, field: &[u8]) -> Result<u64, Error> {
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let first = if negative { field[0] } else { field[0] & 0x7f };
            let start = if negative { -1i128 } else { 0 };
            let value = std::iter::once(first).chain(field[1..].iter().copied()).fold(start, |sum, byte| sum << 8 | i128::from(byte));
            return i64::try_from(value).map(|value| value as u64).map_err(|_| self.malformed("a number is too large"));
        }
        let text = until_nul(field).trim_ascii();
        text.iter()
            .try_fold(0u64, |sum, byte| match byte {
                b'0'..=b'7' => Some(sum << 3 | u64::from(byte - b'0')),
                _ => None,
            })
            .ok_or_else(|| self.malformed("a number is not octal"))
    }

    fn decimal(&self, text: &[u8]) -> Result<u64, Error> {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.malformed("a PAX record's number is broken"))
    }

    /// A PAX time: seconds, perhaps negative, perhaps with a fraction.
    fn time(&self, text: &[u8]) -> Result<(i64, u32), Error> {
        let parsed = std::str::from_utf8(text).ok().and_then(parse_time);
        parsed.ok_or_else(|| self.malformed("a PAX record's time is broken"))
    }

    fn malformed(&self, reason: &'static str) -> Error {
        Error::Malformed { position: self.header_at, reason }
    }
}

fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if negative && nanoseconds > 0 {
        // The file system counts up from the second before.
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// Splits `<length> <key>=<value>\n` off: key, value and the records after it.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let body = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

fn header_name(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// The sum of a header's bytes with its checksum field blank; old programs added them as signed numbers.
fn checksums(header: &[u8; 512]) -> (u64, i64) {
    let mut unsigned = 0u64;
    let mut signed = 0i64;
    for (at, byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte as i8);
    }
    (unsigned, signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_count_up() {
        for (text, expected) in [
            ("1.5", Some((1, 500_000_000))),
            ("1700000000", Some((1_700_000_000, 0))),
            ("1.0000000019", Some((1, 1))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("x", None),
            ("1.x", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn a_pax_value_may_hold_a_newline() {
        let (key, value, rest) = pax_record(b"11 a=b\nc\nd\n5 x=\n").unwrap();
        assert_eq!((key, value, rest), (&b"a"[..], &b"b\nc\nd"[..], &b"5 x=\n"[..]));
        for broken in [&b"999999999999999999999 a=b\n"[..], b"0 a=b\n", b"3 a=b\n", b"8 a=b\n", b"5 ab\n", b"", b"x"] {
            assert!(pax_record(broken).is_none(), "{broken:?}");
        }
    }
}

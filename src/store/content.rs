//! Copies the bytes of one file: shared if the file system can, copied in the kernel if not, and through a buffer as the last resort.
//!
//! Small files go through a buffer anyway: two calls cost less than setting up a copy in the kernel.
//!
//! Sharing is tried once per pair of file systems. Holes stay holes in files large enough for that to matter.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Files smaller than this are not searched for holes.
const SPARSE_FROM: u64 = 128 * 1024;

/// Files up to this size are copied through a buffer.
const SMALL: usize = 32 * 1024;

/// What each pair of file systems has been found to be able to do.
#[derive(Debug, Default)]
pub(crate) struct ContentCopier {
    known: Mutex<HashMap<u64, Means>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// `FICLONE`: the two files share their blocks.
    Share,
    /// `copy_file_range(2)`.
    Range,
    /// `read(2)` and `write(2)`.
    Buffer,
}

impl ContentCopier {
    /// Copies all of `from`, which is on the device `device` and has `size` bytes, into the empty file `to`.
    pub(crate) fn copy(&self, from: &mut File, device: u64, size: u64, to: &OwnedFd) -> io::Result<u64> {
        if size == 0 {
            return Ok(0);
        }
        let means = self.means(from, device, to);
        if means == Means::Share {
            return Ok(size);
        }
        if size <= SMALL as u64 {
            return copy_small(from, size, to);
        }
        if means == Means::Range {
            match copy_ranges(from, size, to) {
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::BADF) => {
                    self.known().insert(device, Means::Buffer);
                    rustix::fs::seek(&*from, SeekFrom::Start(0))?;
                    rustix::fs::ftruncate(to, 0)?;
                    rustix::fs::seek(to, SeekFrom::Start(0))?;
                }
                other => return Ok(other?),
            }
        }
        copy_buffer(from, to)
    }

    /// The same for a small file, whose bytes are appended to `kept` on the way. `None` where nothing was done: the file systems share content.
    pub(crate) fn copy_keeping(
        &self,
        from: &File,
        (device, size): (u64, u64),
        to: &OwnedFd,
        kept: &mut Vec<u8>,
    ) -> io::Result<Option<u64>> {
        if size > 0 && self.means(from, device, to) == Means::Share {
            return Ok(None);
        }
        let start = kept.len();
        read_all(from, size, kept)?;
        write_all(to, kept.get(start..).unwrap_or_default())?;
        Ok(Some((kept.len() - start) as u64))
    }

    /// How to copy from the device `device`. Where it is by sharing, that is done.
    fn means(&self, from: &File, device: u64, to: &OwnedFd) -> Means {
        let means = self.known().get(&device).copied().unwrap_or(Means::Share);
        if means == Means::Share && rustix::fs::ioctl_ficlone(to, from).is_err() {
            return *self.known().entry(device).or_insert(Means::Range);
        }
        means
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Means>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `bytes` to where `file` stands.
pub(crate) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Appends what `file` holds to `kept`; that should be `size` bytes.
fn read_all(file: &File, size: u64, kept: &mut Vec<u8>) -> io::Result<()> {
    let end = kept.len() + usize::try_from(size).unwrap_or(0);
    loop {
        // One byte more, to see the end at once.
        kept.reserve(end.saturating_sub(kept.len()) + 1);
        let room = kept.capacity() - kept.len();
        match rustix::io::read(file, rustix::buffer::spare_capacity(kept)) {
            Ok(0) => return Ok(()),
            Ok(count) if count < room && kept.len() >= end => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies the ranges that hold data.
fn copy_ranges(from: &File, size: u64, to: &OwnedFd) -> rustix::io::Result<u64> {
    // A file system that cannot tell has no holes worth keeping.
    if size < SPARSE_FROM || rustix::fs::seek(from, SeekFrom::Hole(0)).unwrap_or(size) >= size {
        return copy_range(from, 0, size, to);
    }
    let mut position = 0;
    while position < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?.min(size);
        copy_range(from, start, end, to)?;
        position = end;
    }
    rustix::fs::ftruncate(to, size)?;
    Ok(size)
}

fn copy_range(from: &File, start: u64, end: u64, to: &OwnedFd) -> rustix::io::Result<u64> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            // The file became shorter.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(write_at - start)
}

/// Copies a file that most likely fits in a buffer on the stack.
fn copy_small(from: &mut File, size: u64, to: &OwnedFd) -> io::Result<u64> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); SMALL + 1];
    let mut total = 0;
    loop {
        let (bytes, _) = match rustix::io::read(&*from, &mut buffer[..]) {
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let length = bytes.len();
        write_all(to, bytes)?;
        total += length as u64;
        // Less than was asked for, and no less than there should be: that was the end.
        if length == 0 || (length <= SMALL && total >= size) {
            return Ok(total);
        }
    }
}

fn copy_buffer(from: &mut File, to: &OwnedFd) -> io::Result<u64> {
    let mut writer = File::from(to.try_clone()?);
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        writer.write_all(buffer.get(..length).unwrap_or_default())?;
        total += length as u64;
    }
}

//! The content of files.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Copies all of `from` into the empty file `to`, which has holes where that has some.
pub fn copy_content(from: &File, to: &File) -> io::Result<()> {
    let size = rustix::fs::fstat(from)?.st_size as u64;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // The rest is a hole; or the kernel makes the content as it is read, and knows no size.
            Err(Errno::NXIO) if size > 0 => break,
            // Nothing is told of holes.
            Err(_) => {
                rustix::fs::seek(to, SeekFrom::Start(at))?;
                return io::copy(&mut &*from, &mut &*to).map(drop);
            }
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        rustix::fs::seek(from, SeekFrom::Start(start))?;
        rustix::fs::seek(to, SeekFrom::Start(start))?;
        let copied = io::copy(&mut from.take(end - start), &mut &*to)?;
        if copied < end - start {
            // Somebody has made it shorter meanwhile.
            return Ok(rustix::fs::ftruncate(to, start + copied)?);
        }
        at = end;
    }
    Ok(rustix::fs::ftruncate(to, size.max(at))?)
}

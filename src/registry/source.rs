//! Where the bytes of an upload come from. A source can be opened again at any offset, so that an upload survives a cut.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

/// Bytes that arrive in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Pieces that are read from a file.
const PIECE: usize = 256 << 10;

/// The bytes of a blob, from any offset on, as often as needed.
pub trait BlobSource: Send + Sync {
    /// Opens the bytes from `offset` to the end. Called on a thread that may block.
    ///
    /// # Errors
    /// The bytes cannot be had; the upload then ends with this error.
    fn open_at(&self, offset: u64) -> io::Result<ByteStream>;
}

impl BlobSource for Bytes {
    fn open_at(&self, offset: u64) -> io::Result<ByteStream> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let rest = self.slice(start..);
        Ok(Box::pin(futures_util::stream::iter((!rest.is_empty()).then_some(Ok(rest)))))
    }
}

/// A file that is uploaded.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// The file at `path`. It is opened when the upload begins.
    pub fn new(path: impl Into<PathBuf>) -> FileSource {
        FileSource { path: path.into() }
    }
}

impl BlobSource for FileSource {
    fn open_at(&self, offset: u64) -> io::Result<ByteStream> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(read_stream(file))
    }
}

/// The bytes of a blocking reader, read on threads that may block. Needs a tokio runtime when it is polled.
pub fn read_stream(reader: impl Read + Send + 'static) -> ByteStream {
    Box::pin(futures_util::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let read = move || {
            let mut buffer = vec![0; PIECE];
            let result = read_some(&mut reader, &mut buffer).map(|length| {
                buffer.truncate(length);
                Bytes::from(buffer)
            });
            (result, reader)
        };
        match crate::task::spawn_blocking(read).await {
            Ok((Ok(bytes), _)) if bytes.is_empty() => None,
            Ok((Ok(bytes), reader)) => Some((Ok(bytes), Some(reader))),
            Ok((Err(error), _)) => Some((Err(error), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    }))
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

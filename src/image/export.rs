//! Results outside of the store: a directory, a tar archive of the files, archives of the image.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::oci::Reference;
use crate::path::RootPath;
use crate::progress::Meter;
use crate::store::Store;
use crate::sys::tree::{Kind, Tree};
use crate::task::fault_point;

use super::Error;
use super::archive::{ArchiveFormat, Saved, write_archive, write_layout, write_packed};
use super::layer::{CopyOptions, copy_tree_to_dir, write_rootfs_tar};
use super::platform_files::with_layout;
pub use super::platform_files::{FilesLayout, PlatformFiles};
use super::several::PackedRoot;

/// How files are written.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The time that all of them get (seconds since the epoch), instead of the one that each has.
    pub time: Option<i64>,
    /// How those for several platforms lie beside each other.
    pub layout: FilesLayout,
    /// Whether what else there is in the directory is removed.
    pub delete: bool,
}

/// Writes the files into a directory, which is made where it is missing.
pub fn to_directory(files: &[PlatformFiles<'_>], dir: &Path, options: &FileOptions, meter: &Meter) -> Result<(), Error> {
    with_layout(files, options.layout, |tree| {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { action: "make", path: dir.to_owned(), source })?;
        if options.delete {
            remove_others(tree, dir)?;
        }
        fill(tree, dir, options.time, meter)
    })
}

/// Removes what is in a directory and not in `tree`, or there as something else. Links are removed, never followed.
fn remove_others(tree: &dyn Tree, dir: &Path) -> Result<(), Error> {
    let mut pending = vec![RootPath::root()];
    while let Some(at) = pending.pop() {
        let here = dir.join(at.relative());
        let failed = |source| Error::Io { action: "read", path: here.clone(), source };
        for entry in std::fs::read_dir(&here).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = at.join(entry.file_name());
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let exported = tree.metadata(&path).map_err(failed)?.map(|metadata| metadata.kind);
            match exported {
                Some(Kind::Directory) if is_directory => pending.push(path),
                // Writing replaces it.
                Some(Kind::File | Kind::Symlink | Kind::Fifo) if !is_directory => {}
                _ => {
                    let removed = if is_directory { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
                    removed.map_err(|source| Error::Io { action: "remove", path: entry.path(), source })?;
                }
            }
        }
    }
    Ok(())
}

fn fill(tree: &dyn Tree, dir: &Path, time: Option<i64>, meter: &Meter) -> Result<(), Error> {
    let failed = |source| Error::Layer { layer: "of the result".into(), source };
    let options = CopyOptions { time, meter: Some(meter.clone()), ..CopyOptions::default() };
    copy_tree_to_dir(tree, dir, &options).map_err(failed)?;
    Ok(())
}

/// Writes the files as a tar archive; `-` is standard output.
pub fn to_tar(files: &[PlatformFiles<'_>], path: &Path, options: &FileOptions, meter: &Meter) -> Result<(), Error> {
    with_layout(files, options.layout, |tree| {
        write_file(path, |out| {
            let written = write_rootfs_tar(tree, &mut Counted { out, meter }, options.time);
            written.map(drop).map_err(|source| Error::Layer { layer: "of the result".into(), source })
        })
    })
}

/// Writes a packed image, or an index with its images, as an archive; `-` is standard output.
pub fn to_packed_archive(
    store: &Store,
    root: &PackedRoot,
    names: &[Reference],
    format: ArchiveFormat,
    path: &Path,
    meter: &Meter,
) -> Result<(), Error> {
    write_file(path, |out| write_packed(store, &[(root.clone(), names.to_vec())], format, &mut Counted { out, meter }))
}

/// Writes a packed image, or an index with its images, into a directory (image-spec 1.1, "Image Layout").
pub fn to_oci_layout(store: &Store, root: &PackedRoot, names: &[Reference], dir: &Path, meter: &Meter) -> Result<(), Error> {
    write_layout(store, &[(root.clone(), names.to_vec())], dir, meter)
}

/// Writes images, each with its names, as one archive; `-` is standard output.
pub fn to_archive(store: &Store, images: &[Saved], format: ArchiveFormat, path: &Path) -> Result<(), Error> {
    write_file(path, |out| write_archive(store, images, format, out))
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    meter: &'a Meter,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.meter.add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Writes a file as a whole or not at all: under another name first. `-` is standard output.
pub(super) fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    if path == Path::new("-") {
        let mut out = BufWriter::new(std::io::stdout().lock());
        write(&mut out)?;
        return out.flush().map_err(failed("write"));
    }
    // Devices and pipes are written as they are: they cannot be renamed over.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut out = BufWriter::new(File::create(path).map_err(failed("open"))?);
        write(&mut out)?;
        return out.flush().map_err(failed("write"));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let outcome = (|| {
        // Never through a link that somebody put there, should the directory be everyone's.
        let _ = std::fs::remove_file(&temporary);
        let (file, nameless) = match open_nameless(path) {
            Some(file) => (file, true),
            None => (File::options().write(true).create_new(true).open(&temporary).map_err(failed("create"))?, false),
        };
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        fault_point("file:written");
        let file = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        if nameless && !give_name(&file, path, &temporary).map_err(failed("create"))? {
            return Ok(());
        }
        fault_point("file:named");
        std::fs::rename(&temporary, path).map_err(failed("create"))
    })();
    if outcome.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    outcome
}

/// A file without a name in the directory of `path`: should this process be killed, nothing is left of it. `None` where the file system has no such files.
fn open_nameless(path: &Path) -> Option<File> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    // It gets its name by its entry in `/proc`.
    let file = rustix::fs::open(dir, flags, mode).ok().filter(|_| Path::new("/proc/self/fd").is_dir())?;
    Some(File::from(file))
}

/// Gives a file without a name the name `path`, or, where that is taken, the name `temporary`, by which it can be renamed: then this says true.
fn give_name(file: &File, path: &Path, temporary: &Path) -> std::io::Result<bool> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| rustix::fs::linkat(CWD, open.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        Ok(()) => Ok(false),
        Err(Errno::EXIST) => Ok(link(temporary).map(|()| true)?),
        Err(error) => Err(error.into()),
    }
}

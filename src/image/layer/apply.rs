//! Unpacks a layer's tar stream into a directory in overlay form.
//!
//! The layers below are not looked at, so that all layers of an image unpack at once; what depends on them (directories that the layer implies but does
//! not carry) is reported and settled later by [`super::inherit_directories`]. Every byte of the stream is hashed, also what follows the end of the archive:
//! the diff ID belongs to the stream, not to its entries.
//!
//! Names are cleaned, so that none climbs above the root. What a name means then is up to [`super::target`], which cannot leave the directory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FileType;

use crate::oci::{Algorithm, DiffId};
use crate::path::RootPath;
use crate::store::view::Marks;
use crate::task::fault_point;

use super::tar_reader::{Member, MemberKind, TarReader};
use super::target::{Attributes, Parent, Target};
use super::{Error, Xattrs, is_overlay_attribute};

/// The longest path, as in the kernel.
const MAX_PATH: usize = 4095;

/// How many bytes of a layer's directories' ACLs are kept until the end.
const MAX_LATE_XATTRS: usize = 16 << 20;

/// What directories have that the layer does not carry, until [`super::inherit_directories`] knows better.
const IMPLIED: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };

/// What to do with device nodes (whiteouts are none: they need no privilege).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// They are made; that needs root on the host.
    Create,
    /// They are left out and reported.
    Skip,
}

/// How to unpack a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    /// The marks that the layer gets.
    pub marks: Marks,
    /// What to do with device nodes.
    pub devices: Devices,
    /// How many bytes the files may have together, holes included.
    pub max_unpacked_size: u64,
    /// How many entries the layer may have, and how many directories it may imply.
    pub max_entries: u64,
    /// How many bytes an extended header (long names, attributes) may have.
    pub max_header_size: u64,
    /// What the stream is hashed by: that of the diff ID that is expected.
    pub algorithm: Algorithm,
}

impl Default for ApplyOptions {
    fn default() -> ApplyOptions {
        ApplyOptions {
            marks: Marks::Trusted,
            devices: Devices::Create,
            max_unpacked_size: 1 << 40,
            max_entries: 20_000_000,
            max_header_size: 1 << 20,
            algorithm: Algorithm::default(),
        }
    }
}

/// A layer that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the whole stream.
    pub diff_id: DiffId,
    /// The size of the whole stream.
    pub tar_size: u64,
    /// The sizes of all files together, holes included.
    pub unpacked_size: u64,
    /// How many entries the stream had.
    pub entries: u64,
    /// Directories that the layer implies but does not carry, parents first; `/` is one of them more often than not.
    pub implied_directories: Vec<RootPath>,
    /// Device nodes that were left out ([`Devices::Skip`]).
    pub skipped_devices: Vec<RootPath>,
    /// How many extended attributes this file system or this user cannot have.
    pub refused_xattrs: u64,
}

/// Unpacks the uncompressed `tar` into the empty directory `target`. When it fails, `target` holds part of the layer.
pub fn apply(tar: impl Read, target: &Path, options: &ApplyOptions) -> Result<Applied, Error> {
    let mut unpacker = Unpacker {
        tar: TarReader::new(tar, options.max_header_size, options.algorithm),
        target: Target::open(target, options.marks, options.max_entries)?,
        options,
        unpacked_size: 0,
        entries: 0,
        late_xattrs: 0,
        skipped_devices: Vec::new(),
        refused_xattrs: 0,
    };
    while let Some(member) = unpacker.tar.next()? {
        unpacker.entries += 1;
        if unpacker.entries > options.max_entries {
            return Err(Error::TooManyEntries { limit: options.max_entries });
        }
        unpacker.unpack(member)?;
        fault_point("layer:entry");
    }
    let (implied_directories, refused) = unpacker.target.finish(Some(IMPLIED))?;
    let (digest, tar_size) = unpacker.tar.finish()?;
    Ok(Applied {
        diff_id: DiffId::new(digest),
        tar_size,
        unpacked_size: unpacker.unpacked_size,
        entries: unpacker.entries,
        implied_directories,
        skipped_devices: unpacker.skipped_devices,
        refused_xattrs: unpacker.refused_xattrs + refused,
    })
}

struct Unpacker<'a, R> {
    tar: TarReader<R>,
    target: Target,
    options: &'a ApplyOptions,
    unpacked_size: u64,
    entries: u64,
    late_xattrs: usize,
    skipped_devices: Vec<RootPath>,
    refused_xattrs: u64,
}

impl<R: Read> Unpacker<'_, R> {
    fn unpack(&mut self, mut member: Member) -> Result<(), Error> {
        let path = clean(&member.name)?;
        if is_aufs_metadata(&path) {
            return Ok(());
        }
        if let Some(name) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(b".wh.")) {
            return self.unpack_whiteout(&path, name);
        }
        if path.components().any(|name| name.as_bytes().starts_with(b".wh.")) {
            return Err(bad_name(&member.name, "a whiteout is no directory"));
        }
        member.xattrs.retain(|(name, _)| !is_overlay_attribute(name));
        if path.is_root() && member.kind != MemberKind::Directory {
            return Err(bad_name(&member.name, "the root is a directory"));
        }
        let attributes = Attributes { mode: member.mode, uid: member.uid, gid: member.gid, mtime: member.mtime };
        match member.kind {
            MemberKind::Directory => return self.unpack_directory(&path, attributes, member.xattrs),
            MemberKind::File => return self.unpack_file(&path, &attributes, &member),
            MemberKind::HardLink => {
                let to = clean(&member.link)?;
                let (parent, path) = self.target.locate(&path)?;
                return self.target.link(&parent, &path, &to, &attributes);
            }
            _ => {}
        }
        let (parent, path) = self.target.locate(&path)?;
        if member.kind == MemberKind::Symlink {
            self.target.create_symlink(&parent, &path, &member.link, &attributes)?;
        } else if !self.unpack_node(&parent, &path, &attributes, &member)? {
            return Ok(());
        }
        if !member.xattrs.is_empty() {
            self.refused_xattrs += self.target.set_xattrs(&parent, &path, &member.xattrs)?;
        }
        Ok(())
    }

    fn unpack_whiteout(&mut self, path: &RootPath, name: &[u8]) -> Result<(), Error> {
        let parent = path.parent().unwrap_or_else(RootPath::root);
        match name {
            b".wh..opq" => self.target.set_opaque(&parent),
            b"" | b"." | b".." => Err(bad_name(path.as_bytes(), "it deletes nothing that could be there")),
            name => self.target.whiteout(&parent.join(std::ffi::OsStr::from_bytes(name))),
        }
    }

    fn unpack_directory(&mut self, path: &RootPath, attributes: Attributes, xattrs: Xattrs) -> Result<(), Error> {
        let late = xattrs.iter().filter(|(name, _)| name.starts_with(b"system.")).map(|(name, value)| name.len() + value.len());
        self.late_xattrs += late.sum::<usize>();
        if self.late_xattrs > MAX_LATE_XATTRS {
            return Err(Error::TooLarge { limit: MAX_LATE_XATTRS as u64 });
        }
        self.refused_xattrs += self.target.declare_directory(path, attributes, xattrs)?;
        Ok(())
    }

    fn unpack_file(&mut self, path: &RootPath, attributes: &Attributes, member: &Member) -> Result<(), Error> {
        let limit = self.options.max_unpacked_size;
        let total = self.unpacked_size.checked_add(member.size).filter(|total| *total <= limit);
        self.unpacked_size = total.ok_or(Error::TooLarge { limit })?;
        let (parent, path) = self.target.locate(path)?;
        let file = File::from(self.target.create_file(&parent, &path)?);
        match &member.sparse {
            None => self.write_data(&file, &path)?,
            Some(map) => self.write_sparse(&file, &path, map, member.size)?,
        }
        self.refused_xattrs += self.target.finish_file(&OwnedFd::from(file), &path, attributes, &member.xattrs)?;
        Ok(())
    }

    fn write_data(&mut self, mut file: &File, path: &RootPath) -> Result<(), Error> {
        loop {
            let data = self.tar.data()?;
            if data.is_empty() {
                return Ok(());
            }
            let count = data.len();
            file.write_all(data).map_err(|error| self.target.fail("write", path, error))?;
            self.tar.consume(count);
        }
    }

    fn write_sparse(&mut self, file: &File, path: &RootPath, map: &[(u64, u64)], size: u64) -> Result<(), Error> {
        file.set_len(size).map_err(|error| self.target.fail("write", path, error))?;
        for (offset, length) in map {
            let mut done = 0;
            while done < *length {
                let data = self.tar.data()?;
                let count = data.len().min(usize::try_from(*length - done).unwrap_or(usize::MAX));
                file.write_all_at(&data[..count], offset + done).map_err(|error| self.target.fail("write", path, error))?;
                self.tar.consume(count);
                done += count as u64;
            }
        }
        Ok(())
    }

    /// Makes a device or pipe; says whether it did.
    fn unpack_node(&mut self, parent: &Parent, path: &RootPath, attributes: &Attributes, member: &Member) -> Result<bool, Error> {
        let kind = match member.kind {
            MemberKind::CharDevice => FileType::CharacterDevice,
            MemberKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && self.options.devices == Devices::Skip {
            self.target.charge(path)?;
            self.skipped_devices.push(path.clone());
            return Ok(false);
        }
        self.target.create_node(parent, path, kind, member.rdev, attributes)?;
        Ok(true)
    }
}

/// Cleans a name of the stream: it is taken from the root, above which there is nothing to climb to (as in containerd, and in a shell's `cd`).
fn clean(name: &[u8]) -> Result<RootPath, Error> {
    if name.is_empty() {
        return Err(bad_name(name, "it is empty"));
    }
    if name.contains(&0) {
        return Err(bad_name(name, "it holds a zero byte"));
    }
    let path = RootPath::new(std::ffi::OsStr::from_bytes(name));
    if path.as_bytes().len() > MAX_PATH {
        return Err(bad_name(name, "it is longer than a path can be"));
    }
    Ok(path)
}

/// Whether this is a leftover of aufs (`.wh..wh.plnk`, `.wh..wh.aufs`) that old images carry. The opaque mark looks alike and is none.
fn is_aufs_metadata(path: &RootPath) -> bool {
    path.components().any(|name| name.as_bytes().starts_with(b".wh..wh.") && name != ".wh..wh..opq")
}

fn bad_name(name: &[u8], reason: &'static str) -> Error {
    let mut name = String::from_utf8_lossy(name).into_owned();
    if name.len() > 200 {
        let cut = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 200).last().unwrap_or(0);
        name.truncate(cut);
        name.push('…');
    }
    Error::BadName { name, reason }
}

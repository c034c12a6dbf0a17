//! How byte strings and the types of other folders are written in a serialised spec.
//!
//! Also packets with descriptors over `SOCK_SEQPACKET` sockets, by which the processes of this folder talk.
//!
//! A byte string is a JSON string where it is UTF-8 (nearly always, so that specs stay small and readable) and an array of numbers otherwise.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte string on the wire.
struct Name<'a>(&'a OsStr);

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.0.as_bytes()),
        }
    }
}

/// A byte string from the wire.
struct OwnedName(OsString);

impl<'de> Deserialize<'de> for OwnedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OwnedName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<OwnedName, E> {
                Ok(OwnedName(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OwnedName, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element::<u8>()? {
                    bytes.push(byte);
                }
                Ok(OwnedName(OsString::from_vec(bytes)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `Vec<OsString>`.
pub(super) mod names {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(names: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(|name| Name(name)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        let names = Vec::<OwnedName>::deserialize(deserializer)?;
        Ok(names.into_iter().map(|name| name.0).collect())
    }
}

/// `RootPath`.
pub(super) mod root_path {
    use super::*;
    use crate::path::RootPath;

    pub(crate) fn serialize<S: Serializer>(path: &RootPath, serializer: S) -> Result<S::Ok, S::Error> {
        Name(path.as_os_str()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RootPath, D::Error> {
        Ok(RootPath::new(OwnedName::deserialize(deserializer)?.0))
    }
}

/// `PathBuf`.
pub(super) mod path {
    use super::*;
    use std::path::{Path, PathBuf};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Name(path.as_os_str()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(OwnedName::deserialize(deserializer)?.0))
    }
}

/// `RootfsMount`.
pub(super) mod rootfs {
    use super::*;
    use crate::sys::{OverlayUpper, RootfsMount};
    use std::path::PathBuf;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mount {
        Overlay {
            #[serde(with = "names")]
            lower: Vec<OsString>,
            upper: Option<Upper>,
            userxattr: bool,
        },
        Bind {
            #[serde(with = "path")]
            source: PathBuf,
            read_only: bool,
        },
        Fuse {
            #[serde(with = "path")]
            program: PathBuf,
            #[serde(with = "names")]
            lower: Vec<OsString>,
            changes: Upper,
        },
    }

    #[derive(Serialize, Deserialize)]
    struct Upper {
        #[serde(with = "path")]
        upper: PathBuf,
        #[serde(with = "path")]
        work: PathBuf,
    }

    pub(crate) fn serialize<S: Serializer>(rootfs: &RootfsMount, serializer: S) -> Result<S::Ok, S::Error> {
        let mount = match rootfs.clone() {
            RootfsMount::Overlay { lower, upper, userxattr } => Mount::Overlay {
                lower: lower.into_iter().map(PathBuf::into_os_string).collect(),
                upper: upper.map(|OverlayUpper { upper, work }| Upper { upper, work }),
                userxattr,
            },
            RootfsMount::Bind { source, read_only } => Mount::Bind { source, read_only },
            RootfsMount::Fuse { program, lower, changes: OverlayUpper { upper, work } } => {
                Mount::Fuse { program, lower: lower.into_iter().map(PathBuf::into_os_string).collect(), changes: Upper { upper, work } }
            }
        };
        mount.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RootfsMount, D::Error> {
        Ok(match Mount::deserialize(deserializer)? {
            Mount::Overlay { lower, upper, userxattr } => RootfsMount::Overlay {
                lower: lower.into_iter().map(PathBuf::from).collect(),
                upper: upper.map(|Upper { upper, work }| OverlayUpper { upper, work }),
                userxattr,
            },
            Mount::Bind { source, read_only } => RootfsMount::Bind { source, read_only },
            Mount::Fuse { program, lower, changes: Upper { upper, work } } => {
                RootfsMount::Fuse { program, lower: lower.into_iter().map(PathBuf::from).collect(), changes: OverlayUpper { upper, work } }
            }
        })
    }
}

/// Sends one packet with descriptors.
pub(super) fn send(socket: BorrowedFd<'_>, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    loop {
        match rustix::net::sendmsg(socket, &[io::IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Receives one packet with its descriptors (`CLOEXEC`); `None` where the other side is closed. Longer packets than `limit` are an error.
pub(super) fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; limit];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [io::IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    // Every message of ours has a byte, so an empty one is the end of the stream.
    if received.bytes == 0 {
        return Ok(None);
    }
    buffer.truncate(received.bytes);
    Ok(Some((buffer, descriptors)))
}

/// The most descriptors in one packet (the kernel's limit is 253).
pub(super) const MAX_DESCRIPTORS: usize = 250;

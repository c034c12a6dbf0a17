//! A program as a file that cannot be written to, whoever holds it open: what every process is executed from that enters a sandbox.
//!
//! A process that has entered a sandbox is this program until it executes the command, and a hostile sandbox can see to it that the command *is* this program: between the look at
//! the command's file and `execve(2)` it exchanges that for a link to `/proc/self/exe`. What it can open then is the binary of the host, which would be open for writing to root
//! of the container, too (CVE-2019-5736). So the binary is executed through a mount of its own that is read-only and nowhere attached, or where there is none, from a sealed copy in
//! memory. Neither can be made writable again from inside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::FdFlags;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::descriptor_path;
use super::mount_attr::{MOUNT_ATTR_RDONLY, MountChange, mount_setattr};
use super::process::inherited_descriptor;

/// The binary of this process, also where its file was replaced or removed.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// A program that can be executed and not be written to.
#[derive(Debug)]
pub struct SealedProgram(OwnedFd);

impl SealedProgram {
    /// The program in the file `path`.
    ///
    /// # Errors
    /// It cannot be opened, or the kernel has neither such mounts (Linux 5.12) nor files in memory.
    pub fn of(path: &Path) -> io::Result<SealedProgram> {
        if is_sealed(path) {
            return Ok(SealedProgram(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?));
        }
        read_only_mount(path).or_else(|_| sealed_copy(path)).map(SealedProgram)
    }

    /// Lets a child have the descriptor, too, and gives its number. The mount goes with the last of the two, which takes the kernel its time: better in a process that nobody waits for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pass_on(&self) -> io::Result<i32> {
        rustix::io::fcntl_setfd(&self.0, FdFlags::empty())?;
        Ok(self.0.as_raw_fd())
    }

    /// The program that was passed on under the number `number`, in the process that was executed from it; `None` where there is none. To be asked once, before anything is opened.
    pub fn inherited(number: i32) -> Option<SealedProgram> {
        inherited_descriptor(number).map(SealedProgram)
    }

    /// The path by which this process, and a child until it executes something, can execute it. Good while this value lives.
    pub fn path(&self) -> PathBuf {
        descriptor_path(&self.0)
    }
}

/// Whether the program in the file `path` is on a mount on which nobody can write, or a sealed file in memory. What a process was executed from is [`THIS_PROGRAM`].
pub fn is_sealed(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let on_read_only_mount = rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    on_read_only_mount
        || File::open(path).is_ok_and(|file| rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// A mount of the file alone. It is attached nowhere, so no other process can change it, and when the descriptor is closed it lives on as long as the program is executed.
fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let mount = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(mount.as_fd(), MountChange { set: MOUNT_ATTR_RDONLY, ..MountChange::default() })?;
    Ok(mount)
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let mut source = File::open(path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag, and files in memory can be executed there anyway.
    let copy = rustix::fs::memfd_create("strake", flags | MemfdFlags::EXEC).or_else(|_| rustix::fs::memfd_create("strake", flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut source, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    // While somebody has it open for writing it cannot be executed.
    let copy = File::open(descriptor_path(&copy))?;
    Ok(copy.into())
}

impl AsFd for SealedProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What happens to who opens the program of a process that was executed from `program` for writing, and writes.
    fn written(program: &SealedProgram) -> io::Error {
        let mut sleeper = Command::new(program.path()).arg("60").spawn().unwrap();
        let exe = format!("/proc/{}/exe", sleeper.id());
        // Held open beyond its end, when the kernel would no longer refuse for its being executed.
        let held = File::open(&exe).unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let opened = File::options().write(true).open(descriptor_path(&held));
        opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x")).unwrap_err()
    }

    #[test]
    fn a_program_on_a_mount_of_its_own_cannot_be_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sleep");
        std::fs::copy("/bin/sleep", &file).unwrap();
        let program = match read_only_mount(&file) {
            Ok(mount) => SealedProgram(mount),
            Err(error) => return eprintln!("skipped: no such mounts here: {error}"),
        };
        assert_eq!(written(&program).raw_os_error(), Some(libc::EROFS));
        drop(program);
        // The file itself is what it was.
        File::options().write(true).open(&file).unwrap();
    }

    #[test]
    fn a_copy_in_memory_cannot_be_written_to() {
        let program = SealedProgram(sealed_copy(Path::new("/bin/sleep")).unwrap());
        assert_eq!(written(&program).raw_os_error(), Some(libc::EPERM));
    }
}

//! Finds the command of a sandbox and executes it, inside of its root.
//!
//! The command and its interpreter are checked to be no magic links of `/proc` first: `/proc/self/exe` is still this program. A sandbox can exchange the file after that look; what it then
//! executes is this program in a file that cannot be written to ([`SealedProgram`](crate::sys::SealedProgram)). What the kernel's `ENOENT` and `ENOEXEC` leave open is answered by looking at the file.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::ExecError;
use super::spec::ProcessSpec;

/// What Linux and shells search when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a file tells its format; the kernel looks at as much (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;

/// A command that was found, and all that the kernel wants to have of it.
pub(super) struct Prepared {
    shown: String,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Finds the command.
pub(super) fn prepare(process: &ProcessSpec) -> Result<Prepared, ExecError> {
    let command = process.args.first().filter(|command| !command.is_empty()).ok_or(ExecError::NoCommand)?;
    let shown = command.to_string_lossy().into_owned();
    let path = find(command, &process.env, &shown)?;
    refuse_magic_links(&path, &shown)?;
    let strings = |list: &[OsString]| list.iter().map(|item| CString::new(item.as_bytes())).collect::<Result<Vec<_>, _>>();
    match (strings(&process.args), strings(&process.env), CString::new(path.as_bytes())) {
        (Ok(args), Ok(env), Ok(path)) => Ok(Prepared { shown, path, args, env }),
        _ => Err(ExecError::Failed { command: shown, errno: libc::EINVAL }),
    }
}

impl Prepared {
    /// Becomes the command. Returns only where that is not possible.
    pub(super) fn execute(self) -> ExecError {
        let Err(errno) = nix::unistd::execve(&self.path, &self.args, &self.env);
        explain(OsStr::from_bytes(self.path.as_bytes()), self.shown, errno as i32)
    }

    /// What would keep it from being executed, as far as that can be told without trying.
    pub(super) fn check(&self) -> Result<(), ExecError> {
        let explained = |errno: Errno| Err(explain(OsStr::from_bytes(self.path.as_bytes()), self.shown.clone(), errno.raw_os_error()));
        let stat = match rustix::fs::stat(&self.path) {
            Ok(stat) => stat,
            Err(errno) => return explained(errno),
        };
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return explained(Errno::ACCESS);
        }
        rustix::fs::accessat(CWD, &self.path, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS).or_else(explained)
    }
}

/// The file to execute: the command itself where it has a slash, otherwise the first executable file of that name in `PATH`.
fn find(command: &OsStr, env: &[OsString], shown: &str) -> Result<OsString, ExecError> {
    if command.as_bytes().contains(&b'/') {
        return Ok(command.to_owned());
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in path.split(|byte| *byte == b':') {
        let mut candidate = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        candidate.push(b'/');
        candidate.extend_from_slice(command.as_bytes());
        let candidate = OsString::from_vec(candidate);
        let Ok(stat) = rustix::fs::stat(candidate.as_bytes()) else { continue };
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            continue;
        }
        if rustix::fs::accessat(CWD, candidate.as_bytes(), rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS).is_ok() {
            return Ok(candidate);
        }
        denied = Some(ExecError::PermissionDenied { command: candidate.to_string_lossy().into_owned() });
    }
    let path = String::from_utf8_lossy(path).into_owned();
    Err(denied.unwrap_or_else(|| ExecError::NotFound { command: shown.to_owned(), path: Some(path) }))
}

/// Fails where `path`, or the interpreter that its file names, leads through a magic link.
fn refuse_magic_links(path: &OsStr, shown: &str) -> Result<(), ExecError> {
    let mut path = path.to_owned();
    // As deep as the kernel follows interpreters of interpreters.
    for _ in 0..6 {
        match open(&path, OFlags::PATH) {
            Err(Errno::LOOP) => return Err(ExecError::PermissionDenied { command: shown.to_owned() }),
            Err(_) => return Ok(()),
            Ok(_) => {}
        }
        match Format::of(&path) {
            Some(Format::Script(interpreter) | Format::Elf(Some(interpreter))) => path = interpreter,
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn open(path: &OsStr, flags: OFlags) -> Result<std::os::fd::OwnedFd, Errno> {
    rustix::fs::openat2(CWD, path.as_bytes(), flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Turns the kernel's answer into what is wrong.
fn explain(path: &OsStr, command: String, errno: i32) -> ExecError {
    match errno {
        libc::ENOENT | libc::ENOTDIR => {
            let exists = rustix::fs::stat(path.as_bytes()).is_ok();
            match Format::of(path).filter(|_| exists) {
                Some(Format::Script(interpreter) | Format::Elf(Some(interpreter))) => {
                    ExecError::MissingInterpreter { command, interpreter: interpreter.to_string_lossy().into_owned() }
                }
                _ => ExecError::NotFound { command, path: None },
            }
        }
        libc::EACCES | libc::EPERM => match rustix::fs::stat(path.as_bytes()) {
            Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => ExecError::IsDirectory { command },
            _ => ExecError::PermissionDenied { command },
        },
        libc::ENOEXEC => ExecError::BadFormat { command },
        errno => ExecError::Failed { command, errno },
    }
}

/// What the first bytes of a file say.
enum Format {
    /// `#!` with an interpreter.
    Script(OsString),
    /// A binary, with its dynamic loader.
    Elf(Option<OsString>),
}

impl Format {
    fn of(path: &OsStr) -> Option<Format> {
        // Not blocking: the path could be a FIFO.
        let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
        let mut head = [0; HEAD];
        let length = rustix::io::pread(&file, &mut head, 0).ok()?;
        let head = &head[..length];
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_start();
            let interpreter = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).next().unwrap_or_default();
            return Some(Format::Script(OsStr::from_bytes(interpreter).to_owned()));
        }
        head.starts_with(b"\x7fELF").then(|| Format::Elf(elf_interpreter(&file, head)))
    }
}

/// The path in the `PT_INTERP` segment of an ELF file (System V ABI, "Program Header"), little-endian 32 or 64 bits.
fn elf_interpreter(file: &std::os::fd::OwnedFd, head: &[u8]) -> Option<OsString> {
    const PT_INTERP: u64 = 3;
    let is_64 = *head.get(4)? == 2;
    let number = |bytes: &[u8], at: usize, size: usize| -> Option<u64> {
        Some(bytes.get(at..at + size)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let (table, entry, count) = if is_64 {
        (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?)
    } else {
        (number(head, 28, 4)?, number(head, 42, 2)?, number(head, 44, 2)?)
    };
    for index in 0..count.min(64) {
        let mut header = [0; 56];
        let length = rustix::io::pread(file, &mut header, table.checked_add(index * entry)?).ok()?;
        let header = &header[..length];
        if number(header, 0, 4)? != PT_INTERP {
            continue;
        }
        let (offset, size) =
            if is_64 { (number(header, 8, 8)?, number(header, 32, 8)?) } else { (number(header, 4, 4)?, number(header, 16, 4)?) };
        let mut path = vec![0; size.min(4096) as usize];
        let length = rustix::io::pread(file, &mut path, offset).ok()?;
        path.truncate(length);
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        return Some(OsString::from_vec(path));
    }
    None
}

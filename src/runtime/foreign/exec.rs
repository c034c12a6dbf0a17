//! A command in a container of another runtime, by that runtime's `exec`.
//!
//! The caller's process joins the guardian's namespaces, calls the runtime there, and becomes the parent of what that makes.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::process::Pid;

use super::ForeignRuntime;
use super::call::Caller;
use super::guardian::{Console, PID, hand_over};
use crate::runtime::bundle::process_of_sandbox;
use crate::runtime::error::Failure;
use crate::runtime::spec::SandboxSpec;
use crate::runtime::{Child, Error, SandboxIo, Stdio, init, launch, reaper};
use crate::sys::process::{exit_now, reset_signals};

/// The guardian's directory, as those see it who share its namespaces.
const RECORDS: &str = "/proc/1/cwd";

/// Starts the process of `sandbox` in the container `id`, whose guardian `io.join` is; returns when it runs. The caller must have a single thread.
pub(in crate::runtime) fn exec(runtime: &ForeignRuntime, id: &str, sandbox: &SandboxSpec, io: SandboxIo) -> Result<Child, Error> {
    sandbox.apparmor.ready()?;
    launch::launch_other(0, None, None, io, |io, _, status| enter(runtime, id, sandbox, io, status))
}

fn enter(runtime: &ForeignRuntime, id: &str, sandbox: &SandboxSpec, io: SandboxIo, status: &OwnedFd) -> Result<Infallible, Failure> {
    init::die_with_parent(status)?;
    reset_signals().map_err(Failure::step("reset", "signals"))?;
    let SandboxIo { stdio, join, .. } = io;
    let guardian = join.ok_or(Failure::Invalid { spec: false })?;
    // In the group of the supervisor: the runtime moves the command into those of the container itself.
    init::join(None, &guardian, &[])?;
    rustix::process::set_child_subreaper(Pid::from_raw(1)).map_err(Failure::step("become the parent of", "the command"))?;
    let name = format!("exec-{:016x}", getrandom::u64().map_err(|_| Failure::Clone { errno: libc::EIO })?);
    let records = std::fs::read_link(RECORDS).map_err(Failure::step("find", "the container's bundle"))?;
    let work: PathBuf = records.join(&name);
    rustix::fs::mkdir(&work, Mode::RWXU).map_err(Failure::step("make", work.display()))?;
    rustix::process::chdir(&work).map_err(Failure::step("enter", work.display()))?;
    let process = &sandbox.process;
    let command = process.args.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let caller = Caller { runtime, records: &records, work: &work, command: &command };
    let started = call(&caller, id, sandbox, stdio, &format!("{RECORDS}/{name}"), status);
    let _ = std::fs::remove_dir_all(&work);
    let process = started?;
    // Closes everything, also the status: the command runs.
    exit_now(reaper::wait_for(process, &[]))
}

/// Gives the number of the process that runs the command.
fn call(caller: &Caller<'_>, id: &str, sandbox: &SandboxSpec, stdio: Stdio, short: &str, status: &OwnedFd) -> Result<u32, Failure> {
    let tty = matches!(stdio, Stdio::Terminal);
    let document = caller.work.join("process.json");
    let bytes = serde_json::to_vec(&process_of_sandbox(sandbox, tty));
    let bytes = bytes.map_err(|error| Failure::step("write", document.display())(std::io::Error::from(error)))?;
    std::fs::write(&document, bytes).map_err(Failure::step("write", document.display()))?;
    let console = Console::listen(tty, short)?;
    let mut exec = caller.verb("exec");
    exec.arg("--detach").arg("--process").arg(&document).arg("--pid-file").arg(caller.work.join(PID));
    if let Some(console) = &console {
        exec.arg("--console-socket").arg(&console.path);
    }
    if let Stdio::Descriptors { stdin, stdout, stderr } = stdio {
        exec.stdin(stdin).stdout(stdout).stderr(stderr);
    }
    caller.run("exec in", exec.arg(id), None)?;
    drop(exec);
    if let Some(console) = console {
        console.pass_on(caller, &sandbox.process, status)?;
    }
    hand_over(caller, status)
}

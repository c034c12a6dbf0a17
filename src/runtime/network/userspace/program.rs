//! Starting a program that carries packets, and understanding what it says where it cannot.
//!
//! It finds the namespace at a path, as both take one: bound over a file of `/proc`, in a mount namespace that only the service and the program have. A path of `/proc`
//! that leads to the namespace would not do, as `pasta` gives up first what the kernel wants for following it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::fs::MemfdFlags;
use rustix::mount::MountPropagationFlags;

use super::{Addresses, CARRIED_LINK, Carrier, Program};
use crate::runtime::network::{Error, Unavailable};
use crate::sys::process::unshare;

/// What the namespace is bound over: there wherever `/proc` is, of no use to the program, and readable by the profile that AppArmor has for `pasta`.
const PLACE: &str = "/proc/cpuinfo";
/// The most of a program's words that an error repeats, in bytes.
const MAX_WORDS: usize = 400;
/// What programs say where the host has no network that they could pass on.
const NO_NETWORK: [&str; 2] = ["No external routable interface", "External interface not usable"];

/// Makes the namespace have a path in a mount namespace of this process's own. The process has one thread.
pub(in crate::runtime::network) fn bind(netns: &OwnedFd) -> Result<(), Error> {
    let step = || Error::kernel("give the network namespace a path");
    unshare(libc::CLONE_NEWNS).map_err(step())?;
    let bound = rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .and_then(|()| rustix::mount::mount_bind(format!("/proc/self/fd/{}", netns.as_raw_fd()), PLACE));
    bound.map_err(|errno| step()(errno.into()))
}

/// A program that is getting ready.
pub(in crate::runtime::network) struct Starting {
    program: Program,
    child: Child,
    log: File,
    /// What `slirp4netns` writes to when it is ready; `pasta` ends then, and a copy of it goes on.
    ready: Option<File>,
}

impl Starting {
    /// Starts `program` on the namespace that [`bind`] has given a path. The process has one thread.
    pub(in crate::runtime::network) fn new(program: &Program, addresses: Addresses, mac: Option<[u8; 6]>) -> Result<Starting, Error> {
        let failed = |source: io::Error| Error::Program { program: program.carrier.name(), words: source.to_string() };
        // A file in memory: a pipe that nobody reads would stop a program that has much to say.
        let log = rustix::fs::memfd_create("words", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let log = File::from(log);
        let mut command = Command::new(&program.path);
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log.try_clone().map_err(failed)?);
        let ready = match program.carrier {
            Carrier::Pasta => {
                command.args(pasta(addresses, mac));
                None
            }
            Carrier::Slirp4netns => {
                // Not closed by `execve`: the program is told its number. No other is started before it is closed here.
                let (ours, theirs) = rustix::pipe::pipe().map_err(|errno| failed(errno.into()))?;
                rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
                command.args(slirp4netns(addresses, mac, theirs.as_raw_fd()));
                Some((File::from(ours), theirs))
            }
        };
        let child = command.spawn().map_err(failed)?;
        Ok(Starting { program: program.clone(), child, log, ready: ready.map(|(ours, _)| ours) })
    }

    /// Waits until it carries packets.
    ///
    /// # Errors
    /// [`Error::Program`] with its own words, or [`Error::Unavailable`] where there is nothing to carry them to.
    pub(in crate::runtime::network) fn wait(mut self) -> Result<(), Error> {
        let is_ready = match &mut self.ready {
            Some(ready) => ready.read(&mut [0]).is_ok_and(|length| length == 1),
            None => self.child.wait().is_ok_and(|status| status.success()),
        };
        if is_ready {
            // It ends with the PID namespace, and is reaped with all that is in there.
            return Ok(());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut said = Vec::new();
        let _ = self.log.rewind().and_then(|()| self.log.read_to_end(&mut said));
        let (program, words) = (self.program.carrier.name(), words(&String::from_utf8_lossy(&said)));
        if NO_NETWORK.iter().any(|text| words.contains(text)) {
            let reason = format!("the host has no network that `{program}` could pass on: {words}");
            return Err(Error::Unavailable(Unavailable { reason, hint: "use `--network=host` or `--network=none`".to_owned() }));
        }
        Err(Error::Program { program, words })
    }
}

/// The last words of a program, in one line.
fn words(log: &str) -> String {
    // Where nothing takes log messages, pasta says so after each of its lines.
    let is_noise = |line: &&str| line.is_empty() || line.starts_with("Failed to send") && line.ends_with("to syslog");
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !is_noise(line)).collect();
    let all = lines.join("; ");
    let begin = all.len().saturating_sub(MAX_WORDS);
    let begin = (begin..=all.len()).find(|at| all.is_char_boundary(*at)).unwrap_or(0);
    if all.is_empty() { "it ended without a word".to_owned() } else { all[begin..].to_owned() }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Its arguments, all of which it has had since 2022. No port is forwarded by it, in either direction, and the host's loopback is not behind the gateway.
fn pasta(addresses: Addresses, mac: Option<[u8; 6]>) -> Vec<String> {
    let Addresses { own, gateway } = addresses;
    let mut args: Vec<String> = ["--quiet", "--config-net", "--no-map-gw", "--no-netns-quit"].map(str::to_owned).into();
    for direction in ["-t", "-u", "-T", "-U"] {
        args.extend([direction, "none"].map(str::to_owned));
    }
    let pairs = [
        ("-a", own.address.to_string()),
        ("-n", own.prefix.to_string()),
        ("-g", gateway.to_string()),
        ("--ns-ifname", CARRIED_LINK.to_owned()),
    ];
    args.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    args.extend(mac.into_iter().flat_map(|mac| ["--ns-mac-addr".to_owned(), mac_text(mac)]));
    args.extend(["--netns", PLACE].map(str::to_owned));
    args
}

fn slirp4netns(addresses: Addresses, mac: Option<[u8; 6]>, ready: i32) -> Vec<String> {
    let mut args: Vec<String> =
        ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"].map(str::to_owned).into();
    args.push(format!("--cidr={}", addresses.own.network()));
    args.extend(mac.map(|mac| format!("--macaddress={}", mac_text(mac))));
    args.extend([format!("--ready-fd={ready}"), "--netns-type=path".to_owned(), PLACE.to_owned(), CARRIED_LINK.to_owned()]);
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_program_says_its_own_words_stay() {
        let log = "Failed to send 46 bytes to syslog\nNo external routable interface for IPv4\nFailed to send 36 bytes to syslog\nbad\n";
        assert_eq!(words(log), "No external routable interface for IPv4; bad");
        assert_eq!(words("\n"), "it ended without a word");
        assert!(words(&"ä".repeat(1000)).len() <= MAX_WORDS);
    }
}

//! Running `git`, so that nothing but what is asked for has a say: not the user's or the system's configuration, no hooks, helpers or prompts, and no
//! transport beyond http(s), ssh and git. What the child may say is bounded, and so is how long it may be silent.
//!
//! Credentials are given in the environment (`GIT_CONFIG_…`, which only the same user can read), never as arguments. The child has a process group of its
//! own, so that cancelling ends whatever it has started too.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::executor::{AgentSocket, SshAgent};
use crate::registry::Proxies;
use crate::task::CancellationToken;

use super::git::Settings;
use super::git_error::GitError;

/// How long git may say nothing at all. It reports progress all the time while it works.
const SILENCE: Duration = Duration::from_secs(300);
/// How much of what git says is kept: of answers all, or it is an error; of messages the end.
const MAX_ANSWER: u64 = 16 << 20;
const MAX_MESSAGES: usize = 64 << 10;

/// Transports that repositories and their submodules may use.
const PROTOCOLS: &str = "http:https:ssh:git";

/// Settings for every command, whatever the repository's own say.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.logAllRefUpdates", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("init.defaultBranch", "master"),
    ("protocol.version", "2"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("safe.directory", "*"),
    ("advice.detachedHead", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];

/// How git reaches servers.
#[derive(Clone, Debug, Default)]
pub(super) struct GitAccess {
    /// Where programs are looked for.
    pub(super) programs: Vec<PathBuf>,
    /// Proxies for http(s).
    pub(super) proxies: Proxies,
    /// The ssh agent that may be used: that of the ID `default`.
    pub(super) ssh_agent: Option<SshAgent>,
}

/// Runs git for one repository.
pub(super) struct Git<'a> {
    access: &'a GitAccess,
    program: PathBuf,
    /// A directory of our own; `home` in it is empty.
    scratch: &'a Path,
    /// More settings, which may hold secrets.
    settings: Settings,
    /// Where git's ssh finds the agent.
    agent: Option<AgentSocket>,
    cancel: &'a CancellationToken,
}

impl<'a> Git<'a> {
    pub(super) fn new(
        access: &'a GitAccess,
        scratch: &'a Path,
        settings: Settings,
        cancel: &'a CancellationToken,
    ) -> Result<Git<'a>, GitError> {
        let program = access.programs.iter().map(|dir| dir.join("git")).find(|path| path.is_file()).ok_or(GitError::NoProgram)?;
        let home = scratch.join("home");
        std::fs::create_dir_all(&home).map_err(|source| GitError::Io { path: home, source })?;
        let owner = (0o600, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let agent = access.ssh_agent.as_ref().map(|agent| AgentSocket::new(agent, scratch, "agent", owner));
        let agent = agent.transpose().map_err(|source| GitError::Io { path: scratch.join("agent"), source })?;
        Ok(Git { access, program, scratch, settings, agent, cancel })
    }

    /// Runs one command in `dir` to its end, and gives what it wrote to standard output.
    pub(super) fn run(&self, dir: &Path, args: &[&str]) -> Result<String, GitError> {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        self.set_environment(&mut command);
        let mut child = command.spawn().map_err(GitError::Start)?;
        let outcome = self.follow(&mut child, args.first().copied().unwrap_or("git"));
        if outcome.is_err() {
            end(&mut child);
        }
        outcome
    }

    fn set_environment(&self, command: &mut Command) {
        let home = self.scratch.join("home");
        let path = std::env::join_paths(&self.access.programs).unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", &home).env("XDG_CONFIG_HOME", &home);
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
            ("LC_ALL", "C"),
        ] {
            command.env(name, value);
        }
        // Whatever is above the directory is not ours.
        command.env("GIT_CEILING_DIRECTORIES", self.scratch);
        command.env("GIT_SSH_COMMAND", self.ssh_command());
        if let Some(agent) = &self.agent {
            command.env("SSH_AUTH_SOCK", agent.path());
        }
        let proxies = &self.access.proxies;
        for (name, value) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
            if let Some(value) = value {
                command.env(name, value.expose());
            }
        }
        if let Some(hosts) = &proxies.no_proxy {
            command.env("no_proxy", hosts);
        }
        let own = self.settings.iter().map(|(key, value)| (key.as_str(), value.expose().as_str()));
        let mut count = 0;
        for (at, (key, value)) in SETTINGS.iter().copied().chain(own).enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
            count = at + 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
    }

    /// Servers that the user knows are checked; others are taken as they are, as BuildKit does, and not remembered. Only keys of the given agent are used.
    fn ssh_command(&self) -> String {
        let known = self.scratch.join("home/known_hosts");
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o IdentityFile=/dev/null \
             -o UserKnownHostsFile='{} ~/.ssh/known_hosts' -o ConnectTimeout=30",
            known.display()
        )
    }

    /// Waits for the end, for the user's patience to end, or for silence.
    fn follow(&self, child: &mut Child, action: &str) -> Result<String, GitError> {
        let started = Instant::now();
        let heard = Arc::new(AtomicU64::new(0));
        let answer = child.stdout.take().map(|stdout| read_answer(stdout, heard.clone(), started));
        let messages = Arc::new(Mutex::new(Vec::new()));
        let listener = child.stderr.take().map(|stderr| listen(stderr, messages.clone(), heard.clone(), started));
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(GitError::Start)? {
                break status;
            }
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            let silence = started.elapsed().saturating_sub(Duration::from_millis(heard.load(Ordering::Relaxed)));
            if silence > SILENCE {
                return Err(GitError::Silent { action: action.to_owned(), seconds: SILENCE.as_secs() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        // What it left behind may still hold the pipes.
        end_group(child);
        let bytes = answer.map_or(Ok(Vec::new()), |thread| thread.join().unwrap_or(Ok(Vec::new())));
        if let Some(thread) = listener {
            let _ = thread.join();
        }
        if !status.success() {
            let said = std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner));
            return Err(GitError::Failed { action: action.to_owned(), said: self.presentable(&said) });
        }
        let bytes = bytes.map_err(GitError::Start)?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(GitError::TooMuch { action: action.to_owned() });
        }
        String::from_utf8(bytes).map_err(|_| GitError::NoText { action: action.to_owned() })
    }

    /// What git said, for people: the last lines, without progress, control characters and secrets.
    fn presentable(&self, said: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(said).replace('\r', "\n");
        for (_, secret) in &self.settings {
            let value = secret.expose();
            for part in [value.as_str(), value.rsplit(' ').next().unwrap_or(value)] {
                if part.len() > 3 {
                    text = text.replace(part, "…");
                }
            }
        }
        let scratch = self.scratch.display().to_string();
        let is_progress = |line: &&str| line.contains("% (") || line.trim().is_empty();
        let lines: Vec<&str> = text.lines().filter(|line| !is_progress(line)).collect();
        let last = lines.len().saturating_sub(6);
        let clean = |line: &&str| line.replace(&scratch, "").chars().filter(|c| !c.is_control()).take(300).collect::<String>();
        lines[last..].iter().map(clean).collect::<Vec<_>>().join("; ")
    }
}

/// Ends a child with all that it started, and waits for it.
fn end(child: &mut Child) {
    end_group(child);
    let _ = child.wait();
}

fn end_group(child: &Child) {
    // The group is gone when nobody is left in it.
    let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL);
}

type Answer = std::thread::JoinHandle<io::Result<Vec<u8>>>;

fn read_answer(stdout: impl Read + Send + 'static, heard: Arc<AtomicU64>, started: Instant) -> Answer {
    std::thread::spawn(move || {
        let (mut bytes, mut from) = (Vec::new(), stdout.take(MAX_ANSWER + 1));
        let mut buffer = [0; 8192];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(bytes),
                length => bytes.extend_from_slice(&buffer[..length]),
            }
            note(&heard, started);
        }
    })
}

fn listen(
    mut stderr: impl Read + Send + 'static,
    to: Arc<Mutex<Vec<u8>>>,
    heard: Arc<AtomicU64>,
    started: Instant,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            note(&heard, started);
            let mut messages = to.lock().unwrap_or_else(PoisonError::into_inner);
            messages.extend_from_slice(&buffer[..length]);
            let excess = messages.len().saturating_sub(MAX_MESSAGES);
            messages.drain(..excess);
        }
    })
}

fn note(heard: &AtomicU64, started: Instant) {
    heard.store(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

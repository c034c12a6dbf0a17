//! Credential helpers: `docker-credential-NAME`, a program that is asked over its standard input.
//!
//! Protocol: the action is the only argument; `get` and `erase` read the server's name, `store` reads JSON; the answer is on standard output, and what
//! went wrong is there too, or on standard error. A helper may ask the user something, so its time limit is generous; but it has one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::diag::Secret;
use crate::registry::error::tame;

use super::{Credential, Error};

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// No answer of a helper is anywhere near this size.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// How long to wait for the rest of standard error of a helper that has ended: a server that it started may keep it open.
const COMPLAINT_LIMIT: Duration = Duration::from_millis(500);

/// The user name by which helpers mark an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

pub(super) struct Helper {
    program: String,
    path: PathBuf,
    time_limit: Duration,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

impl Helper {
    /// The helper `name`, from the first of `dirs` that has it or from `PATH`.
    pub(super) fn new(name: &str, dirs: &[PathBuf]) -> Result<Helper, Error> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(Error::HelperName { name: tame(name, 60) });
        }
        let program = format!("docker-credential-{name}");
        let found = dirs.iter().map(|dir| dir.join(&program)).find(|path| path.is_file());
        Ok(Helper { path: found.unwrap_or_else(|| PathBuf::from(&program)), program, time_limit: TIME_LIMIT })
    }

    #[cfg(test)]
    pub(super) fn with_time_limit(self, time_limit: Duration) -> Helper {
        Helper { time_limit, ..self }
    }

    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>, Error> {
        let (ok, output) = self.run("get", server.as_bytes())?;
        if !ok {
            // Each helper has its own words, but all hold these.
            let text = String::from_utf8_lossy(output.expose()).to_lowercase();
            if text.contains("credentials not found") || text.contains("no credentials") || text.contains("not logged in") {
                return Ok(None);
            }
            return Err(self.failed("get", output.expose()));
        }
        // What is wrong with the answer is not shown, since it holds the secret.
        let answer: Answer =
            serde_json::from_slice(output.expose()).map_err(|_| self.failed("get", b"its answer is not the JSON that was expected"))?;
        let secret = Secret::new(answer.secret);
        if secret.expose().is_empty() && answer.username.is_empty() {
            return Ok(None);
        }
        Ok(Some(match answer.username.as_str() {
            TOKEN_USER => Credential::IdentityToken(secret),
            _ => Credential::Basic { username: answer.username, password: secret },
        }))
    }

    pub(super) fn store(&self, server: &str, username: &str, secret: &Secret<String>) -> Result<(), Error> {
        let stored = Stored { server, username, secret: secret.expose() };
        let input = Secret::new(serde_json::to_vec(&stored).expect("strings are always JSON"));
        self.succeed("store", input.expose())
    }

    pub(super) fn erase(&self, server: &str) -> Result<(), Error> {
        self.succeed("erase", server.as_bytes())
    }

    /// Servers and their users.
    pub(super) fn list(&self) -> Result<BTreeMap<String, String>, Error> {
        let (ok, output) = self.run("list", b"")?;
        if !ok {
            return Err(self.failed("list", output.expose()));
        }
        serde_json::from_slice(output.expose()).map_err(|_| self.failed("list", b"its answer is not the JSON that was expected"))
    }

    fn succeed(&self, action: &'static str, input: &[u8]) -> Result<(), Error> {
        match self.run(action, input)? {
            (true, _) => Ok(()),
            (false, output) => Err(self.failed(action, output.expose())),
        }
    }

    fn failed(&self, action: &'static str, said: &[u8]) -> Error {
        let said = tame(&String::from_utf8_lossy(said), 200);
        let reason = if said.is_empty() { "it failed without a word".to_owned() } else { said };
        Error::Helper { helper: self.program.clone(), action, reason }
    }

    /// Runs one action; gives back whether it succeeded, and its output.
    fn run(&self, action: &'static str, input: &[u8]) -> Result<(bool, Secret<Vec<u8>>), Error> {
        let mut child = self.start(action).map_err(|source| Error::HelperStart { helper: self.program.clone(), source })?;
        let deadline = Instant::now() + self.time_limit;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let complaint = child.stderr.take().map(complaint);
        let (sender, receiver) = mpsc::channel();
        let input = Secret::new(input.to_vec());
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A helper that does not read its input may still answer.
                let _ = stdin.write_all(input.expose());
            }
            let mut output = Vec::new();
            let result = stdout.map_or(Ok(0), |stdout| stdout.take(OUTPUT_LIMIT).read_to_end(&mut output));
            // Nobody listens after the time limit.
            let _ = sender.send(result.map(|_| output));
        });
        let output = receiver.recv_timeout(self.time_limit);
        let Ok(output) = output else { return Err(self.too_slow(action, &mut child)) };
        let output = output.map_err(|source| Error::HelperStart { helper: self.program.clone(), source })?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    let silent = !status.success() && output.is_empty();
                    let said = complaint.filter(|_| silent).and_then(|said| said.recv_timeout(COMPLAINT_LIMIT).ok());
                    return Ok((status.success(), Secret::new(said.unwrap_or(output))));
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => return Err(self.too_slow(action, &mut child)),
                Err(source) => return Err(Error::HelperStart { helper: self.program.clone(), source }),
            }
        }
    }

    fn start(&self, action: &str) -> io::Result<Child> {
        let mut tries = 0;
        loop {
            let mut command = Command::new(&self.path);
            command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            match command.spawn() {
                // Another thread's child may briefly hold the file open for writing, right after it was installed.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn too_slow(&self, action: &'static str, child: &mut Child) -> Error {
        let _ = child.kill();
        let _ = child.wait();
        let reason = format!("it did not end within {} s", self.time_limit.as_secs_f32());
        Error::Helper { helper: self.program.clone(), action, reason }
    }
}

/// Reads what a helper writes to standard error, so that it never waits for somebody to do so.
fn complaint(mut stderr: ChildStderr) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = (&mut stderr).take(OUTPUT_LIMIT).read_to_end(&mut said);
        // Nobody listens where the helper succeeded, or said why on standard output.
        let _ = sender.send(said);
        let _ = io::copy(&mut stderr, &mut io::sink());
    });
    receiver
}

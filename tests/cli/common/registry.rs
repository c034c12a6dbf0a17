//! A real registry on a loopback port, with storage of its own; and one that answers what a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{Run, bases, wait_for};

/// A `docker-registry`; it ends with this value.
pub(crate) struct Registry {
    dir: tempfile::TempDir,
    child: Child,
    address: String,
}

impl Registry {
    /// An empty one.
    pub(crate) fn empty() -> Registry {
        Registry::start(false, |_| String::new())
    }

    /// One with the bases in it: `busybox:latest` and `minbase:bookworm`.
    pub(crate) fn with_bases() -> Registry {
        Registry::start(true, |_| String::new())
    }

    /// An empty one that knows the user `tester` with the password `pass-word`.
    pub(crate) fn with_password() -> Registry {
        let secret = Run::new("htpasswd", ["-Bbn", "tester", "pass-word"]).ok().stdout;
        Registry::start(false, |dir| {
            let file = dir.join("htpasswd");
            std::fs::write(&file, &secret).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
        })
    }

    /// An empty one with this certificate and its key, which wants a certificate of its clients that `authority` has signed.
    pub(crate) fn with_certificates(certificate: &Path, key: &Path, authority: Option<&Path>) -> Registry {
        let clients = authority.map_or_else(String::new, |file| format!(", clientcas: [{}]", file.display()));
        // A line of the entry `http`, which the file ends with.
        Registry::start(false, |_| format!("    tls: {{certificate: {}, key: {}{clients}}}\n", certificate.display(), key.display()))
    }

    /// `more` gives further lines of the settings; it is told a directory for files.
    fn start(bases_too: bool, more: impl Fn(&Path) -> String) -> Registry {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        std::fs::create_dir_all(&parent).unwrap();
        let dir = tempfile::Builder::new().prefix("registry-").tempdir_in(parent).unwrap();
        let storage = dir.path().join("storage");
        if bases_too {
            // Its blobs are never written again, so they may share the bases' files.
            Run::new("cp", ["-al".as_ref(), bases().join("registry").as_os_str(), storage.as_os_str()]).ok();
        }
        // Somebody else may take the port between our look and the registry's start: look again.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let mut config = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
                 http:\n    addr: \"{address}\"\n",
                storage.display()
            );
            config += &more(dir.path());
            let file = dir.path().join("config.yml");
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut ended = false;
            wait_for("the registry", 30, || {
                ended = child.try_wait().unwrap().is_some();
                ended || TcpStream::connect(&address).is_ok()
            });
            if !ended {
                return Registry { dir, child, address };
            }
        }
        panic!("the registry does not start");
    }

    /// A reference to a repository in it.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The same for skopeo and its relatives.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    /// Where it keeps its files.
    pub(crate) fn storage(&self) -> std::path::PathBuf {
        self.dir.path().join("storage")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers each request by a function of method and path; ends with this process.
pub(crate) fn scripted(answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    address
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A body of a type.
    pub(crate) fn body(kind: &str, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status: 200, headers: vec![("Content-Type", kind.to_owned())], body: body.into() }
    }

    /// Nothing is there.
    pub(crate) fn missing() -> Reply {
        Reply {
            status: 404,
            headers: vec![],
            body: b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}".to_vec(),
        }
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&str, &str) -> Reply) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 0 && line.trim() != "" {
            line.clear();
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let reply = answer(method, path);
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let body = if method == "HEAD" { &[][..] } else { &reply.body[..] };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() {
            return;
        }
    }
}

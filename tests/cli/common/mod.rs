//! A world of its own for each test: a home, a store, a context, and the command under test in it.

pub(crate) mod bundle;
pub(crate) mod faulty;
pub(crate) mod image;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod terminal;
pub(crate) mod web;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use image::{Entry, Image, Several, hex};
pub(crate) use registry::Registry;

/// How long a command may take before the test gives it up.
const PATIENCE: Duration = Duration::from_secs(420);

/// Whether this process is root and these programs are there; says what is missing if not.
///
/// With `STRAKE_TESTS_REQUIRE=1` what is missing is a failure.
#[track_caller]
pub(crate) fn able(programs: &[&str]) -> bool {
    let mut missing: Vec<String> = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root".into());
    }
    missing.extend(programs.iter().filter(|name| which(name).is_none()).map(|name| (*name).to_owned()));
    if programs.contains(&"docker-registry") && !bases().join("registry").exists() {
        missing.push("target/bases (run tests/setup.sh)".into());
    }
    if missing.is_empty() {
        return true;
    }
    unable(&missing.join(", "));
    false
}

/// Says that a test is skipped for what it needs, or fails where none may be skipped.
pub(crate) fn unable(needs: &str) {
    assert!(std::env::var_os("STRAKE_TESTS_REQUIRE").is_none_or(|v| v != "1"), "this test needs {needs}");
    eprintln!("skipped: needs {needs}");
}

/// Where a program is.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// The control groups whose name is that.
pub(crate) fn groups(id: &str) -> Vec<PathBuf> {
    let mut todo = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    let mut found = Vec::new();
    while let Some((dir, depth)) = todo.pop() {
        for entry in
            std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            if entry.file_name() == id {
                found.push(entry.path());
            }
            if depth < 4 {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// The directory that `tests/setup.sh` fills.
pub(crate) fn bases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bases")
}

/// The home, store and context of one test.
pub(crate) struct World {
    dir: tempfile::TempDir,
    short: tempfile::TempDir,
}

impl World {
    /// Makes an empty world on a real disk: on a tmpfs some of what the store does cannot be seen.
    pub(crate) fn new() -> World {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        std::fs::create_dir_all(&parent).unwrap();
        let dir = tempfile::Builder::new().prefix("e2e-").tempdir_in(parent).unwrap();
        for name in ["home", "ctx", "docker"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let short = tempfile::Builder::new().prefix("e2e-").tempdir().unwrap();
        World { dir, short }
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory whose name is short wherever the project lies: podman wants less than 50 characters for the place of its sockets.
    pub(crate) fn short(&self) -> &Path {
        self.short.path()
    }

    /// The store.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("store")
    }

    /// The build context.
    pub(crate) fn context(&self) -> PathBuf {
        self.path("ctx")
    }

    /// Writes a file of the build context.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &World {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// The command under test, with nothing of this process's environment.
    pub(crate) fn strake<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.program_at(env!("CARGO_BIN_EXE_strake"), args)
    }

    /// The same with a copy of the program.
    pub(crate) fn program_at<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Run {
        let mut run = Run::new(program, args);
        run.command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("STRAKE_ROOT", self.root())
            .current_dir(self.dir.path());
        run
    }

    /// Builds the context with `dockerfile`; the arguments are those between `build` and the context.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        self.write("Dockerfile", dockerfile);
        self.build_as_it_is(args)
    }

    /// Builds the context.
    pub(crate) fn build_as_it_is(&self, args: &[&str]) -> Run {
        let mut all: Vec<OsString> = vec!["build".into()];
        all.extend(args.iter().map(Into::into));
        all.push(self.context().into());
        self.strake(all)
    }

    /// Builds `dockerfile` and reads the image.
    #[track_caller]
    pub(crate) fn image(&self, dockerfile: &str, args: &[&str]) -> Image {
        let archive = self.path("image.oci.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let mut all = vec!["-o", &output];
        all.extend(args);
        self.build(dockerfile, &all).ok();
        Image::oci_archive(&archive)
    }

    /// Adds a named layer to the store by building from a tar: `localhost/base` is busybox, wherever no registry is wanted.
    #[track_caller]
    pub(crate) fn busybox(&self) -> &World {
        let dir = self.path("base");
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
        let text = "FROM scratch\nADD busybox.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD [\"sh\"]\n";
        std::fs::write(dir.join("Dockerfile"), text).unwrap();
        self.strake(["build", "-t", "localhost/busybox", "base"]).ok();
        self
    }
}

/// A world whose store has `localhost/busybox`, where this machine can have one.
#[track_caller]
pub(crate) fn world() -> Option<World> {
    able(&["docker-registry"]).then(|| {
        let world = World::new();
        world.busybox();
        world
    })
}

impl Drop for World {
    fn drop(&mut self) {
        // What still runs would keep its files busy; where there is no such command there is nothing either.
        let ps = self.strake(["ps", "-aq"]).run();
        for id in ps.stdout.split_whitespace() {
            self.strake(["rm", "-f", id]).run();
        }
        // buildah and podman leave their store mounted on itself.
        for store in ["buildah/overlay", "peer/overlay"].map(|name| self.path(name)).iter().filter(|path| path.exists()) {
            Run::new("umount", ["-l".as_ref(), store.as_os_str()]).run();
        }
    }
}

/// A command that is being put together.
pub(crate) struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Run {
    /// Any program.
    pub(crate) fn new<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = Command::new(program);
        command.args(args);
        Run { command, stdin: None }
    }

    /// Another argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub(crate) fn arg_all(mut self, args: &[&str]) -> Run {
        self.command.args(args);
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// The directory to run in.
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Run {
        self.command.current_dir(dir);
        self
    }

    /// What it reads.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = Some(bytes.into());
        self
    }

    /// The command itself, for what is not here.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it, its output going nowhere.
    pub(crate) fn start(mut self) -> Child {
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(mut self) -> Done {
        let shown = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let started = Instant::now();
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let (Some(bytes), Some(mut stdin)) = (self.stdin, child.stdin.take()) {
            std::thread::spawn(move || stdin.write_all(&bytes));
        }
        let stdout = reader(child.stdout.take().unwrap());
        let stderr = reader(child.stderr.take().unwrap());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{shown} did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let code = status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { shown, code, stdout: text(stdout.join().unwrap()), stderr: text(stderr.join().unwrap()), elapsed: started.elapsed() }
    }

    /// Runs it; it succeeds.
    #[track_caller]
    pub(crate) fn ok(self) -> Done {
        let done = self.run();
        assert!(done.code == 0, "{done}");
        done
    }

    /// Runs it; it fails without a crash.
    #[track_caller]
    pub(crate) fn fails(self) -> Done {
        let done = self.run();
        assert!(done.code != 0, "expected a failure: {done}");
        assert!(!done.stderr.contains("panicked at"), "{done}");
        done
    }
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// A command that ended.
pub(crate) struct Done {
    shown: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} exited with {}\n--- stdout\n{}\n--- stderr\n{}", self.shown, self.code, self.stdout, self.stderr)
    }
}

impl Done {
    /// One that was run otherwise, and said that.
    pub(crate) fn of(shown: &str, code: i32, said: String) -> Done {
        Done { shown: shown.to_owned(), code, stdout: String::new(), stderr: said, elapsed: Duration::ZERO }
    }

    /// What it says on standard error contains all of these.
    #[track_caller]
    pub(crate) fn says(&self, texts: &[&str]) -> &Done {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not said: {self}");
        }
        self
    }

    /// What it says on standard error contains none of these.
    #[track_caller]
    pub(crate) fn omits(&self, texts: &[&str]) -> &Done {
        for text in texts {
            assert!(!self.stderr.contains(text), "`{text}` is said: {self}");
        }
        self
    }

    /// The image ID that a build names last.
    #[track_caller]
    pub(crate) fn image_id(&self) -> String {
        let line = self.stderr.lines().rev().find_map(|line| line.strip_prefix("image "));
        line.unwrap_or_else(|| panic!("no image ID: {self}")).trim().to_owned()
    }

    /// The steps of a build by title, with how each ended (`CACHED`, `DONE`, …).
    pub(crate) fn steps(&self) -> Vec<(String, String)> {
        let mut titles: HashMap<&str, String> = HashMap::new();
        let mut order = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else { continue };
            if !titles.contains_key(number) {
                titles.insert(number, rest.to_owned());
                continue;
            }
            let outcome = rest.split(' ').next().unwrap_or("");
            if ["CACHED", "DONE", "ERROR", "CANCELED"].contains(&outcome) {
                order.push((titles[number].clone(), outcome.to_owned()));
            }
        }
        order
    }

    /// How the step whose title contains `title` ended.
    #[track_caller]
    pub(crate) fn step(&self, title: &str) -> String {
        let steps = self.steps();
        let found = steps.iter().find(|(step, _)| step.contains(title));
        found.unwrap_or_else(|| panic!("no step `{title}`: {self}")).1.clone()
    }
}

/// Removes a store, into which what its last command left to the background may still be writing for a moment.
#[track_caller]
pub(crate) fn remove_store(root: &Path) {
    wait_for("the store to be removed", 20, || std::fs::remove_dir_all(root).is_ok() || !root.exists());
}

/// Waits until `ready` says so, for at most `seconds`.
#[track_caller]
pub(crate) fn wait_for(what: &str, seconds: u64, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes that were started for the store: it is in their arguments.
pub(crate) fn processes(root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let of = |pid: &str| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ");
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    pids.map(|pid| of(&pid)).filter(|line| line.contains("strake") && line.contains(root)).collect()
}

/// A user who is not root and has no subordinate IDs, with a copy of the program, a store and busybox in the world's short directory.
pub(crate) struct Nobody<'a>(&'a Path);

impl Nobody<'_> {
    /// `None` where such a user may make no user namespaces: the test is skipped then.
    pub(crate) fn of(world: &World) -> Option<Nobody<'_>> {
        let dir = world.short();
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_strake"), dir.join("strake")).unwrap();
        std::fs::copy(bases().join("busybox.tar"), dir.join("busybox.tar")).unwrap();
        let nobody = Nobody(dir);
        let import = nobody.strake(&["import", "-c", "CMD [\"sh\"]", "busybox.tar", "localhost/busybox"]).run();
        if import.stderr.contains("user namespace") {
            unable("user namespaces without root");
            return None;
        }
        Some(nobody)
    }

    pub(crate) fn strake(&self, args: &[&str]) -> Run {
        let setpriv = which("setpriv").unwrap();
        let run = Run::new(setpriv.to_str().unwrap(), ["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(self.0.join("strake"));
        run.arg_all(args)
            .env("HOME", self.0)
            .env("XDG_RUNTIME_DIR", self.0.join("run"))
            .env("STRAKE_ROOT", self.0.join("store"))
            .dir(self.0)
    }
}

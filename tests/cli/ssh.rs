//! SSH agents in RUN steps: the user's own, and the build's own with the keys of files. What signs is checked with OpenSSH's own programs.

use std::path::Path;
use std::process::Command;

use crate::common::{Image, Run, World, able};

/// A world whose context has OpenSSH's `ssh-add` and `ssh-keygen` with their libraries, or nothing where the machine lacks them.
fn world() -> Option<World> {
    able(&["docker-registry", "ssh-add", "ssh-keygen", "ssh-agent", "ldd"]).then(|| {
        let world = World::new();
        world.busybox();
        for program in ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"] {
            take(&world, Path::new(program));
            let libraries = Command::new("ldd").arg(program).output().unwrap().stdout;
            let libraries = String::from_utf8(libraries).unwrap();
            let paths = libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
            paths.for_each(|path| take(&world, Path::new(path)));
        }
        world
    })
}

fn take(world: &World, path: &Path) {
    let target = world.context().join("tools").join(path.strip_prefix("/").unwrap());
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::copy(path, target).unwrap();
}

/// Makes a key without passphrase in the world's directory.
fn key(world: &World, name: &str, kind: &[&str]) {
    let path = world.path(name);
    Run::new("ssh-keygen", ["-q", "-N", "", "-C", name, "-t"]).arg_all(kind).arg("-f").arg(path).ok();
}

const BASE: &str = "FROM localhost/busybox\nCOPY tools /\nRUN echo root:x:0:0::/root:/bin/sh > /etc/passwd && mkdir -p /root\n";

/// An agent of the user, which ends with the test.
struct Agent(std::process::Child);

impl Agent {
    fn start(socket: &Path) -> Agent {
        let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(socket).stdout(std::process::Stdio::null()).spawn().unwrap();
        crate::common::wait_for("the agent", 10, || socket.exists());
        Agent(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_raw_socket_is_passed_on_as_it_is() {
    let Some(world) = world() else { return };
    let socket = world.short().join("agent");
    let _agent = Agent::start(&socket);
    key(&world, "ed", &["ed25519"]);
    std::fs::copy(world.path("ed"), world.context().join("ed")).unwrap();
    let text = format!("{BASE}COPY --chmod=600 ed /ed\nRUN --mount=type=ssh,id=s,required ssh-add /ed && echo added\n");
    let listed = || Run::new("ssh-add", ["-l"]).env("SSH_AUTH_SOCK", &socket).run().stdout;
    // An agent's socket lets steps list and sign, one that is raw lets them do whatever it understands.
    world.build(&text, &["--ssh", &format!("s={}", socket.display())]).fails();
    assert!(!listed().contains("ED25519"));
    world.build(&text, &["--ssh", &format!("s={},raw=true", socket.display())]).ok();
    assert!(listed().contains("ED25519"), "{}", listed());
    world.build(&text, &["--ssh", "s=a,b,raw=1"]).fails().says(&["exactly one socket"]);
}

#[test]
fn keys_of_files_of_every_kind_sign_in_a_step() {
    let Some(world) = world() else { return };
    let kinds: [(&str, &[&str]); 4] =
        [("ed", &["ed25519"]), ("rsa", &["rsa", "-b", "2048"]), ("p256", &["ecdsa", "-b", "256"]), ("p384", &["ecdsa", "-b", "384"])];
    let mut names: Vec<String> = Vec::new();
    for (name, kind) in kinds {
        key(&world, name, kind);
        names.push(name.into());
    }
    // The same kinds in the older formats.
    for (name, format, kind) in
        [("pem-rsa", "PEM", "rsa"), ("p8-rsa", "PKCS8", "rsa"), ("pem-ec", "PEM", "p256"), ("p8-ec", "PKCS8", "p384")]
    {
        key(&world, name, kinds.iter().find(|(known, _)| *known == kind).unwrap().1);
        Run::new("ssh-keygen", ["-q", "-p", "-N", "", "-m", format, "-f"]).arg(world.path(name)).ok();
        names.push(name.into());
    }
    for name in &names {
        std::fs::copy(world.path(&format!("{name}.pub")), world.context().join(format!("{name}.pub"))).unwrap();
    }
    let script = names.iter().map(|name| {
        format!("echo t {name} > signers; cut -d' ' -f1,2 /keys/{name}.pub | sed 's/^/t /' > signers; echo data > d; \
                 ssh-keygen -q -Y sign -n file -f /keys/{name}.pub d && ssh-keygen -q -Y verify -n file -f signers -I t -s d.sig < d && echo good-{name}; rm -f d d.sig; ")
    });
    let text = format!("{BASE}COPY *.pub /keys/\nWORKDIR /work\nRUN --mount=type=ssh ssh-add -l; {}\n", script.collect::<String>());
    let files: Vec<String> = names.iter().map(|name| world.path(name).display().to_string()).collect();
    let done = world.build(&text, &["--ssh", &format!("default={}", files.join(","))]).ok();
    for name in &names {
        done.says(&[&format!("good-{name}")]);
    }
}

#[test]
fn the_users_agent_can_be_asked_and_not_be_changed_by_a_step() {
    let Some(world) = world() else { return };
    key(&world, "mine", &["ed25519"]);
    let socket = world.short().join("agent");
    let _agent = Agent::start(&socket);
    Run::new("ssh-add", ["-q"]).arg(world.path("mine")).env("SSH_AUTH_SOCK", &socket).ok();
    let text = format!(
        "{BASE}RUN --mount=type=ssh ssh-add -l && ! ssh-add -D && ! ssh-keygen -q -N '' -t ed25519 -f /k || ssh-add /k; ssh-add -l; rm -f /k /k.pub\n\
         RUN --mount=type=ssh,id=default,target=/sock/agent,mode=0640,uid=5,gid=6 stat -c 'node %F %a %u:%g' $SSH_AUTH_SOCK; echo at=$SSH_AUTH_SOCK\n\
         RUN test ! -e /run/buildkit && test ! -e /sock && echo \"gone=$SSH_AUTH_SOCK=\"\n"
    );
    world.write("Dockerfile", &text);
    let archive = world.path("i.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let done = world.build_as_it_is(&["--ssh", "default", "-o", &output]).env("SSH_AUTH_SOCK", &socket).ok();
    done.says(&["mine (ED25519)", "node socket 640 5:6", "at=/sock/agent", "gone==", "agent refused operation"]);
    let listed = Run::new("ssh-add", ["-l"]).env("SSH_AUTH_SOCK", &socket).ok();
    assert_eq!(listed.stdout.lines().count(), 1, "{listed}");
    // By its path as well, and without any trace in the layers or the key.
    let again = world.build_as_it_is(&["--ssh", &format!("default={}", socket.display()), "-o", &output]).ok();
    assert_eq!(again.steps().iter().filter(|(title, how)| how != "CACHED" && !title.starts_with("exporting to ")).count(), 0, "{again}");
    let image = Image::oci_archive(&archive);
    for layer in &image.layers[3..] {
        assert!(layer.keys().all(|path| !path.contains("agent") && !path.starts_with("run")), "{:?}", layer.keys());
    }
}

#[test]
fn a_missing_agent_is_an_error_only_where_it_is_required() {
    let Some(world) = world() else { return };
    let step =
        |options: &str| format!("FROM localhost/busybox\nRUN --mount=type=ssh{options} echo \"sock=$SSH_AUTH_SOCK\"; test ! -e /run\n");
    world.build(&step(""), &[]).ok().says(&["sock=/run/buildkit/ssh_agent.0"]);
    let done = world.build(&step(",id=work,required"), &[]).fails();
    done.says(&["Dockerfile:2", "SSH agent `work`", "hint: give it with --ssh work"]);
    // An agent that the image names itself is left alone.
    let own = "FROM localhost/busybox\nENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh echo \"sock=$SSH_AUTH_SOCK\"\n";
    world.build(own, &[]).ok().says(&["sock=/own"]);
}

#[test]
fn what_is_no_agent_and_no_key_is_told_before_anything_runs() {
    let Some(world) = world() else { return };
    key(&world, "plain", &["ed25519"]);
    key(&world, "p521", &["ecdsa", "-b", "521"]);
    Run::new("ssh-keygen", ["-q", "-N", "secret words", "-t", "ed25519", "-f"]).arg(world.path("locked")).ok();
    std::fs::write(world.path("junk"), "hello\n").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(world.short().join("s")).unwrap();
    let socket = world.short().join("s").display().to_string();
    let file = |name: &str| world.path(name).display().to_string();
    for (spec, says) in [
        (format!("default={}", file("locked")), ["passphrase", "hint: give it to an agent"]),
        (format!("default={}", file("p521")), ["P-256 and P-384", "hint: give it to an agent"]),
        (format!("default={}", file("junk")), ["no private key", "junk"]),
        (format!("default={}", file("absent")), ["absent", "No such file"]),
        (format!("default={},{socket}", file("plain")), ["not both", "`default`"]),
        ("default".into(), ["SSH_AUTH_SOCK is not set", "hint: start one"]),
    ] {
        let done = world.build("FROM localhost/busybox\nRUN true\n", &["--ssh", &spec]).fails();
        done.says(&says).omits(&["[1/2]"]);
    }
    let twice = world.build("FROM localhost/busybox\n", &["--ssh", &format!("a={socket}"), "--ssh", &format!("a={socket}")]).fails();
    twice.says(&["names the ID `a` twice"]);
}

#[test]
fn an_agent_that_never_answers_does_not_keep_a_step_or_a_build_from_ending() {
    let Some(world) = world() else { return };
    let socket = world.short().join("silent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let text = format!("{BASE}RUN --mount=type=ssh (ssh-add -l &) ; sleep 0.3; echo over\n");
    let done = world.build(&text, &["--ssh", &format!("default={}", socket.display())]).ok();
    done.says(&["over"]);
    assert!(done.elapsed.as_secs() < 20, "{done}");
}

//! Strake inside of containers that were given nothing: what CI jobs run in. The outer container is one of `strake run`, whose capabilities and system call filter are Docker's defaults.

use std::path::Path;

use crate::common::{Done, World, bases, world};

/// A directory for the inner store, and a context that an inner build can use without any registry.
fn prepared() -> Option<World> {
    let world = world()?;
    std::fs::create_dir(world.path("inner")).unwrap();
    std::fs::set_permissions(world.path("inner"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(bases().join("busybox.tar"), world.context().join("busybox.tar")).unwrap();
    world.write("file", "of the context").write("secret", "hush");
    Some(world)
}

/// Runs a script in a container with these flags. There `strake` is this build of it with a store on a real disk, and `/ctx` the context.
fn inside(world: &World, flags: &[&str], script: &str) -> Done {
    let volume = |from: &Path, to: &str| format!("{}:{to}", from.display());
    let binary = volume(Path::new(env!("CARGO_BIN_EXE_strake")), "/usr/local/bin/strake:ro");
    let (store, context) = (volume(&world.path("inner"), "/store"), volume(&world.context(), "/ctx"));
    let mut args = vec!["run", "--rm", "--network", "host", "-v", &binary, "-v", &store, "-v", &context];
    args.extend(["-e", "STRAKE_ROOT=/store/s", "-e", "HOME=/tmp", "-e", "SOURCE_DATE_EPOCH=1700000000", "-w", "/ctx"]);
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// All that is special about a step's surroundings.
const DOCKERFILE: &str = "FROM scratch
ADD busybox.tar /
COPY --chown=1000:1001 file /data/file
RUN --mount=type=cache,target=/cache echo kept >> /cache/log && cat /cache/log > /log
RUN --mount=type=secret,id=s,target=/run/secrets/s test \"$(cat /run/secrets/s)\" = hush
RUN --mount=type=bind,target=/ctx,rw touch /ctx/new && cp /ctx/file /copied
RUN --mount=type=tmpfs,target=/scratch touch /scratch/gone
RUN (setsid sleep 4242 &) ; mkdir /home/user && chown 1000:1000 /home/user && chmod 2750 /home/user
USER 1000:1000
WORKDIR /home/user
RUN id -u > me && test ! -e /run/secrets/s && echo gone > /dev/null
USER 0
RUN rm /log && ln -s /copied /link
";

/// Builds what `DOCKERFILE` says, and shows the ID, the processes that are left and what a container of it says.
const SCRIPT: &str = "strake build --progress plain --reproducible --secret id=s,src=secret -t localhost/t . || exit 1
strake images -q --no-trunc localhost/t
ps | grep -c '[s]leep 4242'
strake run --rm --network host localhost/t sh -c 'cat /home/user/me; stat -c %u:%g /data/file; test ! -e /log && echo no log'";

/// The ID that the same build gives root of this machine, and the end of its line.
#[track_caller]
fn id_outside(world: &World) -> String {
    let build = ["build", "-q", "--reproducible", "--secret", "id=s,src=ctx/secret", "-t", "localhost/t", "ctx"];
    world.strake(build).env("SOURCE_DATE_EPOCH", "1700000000").ok();
    world.strake(["images", "-q", "--no-trunc", "localhost/t"]).ok().stdout
}

#[track_caller]
fn same_as_outside(world: &World, done: &Done) {
    assert_eq!(done.code, 0, "{done}");
    let id = id_outside(world);
    assert_eq!(done.stdout, format!("{id}0\n1000\n1000:1001\nno log\n"), "{done}");
}

#[test]
fn root_without_privileges_is_root_of_a_user_namespace() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", DOCKERFILE);
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], SCRIPT);
    same_as_outside(&world, &done);
    // Parts of the container's /proc are covered, so there can be no other: said by the build and by the run, once each.
    assert_eq!(done.stderr.matches("procMount").count(), 2, "{done}");
}

#[test]
fn with_a_proc_that_shows_everything_steps_have_their_own_processes() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN test $$ = 1 && test \"$(ls /proc | grep -c '^[0-9]')\" -lt 5\n");
    let flags = ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"];
    let done = inside(&world, &flags, "strake build --progress plain .");
    assert_eq!(done.code, 0, "{done}");
    done.omits(&["procMount"]);
}

#[test]
fn no_process_outlives_its_step_or_its_container_there() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN (setsid sh -c 'sleep 4243 & sleep 4243' &) ; sleep 4243\n");
    let script = "started() { for i in $(seq 1 300); do test $(ps | grep -c '[s]leep 4243') = 3 && return; sleep 0.1; done; echo never; }
gone() { for i in $(seq 1 300); do test $(ps | grep -c '[s]leep 4243') = 0 && echo none && return; sleep 0.1; done; ps; }
for signal in INT KILL; do strake build . > /dev/null 2>&1 & build=$!; started; kill -$signal $build; gone; done
printf 'FROM scratch\\nADD busybox.tar /\\n' > /tmp/Dockerfile; strake build -q -t localhost/b -f /tmp/Dockerfile . > /dev/null
strake run -d --name c --network host localhost/b sh -c '(setsid sleep 4243 &) ; sleep 4243 & exec sleep 4243' > /dev/null; started
strake exec c sh -c 'test -e /dev/null && echo entered'; strake stop -t 0 c; gone";
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], script);
    assert_eq!(done.stdout, "none\nnone\nentered\nc\nnone\n", "{done}");
}

#[test]
fn limits_that_cannot_be_had_there_are_an_error_that_names_them() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN true\n");
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], "strake build -m 64m .");
    assert_ne!(done.code, 0);
    done.says(&["cgroup"]).omits(&["panicked"]);
}

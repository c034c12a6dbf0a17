//! Failures: one clear diagnostic, a status that is not 0, and a store that works afterwards.

use std::os::unix::fs::PermissionsExt;

use sha2::{Digest, Sha256};

use crate::common::image::hex;
use crate::common::registry::{Reply, scripted};
use crate::common::{Done, Run, World, able, world};

/// Builds something that works, in the same store.
#[track_caller]
fn works(world: &World) {
    world.build("FROM localhost/busybox\nRUN echo works > /works\n", &["--no-cache"]).ok();
}

/// How many failures are told of.
fn errors(done: &Done) -> usize {
    done.stderr.lines().filter(|line| line.starts_with("error")).count()
}

#[test]
fn every_mistake_of_a_dockerfile_is_told_at_once_and_pointed_at() {
    let Some(world) = world() else { return };
    let text =
        "FROM localhost/busybox\nRUNN echo typo\nCOPY --frm=x a b\nHEALTHCHECK --interval=never CMD true\nRUN --mount=type=bogus true\n";
    let done = world.build(text, &[]).fails();
    done.says(&["Dockerfile:2:1", "RUNN", "Dockerfile:3:", "--frm", "Dockerfile:4:", "never", "Dockerfile:5:", "bogus"]);
    done.says(&["^^^^"]);
    assert!(errors(&done) >= 4, "{done}");
    done.omits(&["#1 "]);
    world.build("FROM localhost/busybox\nEXPOSE notaport\n", &[]).fails().says(&["Dockerfile:2", "notaport"]);
    works(&world);
}

#[test]
fn an_unknown_instruction_is_named_with_the_likely_one() {
    let Some(world) = world() else { return };
    let done = world.build("FROM localhost/busybox\nWORKDRI /x\n", &[]).fails();
    done.says(&["Dockerfile:2:1", "WORKDRI", "WORKDIR"]);
    world.build("RUN true\n", &[]).fails().says(&["Dockerfile:1", "FROM"]);
    world.build("", &[]).fails().says(&["Dockerfile"]);
    works(&world);
}

#[test]
fn a_file_that_is_not_there_is_named_and_an_ignore_file_that_hides_it_too() {
    let Some(world) = world() else { return };
    let done = world.build("FROM localhost/busybox\nCOPY absent.txt /d/\n", &[]).fails();
    done.says(&["Dockerfile:2", "absent.txt", "not found"]);
    world.write("hidden.txt", "h").write("present.txt", "p").write(".dockerignore", "hid*\n");
    let done = world.build("FROM localhost/busybox\nCOPY hidden.txt /\n", &[]).fails();
    done.says(&["hidden.txt", ".dockerignore"]);
    world.build("FROM localhost/busybox\nCOPY --from=nostage /x /\n", &[]).fails().says(&["nostage"]);
    works(&world);
}

#[test]
fn a_missing_file_beside_a_present_one_is_the_one_that_is_named() {
    let Some(world) = world() else { return };
    world.write("present.txt", "p");
    let done = world.build("FROM localhost/busybox\nCOPY present.txt absent.txt /d/\n", &[]).fails();
    done.says(&["Dockerfile:2", "absent.txt"]);
    assert_eq!(errors(&done), 1, "{done}");
}

#[test]
fn a_failing_command_is_told_with_its_status_line_and_last_output() {
    let Some(world) = world() else { return };
    let done = world.build("FROM localhost/busybox\nRUN true\nRUN seq 1 100; echo the end >&2; exit 42\nRUN touch /never\n", &[]).fails();
    done.says(&["exited with status 42", "Dockerfile:3", "the end", "| 100"]);
    assert_eq!(errors(&done), 1, "{done}");
    done.omits(&["never\n#"]);
    world.build("FROM localhost/busybox\nRUN sh -c 'kill -9 $$'; exit $?\n", &[]).fails().says(&["Dockerfile:2", "137"]);
    world.build("FROM localhost/busybox\nRUN [\"/no/such/program\"]\n", &[]).fails().says(&["/no/such/program"]);
    world.build("FROM localhost/busybox\nUSER nosuchuser\nRUN true\n", &[]).fails().says(&["nosuchuser"]);
    works(&world);
}

#[test]
fn findings_are_told_once_and_before_whatever_the_build_fails_with() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    for (text, error) in [
        ("FROM scratch as x\nCOPY absent /\n", "absent"),
        ("FROM 127.0.0.1:1/x as x\n", "cannot get the image"),
        ("FROM scratch as x\nRUNN\n", "RUNN"),
        ("FROM scratch as x\nCOPY --from=nostage /x /\n", "nostage"),
    ] {
        let done = world.build(text, &[]).fails();
        let found: Vec<usize> = done.stderr.match_indices("[FromAsCasing]").map(|(at, _)| at).collect();
        assert_eq!(found.len(), 1, "{done}");
        assert!(done.stderr.rfind("error").is_some_and(|at| found[0] < at), "{done}");
        done.says(&[error]);
    }
    let done = world.build("FROM scratch\nCOPY absent /\n", &["--build-arg", "NOBODY=1"]).fails();
    done.says(&["NOBODY", "absent"]);
}

#[test]
fn an_image_that_is_nowhere_is_named_with_what_the_registry_said() {
    let Some(world) = world() else { return };
    let host = scripted(|_, path| if path == "/v2/" { Reply::body("application/json", "{}") } else { Reply::missing() });
    let done = world.build(&format!("FROM {host}/no/such:1\nRUN true\n"), &[]).fails();
    done.says(&[&format!("{host}/no/such:1"), "Dockerfile:1", "404"]);
    assert_eq!(errors(&done), 1, "{done}");
    // Nobody listens there.
    let done = world.build("FROM 127.0.0.1:1/x\n", &[]).fails();
    done.says(&["127.0.0.1:1"]);
    assert!(done.elapsed.as_secs() < 60, "{:?}", done.elapsed);
    works(&world);
}

#[test]
fn a_registry_that_sends_other_bytes_than_it_promised_is_caught() {
    let Some(world) = world() else { return };
    let layer = b"not what was promised, though as long".to_vec();
    let promised = format!("sha256:{}", hex(&Sha256::digest(b"what was promised, and just as long..")));
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{promised}"]}}}}"#);
    let config_digest = format!("sha256:{}", hex(&Sha256::digest(config.as_bytes())));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{promised}","size":{}}}]}}"#,
        config.len(),
        layer.len()
    );
    let promised_path = format!("/v2/x/blobs/{promised}");
    let host = scripted(move |_, path| match path {
        "/v2/" => Reply::body("application/json", "{}"),
        path if path.starts_with("/v2/x/manifests/") => Reply::body(kind, manifest.clone()),
        path if path == promised_path => Reply::body("application/octet-stream", layer.clone()),
        path if path.starts_with("/v2/x/blobs/") => Reply::body("application/octet-stream", config.clone()),
        _ => Reply::missing(),
    });
    let done = world.build(&format!("FROM {host}/x\nCOPY --from=localhost/busybox /bin/busybox /b\n"), &[]).fails();
    done.says(&[&promised, "digest"]);
    assert!(!world.root().join("blobs/sha256").join(&promised[7..]).exists(), "the wrong bytes are kept");
    works(&world);
}

#[test]
fn a_store_that_may_not_be_written_is_told_without_a_crash() {
    let Some(world) = world() else { return };
    let root = world.path("forbidden");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o700)).unwrap();
    for path in [world.path(""), world.context()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    world.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    // The binary as another user may reach it.
    let binary = world.path("strake");
    std::fs::copy(env!("CARGO_BIN_EXE_strake"), &binary).unwrap();
    let mut run = Run::new("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups"]);
    run.command()
        .arg(&binary)
        .args(["build", "."])
        .current_dir(world.context())
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("STRAKE_ROOT", root.join("store"));
    let done = run.fails();
    done.says(&["forbidden"]);
    assert!(done.stderr.to_lowercase().contains("permission denied"), "{done}");
    assert_eq!(errors(&done), 1, "{done}");
    // What only looks at the Dockerfile needs no store, nor does it leave one behind.
    let temporary = world.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::create_dir(world.path("owned-by-root")).unwrap();
    std::fs::set_permissions(world.path("owned-by-root"), PermissionsExt::from_mode(0o755)).unwrap();
    for (call, store) in
        [("--check", root.join("store")), ("--call=outline", root.clone()), ("--call=targets", world.path("owned-by-root"))]
    {
        let mut run = Run::new("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups"]);
        let command = run.command().arg(&binary).args(["build", call, "."]).current_dir(world.context()).env_clear();
        command.env("HOME", "/nonexistent").env("TMPDIR", &temporary).env("STRAKE_ROOT", store);
        run.ok();
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    works(&world);
}

#[test]
fn a_full_disk_is_told_and_the_store_works_when_there_is_room_again() {
    if !able(&["docker-registry", "mkfs.ext4"]) {
        return;
    }
    let world = World::new();
    let (image, mount) = (world.path("disk.img"), world.path("disk"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    Run::new("mkfs.ext4", ["-q".as_ref(), image.as_os_str()]).ok();
    Run::new("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mount.as_os_str()]).ok();
    let _unmount = Unmount(mount.clone());
    let root = mount.join("store");
    world.write("busybox.tar", std::fs::read(crate::common::bases().join("busybox.tar")).unwrap());
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nENV PATH=/bin\n");
    world.build_as_it_is(&["-t", "localhost/busybox"]).env("STRAKE_ROOT", &root).ok();
    let full = world.build("FROM localhost/busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n", &[]).env("STRAKE_ROOT", &root).fails();
    assert!(full.stderr.to_lowercase().contains("no space left"), "{full}");
    // A COPY is done by us, and not by a command that says itself what is wrong.
    world.write("big", vec![1; 40 << 20]);
    let full = world.build("FROM localhost/busybox\nCOPY big /\n", &[]).env("STRAKE_ROOT", &root).fails();
    assert!(full.stderr.to_lowercase().contains("no space left"), "{full}");
    assert_eq!(errors(&full), 1, "{full}");
    std::fs::remove_file(world.context().join("big")).unwrap();
    world.build("FROM localhost/busybox\nRUN echo works > /works\n", &[]).env("STRAKE_ROOT", &root).ok();
}

pub(crate) struct Unmount(pub(crate) std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}

#[test]
fn an_interrupt_stops_a_build_in_good_order() {
    let Some(world) = world() else { return };
    world.write("Dockerfile", "FROM localhost/busybox\nRUN sleep 54322\n");
    let mut child = world.build_as_it_is(&[]).start();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
    let mut status = None;
    crate::common::wait_for("the end of the build", 20, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(!status.unwrap().success());
    works(&world);
}

#[test]
fn an_interrupted_pull_ends_at_once_and_says_so_with_its_status() {
    // A registry that takes the request and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/x:1", silent.local_addr().unwrap());
    let world = World::new();
    let mut child = world.strake(["pull", &name]).start();
    let _connection = silent.accept().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let asked = std::time::Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < std::time::Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[test]
fn flags_that_ask_for_nothing_here_are_taken_and_what_has_no_effect_is_said() {
    let world = World::new();
    let build = |args: &[&str]| world.build("FROM scratch\nLABEL a=b\n", args);
    let silent =
        build(&["--rm", "--force-rm", "--compress=false", "--isolation=default", "--builder=default", "--attest=type=sbom,disabled=true"])
            .ok();
    assert!(!silent.stderr.contains("warning"), "{silent}");
    let loud = build(&["--rm=false", "--squash", "--compress", "--security-opt", "seccomp=unconfined", "--builder", "mine"]).ok();
    for flag in ["--rm=false", "--squash", "--compress", "--security-opt", "--builder"] {
        assert_eq!(loud.stderr.matches(&format!("warning: {flag} has no effect")).count(), 1, "{loud}");
    }
    let refused = build(&["--attest", "type=sbom"]).fails();
    assert!(refused.stderr.contains("attestations are not supported yet"), "{refused}");
    let refused = build(&["--isolation", "hyperv"]).fails();
    assert!(refused.stderr.contains("expected `default`, `oci`, `rootless` or `chroot`"), "{refused}");
}

#[test]
fn a_name_that_means_a_deletion_in_layers_is_refused_with_the_step_that_brought_it() {
    let world = World::new();
    world.write("d/.wh.x", "");
    let refused = world.build("FROM scratch\nCOPY d /d\n", &[]).fails();
    refused.says(&["layer of `COPY d /d` cannot be used", "`/d/.wh.x` cannot be part of a layer"]);
}

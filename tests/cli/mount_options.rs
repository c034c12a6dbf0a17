//! Options of mounts: those of file systems in memory, and how what is mounted later travels between the host and a container.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::common::{Nobody, World, able, wait_for, world};

/// The line of `/x` in a container's list of mounts, behind the name of the place: attributes, peers, and the file system's own.
fn mounted(world: &World, options: &str) -> String {
    let tmpfs = format!("/x:{options}");
    let line = world.strake(["run", "--rm", "--tmpfs", &tmpfs, "localhost/busybox", "grep", " /x ", "/proc/self/mountinfo"]).ok().stdout;
    line.trim().split_once(" /x ").unwrap().1.to_owned()
}

/// What Docker 28.5 shows for the same options, also where two of them contradict each other.
#[test]
fn options_of_a_file_system_in_memory_are_in_force() {
    let Some(world) = world() else { return };
    for (options, expected) in [
        ("noatime", "rw,nosuid,nodev,noexec,noatime - tmpfs"),
        ("strictatime", "rw,nosuid,nodev,noexec - tmpfs"),
        ("nodiratime,norelatime", "rw,nosuid,nodev,noexec,nodiratime,relatime - tmpfs"),
        ("noatime,atime,nodiratime,diratime,strictatime,nostrictatime,defaults", "rw,nosuid,nodev,noexec,relatime - tmpfs"),
        ("unbindable", "rw,nosuid,nodev,noexec,relatime unbindable - tmpfs"),
        ("shared,rslave", "rw,nosuid,nodev,noexec,relatime - tmpfs"),
        ("suid,dev,exec,relatime,private", "rw,nodev,relatime - tmpfs"),
    ] {
        let line = mounted(&world, options);
        assert!(line.starts_with(expected), "{options}: {line}");
    }
    for (options, expected) in [
        ("sync,size=1m", &["rw,sync", "size=1024k"][..]),
        ("dirsync,sync,async", &["rw,dirsync"]),
        ("mpol=local,mpol=bind:0,uid=5,gid=6", &["uid=5", "gid=6", "mpol=bind:0"]),
    ] {
        let line = mounted(&world, options);
        let own = line.split_once(" - tmpfs ").unwrap().1;
        assert!(expected.iter().all(|option| own.contains(option)), "{options}: {line}");
        assert!(own.contains("mpol=bind") || !own.contains("mpol"), "{options}: {line}");
    }
    assert!(mounted(&world, "rshared").contains(" shared:"));
    for refused in ["bind", "remount", "lazytime", "huge=always", "mpol=", "atime=3"] {
        let tmpfs = format!("/x:{refused}");
        let done = world.strake(["run", "--rm", "--tmpfs", &tmpfs, "localhost/busybox", "true"]).run();
        assert_eq!(done.code, 125, "{refused}: {done}");
        done.says(&["is not supported"]);
    }
}

/// Runs `test` where a file system at `place` is mounted that no other mount namespace has anything to do with.
fn with_a_private_mount(place: &Path, test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=777")).unwrap();
            std::fs::create_dir(place.join("dir")).unwrap();
            test();
        });
        if let Err(panic) = test.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn change(place: &Path, to: MsFlags) {
    mount(None::<&str>, place, None::<&str>, to, None::<&str>).unwrap();
}

#[test]
fn mounts_travel_only_from_and_to_where_others_are_told_of_them() {
    let Some(world) = world() else { return };
    let place = world.path("place");
    std::fs::create_dir(&place).unwrap();
    with_a_private_mount(&place, || {
        let dir = place.join("dir");
        let run = |propagation: &str, flag: &str| {
            let volume = match flag {
                "-v" => format!("{}:/x:{propagation}", dir.display()),
                _ => format!("type=bind,src={},dst=/x,bind-propagation={propagation}", dir.display()),
            };
            world.strake(["run", "--rm", flag, &volume, "localhost/busybox", "true"]).run()
        };
        let refuses = |propagation: &str, kind: &str| {
            for flag in ["-v", "--mount"] {
                let done = run(propagation, flag);
                assert_eq!(done.code, 125, "{propagation}: {done}");
                let (said, hint) = (
                    format!("is mounted on `{}`, which is not a {kind} mount", place.display()),
                    format!("mount --make-rshared {}", place.display()),
                );
                done.says(&[&format!("`{}` {said}", dir.display()), "hint:", &hint]);
            }
        };
        for propagation in ["rshared", "shared"] {
            refuses(propagation, "shared");
        }
        for propagation in ["rslave", "slave"] {
            refuses(propagation, "shared or slave");
        }
        assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "", "a refusal makes nothing");
        assert_eq!((run("rprivate", "-v").code, run("private", "--mount").code), (0, 0));
        change(&place, MsFlags::MS_SHARED);
        for propagation in ["rshared", "shared", "rslave", "slave"] {
            assert_eq!((run(propagation, "-v").code, run(propagation, "--mount").code), (0, 0), "{propagation}");
        }
        // What a container mounts is on the host then.
        let volume = format!("{}:/x:rshared", dir.display());
        let script = "mkdir /x/m && mount -t tmpfs none /x/m && echo made > /x/m/file && sleep 1000";
        let flags = ["run", "-d", "--name", "c", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined", "-v", &volume];
        world.strake([&flags[..], &["localhost/busybox", "sh", "-c", script]].concat()).ok();
        // The test's own thread is in the namespace, the process is not.
        wait_for("what the container mounts", 20, || std::fs::read_to_string(dir.join("m/file")).is_ok_and(|text| text == "made\n"));
        world.strake(["rm", "-f", "c"]).ok();
        // A slave brings what its master has, and gives nothing.
        let copy = world.path("place").join("copy");
        std::fs::create_dir(&copy).unwrap();
        mount(Some(&place), &copy, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        change(&copy, MsFlags::MS_SLAVE);
        let of_slave = |propagation: &str| {
            let volume = format!("{}:/x:{propagation}", copy.join("dir").display());
            world.strake(["run", "--rm", "-v", &volume, "localhost/busybox", "true"]).run()
        };
        assert_eq!(of_slave("rslave").code, 0);
        of_slave("rshared").says(&[&format!("`{}`, which is not a shared mount", copy.display())]);
    });
}

#[test]
fn without_root_mounts_of_the_host_travel_to_containers() {
    if !able(&["setpriv"]) {
        return;
    }
    let world = World::new();
    let place = world.short().join("place");
    std::fs::create_dir(&place).unwrap();
    with_a_private_mount(&place, || {
        let Some(nobody) = Nobody::of(&world) else { return };
        let volume = |propagation: &str| format!("{}:/x:{propagation}", place.join("dir").display());
        for propagation in ["rslave", "rshared"] {
            let done = nobody.strake(&["run", "--rm", "--network", "none", "-v", &volume(propagation), "localhost/busybox", "true"]).run();
            assert_eq!(done.code, 125, "{propagation}: {done}");
            done.says(&["which is not a shared or slave mount"]);
        }
        change(&place, MsFlags::MS_SHARED);
        for propagation in ["rslave", "rshared"] {
            let flags = ["run", "-d", "--network", "none", "--name", propagation, "-v", &volume(propagation)];
            nobody.strake(&[&flags[..], &["localhost/busybox", "sleep", "1000"]].concat()).ok();
        }
        let later = place.join("dir/later");
        std::fs::create_dir(&later).unwrap();
        mount(Some("none"), &later, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(later.join("file"), "mounted").unwrap();
        for name in ["rslave", "rshared"] {
            assert_eq!(nobody.strake(&["exec", name, "cat", "/x/later/file"]).ok().stdout, "mounted", "{name}");
            nobody.strake(&["rm", "-f", name]).ok();
        }
    });
}

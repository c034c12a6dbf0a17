//! Attempts to get out of a build: by Dockerfiles and images that were published as attacks on engines.

use std::fs;

use crate::common::{World, world};

/// A stage with links that lead out of whatever they are followed in, and the directory of the host that they mean.
fn with_links(world: &World) -> (String, std::path::PathBuf) {
    let treasure = world.path("treasure");
    fs::create_dir(&treasure).unwrap();
    fs::write(treasure.join("secret"), "untouched").unwrap();
    let text = format!(
        "FROM localhost/busybox AS hostile\nRUN ln -s / /root-link && ln -s ../../../../../../.. /up && ln -s {} /abs && echo stage > /marker\n\
         FROM localhost/busybox\n",
        treasure.display()
    );
    (text, treasure)
}

/// CVE-2024-1753 and CVE-2024-9407 of Buildah: the source of a bind mount is a link to the root, and then it was the host's.
#[test]
fn the_source_of_a_steps_mount_is_found_in_its_stage() {
    let Some(world) = world() else { return };
    let (text, treasure) = with_links(&world);
    for source in ["/root-link", "/up", "/root-link/../../.."] {
        let step = format!(
            "RUN --mount=type=bind,from=hostile,source={source},target=/m,rw cat /m/marker && ! ls /m{0} && touch /m/made\n",
            treasure.display()
        );
        let done = world.build(&format!("{text}{step}"), &["--no-cache"]).ok();
        done.says(&["stage"]);
    }
    let step = "RUN --mount=type=bind,from=hostile,source=/abs,target=/m,rw ls /m; touch /m/made\n";
    let done = world.build(&format!("{text}{step}"), &["--no-cache"]).run();
    assert!(!done.stderr.contains("secret"), "{done}");
    // The context has such links, too.
    std::os::unix::fs::symlink(&treasure, world.context().join("out")).unwrap();
    let step = "RUN --mount=type=bind,source=out,target=/m,rw ls /m; touch /m/made\n";
    let done = world.build(&format!("{text}{step}"), &["--no-cache"]).run();
    assert!(!done.stderr.contains("secret"), "{done}");
    assert_eq!(fs::read_dir(&treasure).unwrap().count(), 1);
    assert!(!std::path::Path::new("/made").exists());
}

/// CVE-2024-9675 of Buildah: the names of a cache are parts of a path of the host.
#[test]
fn no_name_of_a_cache_is_a_path() {
    let Some(world) = world() else { return };
    let (text, treasure) = with_links(&world);
    let up = format!("../../../../../../../../..{}", treasure.display());
    for options in [
        format!("id={up},target=/c"),
        format!("id={},target=/c", treasure.display()),
        "id=..,target=/c".to_owned(),
        format!("target=/c,source={up}"),
        "target=/c,from=hostile,source=/abs".to_owned(),
    ] {
        let step = format!("RUN --mount=type=cache,{options} ls -a /c; touch /c/made\n");
        let done = world.build(&format!("{text}{step}"), &["--no-cache"]).run();
        assert!(!done.stderr.contains("secret"), "{options}: {done}");
        assert_eq!(fs::read_dir(&treasure).unwrap().count(), 1, "{options}");
    }
    for outside in [world.root().join("made"), world.path("made"), world.root().join("cachemounts/made")] {
        assert!(!outside.exists(), "{}", outside.display());
    }
}

/// CVE-2024-9676 of containers/storage: the list of users is a link to the host's files, or to what never ends.
#[test]
fn a_list_of_users_that_is_no_file_neither_leads_out_nor_hangs() {
    let Some(world) = world() else { return };
    fs::write(world.path("passwd"), "thief:x:4242:4242::/:/bin/sh\n").unwrap();
    for (change, works) in [
        (format!("rm /etc/passwd && ln -s {} /etc/passwd", world.path("passwd").display()), false),
        ("rm /etc/passwd && mkfifo /etc/passwd".to_owned(), false),
        ("rm /etc/passwd && ln -s /dev/zero /etc/passwd".to_owned(), false),
        ("rm /etc/passwd && mkdir /etc/passwd".to_owned(), false),
        ("mv /etc/passwd /users && echo thief:x:77:77::/:/bin/sh >> /users && ln -s ../users /etc/passwd".to_owned(), true),
    ] {
        let text = format!("FROM localhost/busybox\nRUN {change}\nUSER thief\nRUN id -u\n");
        let done = world.build(&text, &["--no-cache", "--progress", "plain"]).run();
        assert_eq!(done.code == 0, works, "{change}: {done}");
        assert!(!done.stderr.contains("4242"), "{change}: {done}");
        // Nor where a container asks for the user.
        world.build(&format!("FROM localhost/busybox\nRUN {change}\n"), &["-t", "odd"]).ok();
        let run = world.strake(["run", "--rm", "--network", "none", "-u", "thief", "odd", "id", "-u"]).run();
        assert_eq!(run.stdout, if works { "77\n" } else { "" }, "{change}: {run}");
    }
}

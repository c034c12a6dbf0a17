//! COPY and ADD: the corners in which files, their owners and their times are BuildKit's and not what one would guess.

use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::common::world;

#[test]
fn directories_made_on_the_way_pass_on_the_group_above_them_and_what_is_copied_does_not() {
    let Some(world) = world() else { return };
    world.write("f", "f").write("d/f", "f");
    let tree = world
        .image(
            "FROM localhost/busybox\nRUN mkdir /s && chown 0:50 /s && chmod 2775 /s\n\
             COPY f /s/a/f\nCOPY d /s/b\nCOPY --chown=7:8 f /s/c/\nWORKDIR /s/w/w\n",
            &[],
        )
        .tree();
    let of = |path: &str| (tree[path].mode, tree[path].uid, tree[path].gid);
    for made in ["s/a", "s/b", "s/w", "s/w/w"] {
        assert_eq!(of(made), (0o2755, 0, 50), "{made}");
    }
    assert_eq!(of("s/c"), (0o2755, 7, 8));
    for copied in ["s/a/f", "s/b/f"] {
        assert_eq!(of(copied), (0o644, 0, 0), "{copied}");
    }
}

#[test]
fn chmod_gives_directories_on_the_way_its_number_without_special_bits() {
    let Some(world) = world() else { return };
    world.write("f", "f");
    let tree = world.image("FROM scratch\nCOPY --chmod=1751 f /n/d/\nCOPY --chmod=go=r f /s/d/\n", &[]).tree();
    let mode = |path: &str| tree[path].mode;
    assert_eq!((mode("n"), mode("n/d"), mode("n/d/f")), (0o751, 0o751, 0o1751));
    assert_eq!((mode("s"), mode("s/d"), mode("s/d/f")), (0o755, 0o755, 0o644));
}

#[test]
fn a_destination_gets_the_time_of_the_directory_whose_contents_it_gets() {
    let Some(world) = world() else { return };
    world.write("d/f", "f").write("g", "g");
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::open(world.context().join("d")).unwrap().set_modified(old).unwrap();
    let tree = world.image("FROM localhost/busybox\nRUN mkdir /there\nCOPY d /there\nCOPY d /way/new\nCOPY d g /both/\n", &[]).tree();
    let is_old = |path: &str| tree[path].mtime == 1_000_000_000;
    assert!(is_old("there") && is_old("way/new"));
    assert!(!is_old("way") && !is_old("both"));
}

#[test]
fn parents_take_the_mode_of_the_source_also_where_they_are_there() {
    let Some(world) = world() else { return };
    world.write("x/y/f", "f");
    let mode = |path: &str, mode| {
        std::fs::set_permissions(world.context().join(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("x", 0o750);
    mode("x/y", 0o711);
    let text = "FROM localhost/busybox\nRUN mkdir -p /o/x && chmod 777 /o/x && chown 5:6 /o/x\nCOPY --parents x/y/f /o/\n";
    let tree = world.image(text, &[]).tree();
    let of = |path: &str| (tree[path].mode, tree[path].uid, tree[path].gid);
    assert_eq!((of("o/x"), of("o/x/y")), ((0o750, 5, 6), (0o711, 0, 0)));
}

#[test]
fn a_file_that_a_source_names_is_copied_whatever_exclude_says() {
    let Some(world) = world() else { return };
    world.write("a.md", "a").write("d/b.md", "b").write("d/c", "c");
    let output = format!("type=local,dest={}", world.path("out").display());
    let done = world.build("FROM scratch\nCOPY --exclude=*.md *.md d /o/\n", &["-o", &output]).ok();
    let has = |name: &str| world.path("out/o").join(name).exists();
    assert!(has("a.md") && has("c") && !has("b.md"));
    done.says(&["`a.md`, which a source names itself, was copied all the same"]);
}

#[test]
fn what_is_behind_an_archive_in_gzip_is_passed_over() {
    let Some(world) = world() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", &b"f"[..]).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&tar.into_inner().unwrap()).unwrap();
    let whole = encoder.finish().unwrap();
    world.write("zeros", [&whole[..], &[0; 1024]].concat()).write("text", [&whole[..], b"text"].concat());
    let tree = world.image("FROM scratch\nADD zeros /zeros/\nADD text /text/\n", &[]).tree();
    assert_eq!((&tree["zeros/f"].content[..], &tree["text/f"].content[..]), (&b"f"[..], &b"f"[..]));
}

#[test]
fn a_destination_that_ends_in_two_dots_is_a_name() {
    let Some(world) = world() else { return };
    world.write("f", "f");
    let tree = world.image("FROM scratch\nCOPY f /q/r/..\nCOPY f /d/.\n", &[]).tree();
    assert_eq!((tree["q"].kind, tree["d/f"].kind), ("file", "file"));
}

//! USER and `--chown` against small root file systems.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::store::view::{Marks, MergedView};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nbuilder:x:1000:1001::/home/builder:/bin/sh\nhomeless:x:55:56:::\n";
const GROUP: &str = "root:x:0:\nstaff:x:50:builder,root\nwheel:x:10:builder\nbuilders:x:1001:builder\n";

fn with_root_file_system<T>(passwd: &str, group: &str, look: impl FnOnce(&MergedView) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
    fs::write(directory.path().join("etc/group"), group).unwrap();
    look(&MergedView::new(vec![directory.path().to_owned()], Marks::Trusted).unwrap())
}

#[test]
fn blanks_around_lines_of_users_and_groups_do_not_count() {
    with_root_file_system("  sp:x:50:51::/:\n\t last:x:60:61::/h \n", "\tstaff:x:70:sp \n", |tree| {
        assert_eq!(lookup_owner(tree, "sp:staff").unwrap().owner, Owner { uid: 50, gid: 70 });
        assert_eq!(lookup_owner(tree, "last").unwrap().owner, Owner { uid: 60, gid: 61 });
        assert_eq!(lookup_user(tree, "sp").unwrap().additional_gids, [51, 70]);
    });
}

#[test]
fn what_lines_of_users_and_groups_lack_is_zero() {
    with_root_file_system("root:x:0:0\nshort:x:77\nodd:x:abc:1::/h\n", "alone\nodd:x:1x:short\n", |tree| {
        for (spec, uid, gid) in [("short", 77, 0), ("odd", 0, 1), ("short:alone", 77, 0), ("short:odd", 77, 0)] {
            assert_eq!(lookup_owner(tree, spec).unwrap(), ResolvedOwner { owner: Owner { uid, gid }, warning: None }, "{spec}");
        }
    });
}

#[test]
fn a_number_that_nobody_can_have_is_an_error_only_once_it_is_meant() {
    let passwd =
        "big:x:99999999999:5::/:\nminus:x:-1:5::/:\nlast:x:4294967295:5::/:\ngroup:x:5:4294967296::/:\nfine:x:6:7::/:\nmember:x:8:9::/:\n";
    with_root_file_system(passwd, "huge:x:99999999999999999999:member\n", |tree| {
        let message = |name, file| format!("the number of `{name}` in `{file}` is none that a user or a group can have");
        for name in ["big", "minus", "last", "group"] {
            assert_eq!(lookup_user(tree, name).unwrap_err().to_string(), message(name, "/etc/passwd"));
            assert_eq!(lookup_owner(tree, name).unwrap_err().to_string(), message(name, "/etc/passwd"));
        }
        for spec in ["member", "fine:huge"] {
            assert_eq!(lookup_user(tree, spec).unwrap_err().to_string(), message("huge", "/etc/group"), "{spec}");
        }
        assert_eq!(lookup_owner(tree, "fine:huge").unwrap_err().to_string(), message("huge", "/etc/group"));
        // Others' lines do no harm.
        assert_eq!(lookup_user(tree, "fine").unwrap().uid, 6);
        assert_eq!(lookup_user(tree, "0").unwrap().uid, 0);
        assert_eq!(lookup_user(tree, "").unwrap().uid, 0);
    });
}

#[test]
fn users_are_resolved_as_the_reference_says() {
    let user = |uid, gid, additional_gids: &[u32], home: Option<&str>| ProcessUser {
        uid,
        gid,
        additional_gids: [&[gid], additional_gids].concat(),
        home: home.map(str::to_owned),
    };
    let builder = Some("/home/builder");
    with_root_file_system(PASSWD, GROUP, |tree| {
        for (spec, expected) in [
            ("builder", user(1000, 1001, &[10, 50], builder)),
            ("1000", user(1000, 1001, &[10, 50], builder)),
            ("builder:staff", user(1000, 50, &[], builder)),
            ("builder:7", user(1000, 7, &[], builder)),
            ("builder:", user(1000, 1001, &[10, 50], builder)),
            ("1000:1000", user(1000, 1000, &[], builder)),
            ("4242", user(4242, 0, &[], None)),
            ("4242:99", user(4242, 99, &[], None)),
            ("homeless", user(55, 56, &[], None)),
            ("", user(0, 0, &[50], Some("/root"))),
            ("root", user(0, 0, &[50], Some("/root"))),
        ] {
            assert_eq!(lookup_user(tree, spec).unwrap(), expected, "{spec}");
        }
        for (spec, message) in [
            ("buidler", "no user `buidler` in `/etc/passwd`"),
            ("root:stuff", "no group `stuff` in `/etc/group`"),
            ("99999999999", "`99999999999` is no user: the number is too large"),
        ] {
            assert_eq!(lookup_user(tree, spec).unwrap_err().to_string(), message, "{spec}");
        }
        assert_eq!(lookup_user(tree, "buidler").unwrap_err().hint().as_deref(), Some("did you mean `builder`?"));
    });
}

#[test]
fn owners_are_resolved_as_was_observed() {
    with_root_file_system(PASSWD, GROUP, |tree| {
        for (spec, uid, gid) in [
            ("55", 55, 55),
            ("55:1", 55, 1),
            (":78", 0, 78),
            (":staff", 0, 50),
            ("builder", 1000, 1001),
            ("builder:root", 1000, 0),
            ("1000:staff", 1000, 50),
            ("builder:", 1000, 0),
            ("55:", 55, 0),
            ("root", 0, 0),
            ("root:builders", 0, 1001),
            ("+7:007", 7, 7),
        ] {
            assert_eq!(lookup_owner(tree, spec).unwrap(), ResolvedOwner { owner: Owner { uid, gid }, warning: None }, "{spec}");
        }
        for (spec, uid, gid, lacks) in [
            ("nosuch:none", 0, 0, "user `nosuch` and no group `none`"),
            ("nosuch", 0, 0, "user `nosuch`"),
            ("4294967294:5", 0, 5, "user `4294967294`"),
            ("-1", 0, 0, "user `-1`"),
            ("nosuch:staff", 0, 50, "user `nosuch`"),
            ("builder:none", 1000, 1001, "group `none`"),
            ("55:none", 55, 55, "group `none`"),
        ] {
            let warning = Some(format!("the root file system has no {lacks}, so `{spec}` is taken for {uid}:{gid}"));
            assert_eq!(lookup_owner(tree, spec).unwrap(), ResolvedOwner { owner: Owner { uid, gid }, warning }, "{spec}");
        }
    });
}

#[test]
fn root_as_an_owner_is_a_constant() {
    let odd = "root:x:7:8:root:/root:/bin/sh\n";
    for (passwd, group) in [(odd, "root:x:9:\n"), ("", "")] {
        with_root_file_system(passwd, group, |tree| {
            for spec in ["root", "root:root", "0:root", ":root", "root:"] {
                assert_eq!(lookup_owner(tree, spec).unwrap(), ResolvedOwner { owner: Owner { uid: 0, gid: 0 }, warning: None }, "{spec}");
            }
        });
    }
}

#[test]
fn user_files_are_only_read_inside_and_only_if_they_are_files() {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    fs::create_dir(&etc).unwrap();
    let view = || MergedView::new(vec![directory.path().to_owned()], Marks::Trusted).unwrap();
    assert_eq!(lookup_user(&view(), "root").unwrap_err().to_string(), "no user `root` in `/etc/passwd`");
    assert_eq!(lookup_user(&view(), "").unwrap().uid, 0);
    // An absolute link is inside: this machine's users are not found.
    fs::write(etc.join("shadowed"), "inside:x:9:9::/:").unwrap();
    symlink("/etc/shadowed", etc.join("passwd")).unwrap();
    assert_eq!(lookup_user(&view(), "inside").unwrap().uid, 9);
    assert!(lookup_user(&view(), "daemon").is_err());
    fs::remove_file(etc.join("passwd")).unwrap();
    fs::create_dir(etc.join("passwd")).unwrap();
    assert_eq!(lookup_user(&view(), "root").unwrap_err().to_string(), "cannot use `/etc/passwd`: it is not a regular file");
    // Who needs no name needs no file of names.
    for (spec, uid, gid) in [("", 0, 0), ("5:6", 5, 6)] {
        let user = lookup_user(&view(), spec).unwrap();
        assert_eq!((user.uid, user.gid, user.home), (uid, gid, None), "{spec}");
    }
    fs::create_dir(etc.join("group")).unwrap();
    assert_eq!(lookup_user(&view(), "").unwrap().gid, 0);
    fs::remove_dir(etc.join("passwd")).unwrap();
    fs::File::create(etc.join("passwd")).unwrap().set_len(10 * 1024 * 1024 + 1).unwrap();
    assert_eq!(lookup_user(&view(), "root").unwrap_err().to_string(), "cannot use `/etc/passwd`: it is larger than 10 MiB");
}

//! Users: the subordinate IDs that a rootless container's other users are.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Finding, program, read};
use crate::runtime::{IdMap, Situation, lender, missing_capabilities};

pub(super) fn findings(situation: Situation) -> Vec<Finding> {
    match situation {
        Situation::Root => return vec![Finding::ok("user", "root")],
        Situation::UserNamespace(IdMap::All) | Situation::Chroot => {
            return vec![Finding::ok("user", "root, without the capability CAP_SYS_ADMIN: all ids can be used")];
        }
        Situation::UserNamespace(_) | Situation::Bare => {}
    }
    let uid = rustix::process::geteuid().as_raw();
    let passwd = read("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let shown = name.clone().unwrap_or_else(|| uid.to_string());
    if uid == 0 {
        let lacks: Vec<String> = missing_capabilities().map(|name| format!("--cap-add {name}")).collect();
        return vec![Finding::warn(
            "user",
            "root by name, without the capabilities that are wanted for RUN steps",
            format!("docker run {}", lacks.join(" ")),
        )];
    }
    let mut all = vec![Finding::ok("user", format!("{shown} ({uid}), without root")), ranges(uid, name.as_deref(), &shown), helpers()];
    if lender().is_some() {
        all.push(after_logout(&shown));
    }
    all
}

/// What becomes of containers whose groups are below the user's service manager.
fn after_logout(user: &str) -> Finding {
    if Path::new("/var/lib/systemd/linger").join(user).exists() {
        return Finding::ok("after logout", "containers go on");
    }
    let found = "containers with limits end some seconds after the last session";
    Finding::warn("after logout", found, format!("loginctl enable-linger {user}"))
}

fn ranges(uid: u32, name: Option<&str>, shown: &str) -> Finding {
    let has = |path: &str| {
        read(path).lines().any(|line| {
            let mut fields = line.split(':');
            let owner = fields.next().unwrap_or("");
            (Some(owner) == name || owner.parse() == Ok(uid)) && fields.nth(1).and_then(|count| count.trim().parse::<u32>().ok()) > Some(0)
        })
    };
    match (has("/etc/subuid"), has("/etc/subgid")) {
        (true, true) => Finding::ok("subordinate ids", "of users and groups"),
        _ => {
            let found = "there are none: everything in containers belongs to one user, and images with other owners lose them";
            let fix = format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shown}");
            Finding::warn("subordinate ids", found, fix)
        }
    }
}

fn helpers() -> Finding {
    let fix = "apt-get install uidmap";
    for name in ["newuidmap", "newgidmap"] {
        let Some(path) = program(name) else {
            return Finding::warn("newuidmap, newgidmap", format!("`{name}` is not installed, so subordinate ids cannot be used"), fix);
        };
        let privileged = std::fs::metadata(&path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o4000 != 0);
        let capable = rustix::fs::getxattr(&path, "security.capability", &mut [0u8; 64]).is_ok();
        if !privileged && !capable {
            let found = format!("`{}` has neither the set-user-ID bit nor the capability", path.display());
            return Finding::warn("newuidmap, newgidmap", found, format!("chmod u+s {}", path.display()));
        }
    }
    Finding::ok("newuidmap, newgidmap", "installed and privileged")
}

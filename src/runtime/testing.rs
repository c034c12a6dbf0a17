//! A spawner for tests that run in one binary with threads.
//!
//! The test harness has threads before any test runs, so the spawner is started before `main`: the loader calls what is listed in `.init_array`.

#![expect(unsafe_code, reason = "a static in `.init_array` has no safe form; only tests have it")]

use std::sync::OnceLock;

use super::Spawner;

static SPAWNER: OnceLock<Spawner> = OnceLock::new();
static VICTIM: OnceLock<Spawner> = OnceLock::new();

// SAFETY: the section holds pointers to functions of this signature (System V ABI, "Initialization and Termination Functions"); the C library is ready by then,
// and the function uses nothing of Rust's runtime that `main` would set up.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Set for a run of this binary that gives up root first.
pub(super) const ROOTLESS: &str = "STRAKE_TEST_ROOTLESS";

extern "C" fn start() {
    if std::env::var_os(ROOTLESS).is_some() {
        become_nobody();
        if let Err(error) = super::enter_user_namespace() {
            eprintln!("skipped: {error}");
            crate::sys::process::exit_now(77);
        }
    }
    for place in [&SPAWNER, &VICTIM] {
        if let Ok(spawner) = Spawner::forked() {
            let _ = place.set(spawner);
        }
    }
}

/// The spawner, or `None` (after saying why) where sandboxes cannot be tested.
pub(crate) fn spawner() -> Option<&'static Spawner> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: sandboxes of this test need root");
        return None;
    }
    Some(SPAWNER.get().expect("the spawner was started before main"))
}

/// Whether a spawner could be started.
pub(super) fn is_started() -> bool {
    SPAWNER.get().is_some()
}

/// Another spawner, for the one test that kills it.
pub(super) fn victim() -> &'static Spawner {
    VICTIM.get().expect("the spawner was started before main")
}

fn become_nobody() {
    let id = 65534;
    let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    // A change of user makes /proc/self unwritable until the next exec.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}

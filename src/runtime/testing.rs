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

extern "C" fn start() {
    for place in [&SPAWNER, &VICTIM] {
        if let Ok(spawner) = Spawner::start() {
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

/// Another spawner, for the one test that kills it.
pub(super) fn victim() -> &'static Spawner {
    VICTIM.get().expect("the spawner was started before main")
}

//! End-to-end tests: the real binary, on real kernels, registries and peers, with everything it touches in a directory of its own.
//!
//! One module per topic. Each test states a claim and checks it from outside: by reading archives itself, by asking another tool, by talking to what runs. What a
//! test needs and this machine lacks is told when the test skips itself; with `STRAKE_TESTS_REQUIRE=1` that is a failure. `tests/setup.sh` prepares the bases.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod apparmor;
mod build;
mod build_context;
mod cache;
mod cache_keys;
mod cache_transfer;
mod call;
mod check;
mod command_line;
mod common;
mod containers;
mod context_ls;
mod copy;
mod crash;
mod credentials;
mod crowd;
mod devices;
mod docker_compat;
mod doctor;
mod edit;
mod endings;
mod escapes;
mod events;
mod exec;
mod failures;
mod faults;
mod firewalls;
mod hard_places;
mod hostile;
mod images;
mod index;
mod interop;
mod isolation;
mod kill;
mod lifecycle;
mod locked_down;
mod network_options;
mod networks;
mod oci_config;
mod oci_podman;
mod oci_runtime;
mod on_error;
mod output_keys;
mod outputs;
mod parse;
mod peers;
mod places;
mod platforms;
mod progress;
mod registries_conf;
mod registry;
mod registry_refusals;
mod remote;
mod remote_contexts;
mod reproducible;
mod rootfs_fallback;
mod rootless_files;
mod rootless_networks;
mod run_limits;
mod run_semantics;
mod runtimes;
mod sandbox;
mod seccomp;
mod secrets;
mod sharing;
mod space;
mod ssh;
mod terminals;
mod tls;
mod users;
mod validate;

//! `strake version` and `strake info`: what scripts that were written for Docker ask first.
//!
//! There is no daemon, so the client's version is the server's too, and `info` fails only where the store cannot be used.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::format::{Format, format, given};
use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{Information, RootDriver};
use crate::oci::Platform;
use crate::runtime::apparmor;
use crate::task::blocking;

use super::{exit, with_engine};

// Flags of `strake version`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VersionArgs {
    /// `json`, or a template such as `{{.Client.Version}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
}

// Flags of `strake info`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InfoArgs {
    /// `json`, or a template such as `{{.Driver}} {{.DockerRootDir}}`
    #[arg(short, long, value_parser = format)]
    format: Option<Format>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs `strake version`.
pub(in crate::cli) fn version(args: &VersionArgs) -> ExitCode {
    let (platform, kernel) = (Platform::host(), kernel());
    let Some(format) = given(&args.format) else {
        report::result(&format!("Version:   {VERSION}\nOS/Arch:   {}/{}\nKernel:    {kernel}", platform.os, platform.architecture));
        return ExitCode::SUCCESS;
    };
    let one = json!({ "Version": VERSION, "Os": platform.os, "Arch": platform.architecture, "KernelVersion": kernel });
    exit(format.render(&json!({ "Client": one, "Server": one })).map(|text| report::result(&text)))
}

/// Runs `strake info`.
pub(in crate::cli) fn info(global: &Global, args: InfoArgs) -> ExitCode {
    let rootless = global.rootless;
    exit(with_engine(global, None, |engine| async move {
        let found = blocking(move || engine.information()).await?;
        let fields = fields(&found, rootless);
        match given(&args.format) {
            Some(format) => report::result(&format.render(&fields)?),
            None => report::result(&lines(&found, &fields)),
        }
        Ok(())
    }))
}

/// Under the names that `docker info --format json` has.
fn fields(found: &Information, rootless: bool) -> Value {
    let Information { containers, running, paused, images, driver, root, platform, cgroup_version, operating_system, processors, memory } =
        found;
    let mut security: Vec<&str> = apparmor::is_enabled().then_some("name=apparmor").into_iter().collect();
    security.push("name=seccomp,profile=builtin");
    security.extend(rootless.then_some("name=rootless"));
    json!({
        "Containers": containers,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers - running - paused,
        "Images": images,
        "Driver": match driver {
            RootDriver::Overlay => "overlay2",
            RootDriver::Fuse { .. } => "fuse-overlayfs",
            RootDriver::Copy { .. } => "vfs",
        },
        "DockerRootDir": root,
        "ServerVersion": VERSION,
        "DefaultRuntime": "strake",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": cgroup_version.to_string(),
        "SecurityOptions": security,
        "KernelVersion": kernel(),
        "OperatingSystem": operating_system,
        "OSType": platform.os,
        "Architecture": rustix::system::uname().machine().to_string_lossy(),
        "NCPU": processors,
        "MemTotal": memory,
        "Name": rustix::system::uname().nodename().to_string_lossy(),
    })
}

fn lines(found: &Information, fields: &Value) -> String {
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    let shown = [
        ("Version", VERSION.to_owned()),
        ("Store", found.root.display().to_string()),
        ("Root file systems", if text("Driver") == "vfs" { "copied".to_owned() } else { "overlays".to_owned() }),
        ("Containers", format!("{}, {} of them running, {} paused", found.containers, found.running, found.paused)),
        ("Images", found.images.to_string()),
        ("Control groups", format!("version {}", found.cgroup_version)),
        ("Kernel", text("KernelVersion")),
        ("System", text("OperatingSystem")),
        ("OS/Arch", format!("{}/{}", found.platform.os, found.platform.architecture)),
        ("Processors", found.processors.to_string()),
        ("Memory", size(found.memory)),
        ("Name", text("Name")),
    ];
    let lines = shown.iter().map(|(name, value)| format!("{:20}{value}", format!("{name}:")));
    lines.chain(["`strake doctor` says what is missing".to_owned()]).collect::<Vec<_>>().join("\n")
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

//! Bundles for `strake oci`.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Done, Run, World, able, bases, groups};

/// A bundle with busybox as its root, and a runtime's root of its own.
pub(crate) struct Bundle {
    pub(crate) world: World,
    pub(crate) config: Value,
}

/// The bundle with that command.
#[track_caller]
pub(crate) fn bundle(command: &str) -> Option<Bundle> {
    if !able(&["docker-registry"]) {
        return None;
    }
    let world = World::new();
    let dir = world.path("bundle");
    std::fs::create_dir_all(dir.join("rootfs")).unwrap();
    Run::new("tar", ["-C".as_ref(), dir.join("rootfs").as_os_str(), "-xf".as_ref(), bases().join("busybox.tar").as_os_str()]).ok();
    world.strake(["oci", "spec", "--bundle", "bundle"]).ok();
    let mut config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", command]);
    Some(Bundle { world, config })
}

impl Bundle {
    pub(crate) fn dir(&self) -> PathBuf {
        self.world.path("bundle")
    }

    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.dir().join("rootfs").join(name)
    }

    pub(crate) fn save(&self) -> &Bundle {
        std::fs::write(self.dir().join("config.json"), self.config.to_string()).unwrap();
        self
    }

    pub(crate) fn oci(&self, args: &[&str]) -> Run {
        let root = self.world.path("oci");
        self.world.strake(["oci", "--root", root.to_str().unwrap()]).arg_all(args)
    }

    /// What the container's process wrote.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.world.path("output")).unwrap_or_default()
    }

    /// Makes the container `id`. Its streams go to files, as pipes would be open as long as it lives.
    #[track_caller]
    pub(crate) fn create(&self, id: &str, flags: &[&str]) -> Done {
        self.save();
        let output = std::fs::File::options().create(true).append(true).open(self.world.path("output")).unwrap();
        let log = self.world.path("log.json");
        let _ = std::fs::remove_file(&log);
        let root = self.world.path("oci");
        let global =
            ["oci", "--root", root.to_str().unwrap(), "--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle"];
        let mut run = self.world.strake(global).arg(self.dir()).arg_all(flags).arg(id);
        let command = run.command();
        let status = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let messages: Vec<String> =
            said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["msg"].as_str().unwrap().to_owned()).collect();
        Done::of("create", status.code().unwrap(), messages.join("\n"))
    }

    #[track_caller]
    pub(crate) fn created(&self, id: &str) {
        let done = self.create(id, &[]);
        assert_eq!(done.code, 0, "{done}\n{}", self.output());
    }

    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.oci(&["state", id]).ok().stdout).unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// Runs the command to its end, and gives what it wrote.
    #[track_caller]
    pub(crate) fn runs(&self) -> String {
        self.save();
        // Tests go on at the same time, and containers of one ID would share their control groups.
        let id = format!("c{}", std::process::id());
        let done = self.oci(&["run", "--bundle", self.dir().to_str().unwrap(), &id]).run();
        assert_eq!(done.code, 0, "{done}");
        done.stdout
    }

    /// Nothing is left of the container.
    #[track_caller]
    pub(crate) fn is_gone(&self, id: &str) {
        self.oci(&["state", id]).fails().says(&["does not exist"]);
        assert!(!self.world.path("oci").join(id).exists());
        assert_eq!(groups(id), Vec::<PathBuf>::new());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ids = self.oci(&["list", "-q"]).run().stdout;
        for id in ids.split_whitespace() {
            self.oci(&["delete", "--force", id]).run();
        }
        // What a `cgroupsPath` is below stays when its container goes.
        for group in groups(&format!("strake-test-{}", std::process::id())) {
            let _ = std::fs::remove_dir(group);
        }
    }
}

pub(crate) fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

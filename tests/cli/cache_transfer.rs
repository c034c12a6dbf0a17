//! Caches that go from one machine to another: each machine is a store of its own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::image::hex;
use crate::common::{Done, Image, Registry, Run, World, able, remove_store};

/// Two machines with one context, and a registry that both know.
struct Machines {
    world: World,
    registry: Registry,
}

fn machines() -> Option<Machines> {
    able(&["docker-registry"]).then(|| {
        let machines = Machines { world: World::new(), registry: Registry::with_bases() };
        machines.world.write("tool.c", "tool").write("app.c", "app").write("page", "page");
        let base = machines.registry.name("busybox:latest");
        machines.world.write(
            "Dockerfile",
            format!(
                "FROM {base} AS tools\nCOPY tool.c /tool.c\nRUN cat /tool.c > /tool; head -c 16 /dev/urandom > /tool.stamp\nCOPY app.c /app.c\nRUN cat /app.c > /app; head -c 16 /dev/urandom > /app.stamp\n\
                 FROM {base}\nCOPY --from=tools /app /app\nRUN head -c 16 /dev/urandom > /stamp\nCOPY --link page /page\n"
            ),
        );
        machines
    })
}

impl Machines {
    /// A build on the machine `name`.
    fn build(&self, name: &str, args: &[&str]) -> Run {
        self.world.build_as_it_is(args).env("STRAKE_ROOT", self.world.path(name))
    }

    fn directory(&self) -> PathBuf {
        self.world.path("cache")
    }

    fn to(&self, more: &str) -> String {
        format!("--cache-to=type=local,dest={}{more}", self.directory().display())
    }

    fn from(&self) -> String {
        format!("--cache-from=type=local,src={}", self.directory().display())
    }
}

/// The steps that ran, without what brings caches about.
fn ran(done: &Done) -> Vec<String> {
    let is_step = |title: &str| {
        !["[internal]", "[cache ", "exporting ", "push ", "pull "].iter().any(|start| title.starts_with(start)) && !title.contains("FROM ")
    };
    done.steps().into_iter().filter(|(title, outcome)| outcome == "DONE" && is_step(title)).map(|(title, _)| title).collect()
}

#[track_caller]
fn ran_nothing(done: &Done) {
    assert!(ran(done).is_empty(), "{done}");
    done.omits(&["warning:"]);
}

#[test]
fn a_cache_in_a_directory_serves_another_machine() {
    let Some(machines) = machines() else { return };
    let first = machines.build("a", &[&machines.to(",mode=max")]).ok();
    let second = machines.build("b", &[&machines.from()]).ok();
    ran_nothing(&second);
    assert_eq!(first.image_id(), second.image_id());
    // Layers of stages that nobody reads are not fetched.
    assert_eq!(second.stderr.matches("[cache ").count(), 3, "{second}");
    // The cache is of no more use once the machine knows the steps itself.
    std::fs::remove_dir_all(machines.directory()).unwrap();
    ran_nothing(&machines.build("b", &[]).ok());
}

#[test]
fn a_changed_file_runs_what_reads_it_on_the_other_machine_and_is_named() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[&machines.to(",mode=max")]).ok();
    machines.world.write("app.c", "new");
    let output = format!("type=oci,dest={}", machines.world.path("b.tar").display());
    let done = machines.build("b", &[&machines.from(), "-o", &output]).ok();
    let ran = ran(&done);
    let expected = ["COPY app.c", "RUN cat /app.c", "COPY --from=tools", "RUN head"];
    assert_eq!(ran.len(), expected.len(), "{done}");
    assert!(expected.iter().all(|step| ran.iter().any(|title| title.contains(step))), "{done}");
    done.says(&["why: app.c changed"]);
    assert_eq!(Image::oci_archive(&machines.world.path("b.tar")).tree()["app"].content, b"new");
}

#[test]
fn a_step_of_the_result_hits_by_content_where_the_stage_ran_again() {
    let Some(machines) = machines() else { return };
    let first = machines.build("a", &[&machines.to("")]).ok();
    // Another tool, which the result does not contain: its stage runs, and gives the same `/app`.
    machines.world.write("tool.c", "other");
    let done = machines.build("b", &[&machines.from()]).ok();
    let ran = ran(&done);
    assert!(ran.len() == 4 && ran.iter().all(|title| title.starts_with("[tools")), "{done}");
    assert_eq!(first.image_id(), done.image_id(), "{done}");
}

#[test]
fn a_minimal_cache_has_no_layers_of_stages_and_a_maximal_one_has() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[&machines.to(",mode=min"), &machines.to(",mode=max,tag=all")]).ok();
    ran_nothing(&machines.build("b", &[&machines.from()]).ok());
    machines.world.write("app.c", "new");
    let minimal = machines.build("c", &[&machines.from()]).ok();
    assert_eq!(minimal.step("RUN cat /tool.c"), "DONE");
    let maximal = machines.build("d", &[&format!("{},tag=all", machines.from())]).ok();
    assert_eq!(maximal.step("RUN cat /tool.c"), "CACHED");
}

#[test]
fn a_tag_that_is_not_there_is_no_other_cache() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[&machines.to(",tag=kept")]).ok();
    let done = machines.build("b", &[&format!("{},tag=none", machines.from())]).ok();
    done.says(&["has no image with the tag `none`"]);
    assert!(!ran(&done).is_empty(), "{done}");
    ran_nothing(&machines.build("c", &[&format!("{},tag=kept", machines.from())]).ok());
}

#[test]
fn a_cache_in_a_registry_serves_another_machine() {
    let Some(machines) = machines() else { return };
    let name = machines.registry.name("app:cache");
    let to = format!("--cache-to=type=registry,ref={name},mode=max,compression=zstd");
    let first = machines.build("a", &[&to]).ok();
    let second = machines.build("b", &["--cache-from", &name]).ok();
    ran_nothing(&second);
    assert_eq!(first.image_id(), second.image_id());
    // From and to at once, with nothing here but the cache.
    let from = format!("--cache-from=type=registry,ref={name}");
    ran_nothing(&machines.build("c", &[&from, &to]).ok());
    ran_nothing(&machines.build("d", &[&from]).ok());
    let manifest = Run::new("skopeo", ["inspect", "--raw", "--tls-verify=false", &machines.registry.url("app:cache")]).ok().stdout;
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.strake.cache.v1");
    assert!(
        manifest["layers"].as_array().unwrap().iter().all(|layer| layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"),
        "{manifest}"
    );
}

#[test]
fn an_image_can_carry_its_cache() {
    let Some(machines) = machines() else { return };
    let dockerfile = std::fs::read(machines.world.context().join("Dockerfile")).unwrap();
    for (at, args) in [&["--cache-to=type=inline"][..], &["--build-arg", "BUILDKIT_INLINE_CACHE=1"]].into_iter().enumerate() {
        let name = machines.registry.name(&format!("carries{at}:latest"));
        let (here, there) = (format!("a{at}"), format!("b{at}"));
        let first = machines.build(&here, &[args, &["--push", "-t", &name]].concat()).ok();
        let from = ["--cache-from", &name];
        ran_nothing(&machines.build(&there, &from).ok());
        let again = machines.build(&there, &[&from[..], args, &["-t", &name]].concat()).ok();
        assert_eq!(first.image_id(), again.image_id(), "{again}");
        // An image that is made from this one does not pass the cache on as its own.
        let text = format!("FROM {name}\nLABEL a=b\n");
        let image = machines.world.image(&text, &[]);
        assert!(image.config.get("strake.cache.v1").is_none());
        machines.world.write("Dockerfile", &dockerfile);
    }
}

/// The blob of a descriptor in a layout.
fn blob(dir: &Path, descriptor: &Value) -> PathBuf {
    dir.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

fn put(dir: &Path, descriptor: &mut Value, bytes: &[u8]) {
    descriptor["digest"] = format!("sha256:{}", hex(&Sha256::digest(bytes))).into();
    descriptor["size"] = bytes.len().into();
    std::fs::write(blob(dir, descriptor), bytes).unwrap();
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Changes manifest and config of the cache in `dir`, digests included.
fn forge(dir: &Path, change: impl FnOnce(&Path, &mut Value, &mut Value)) {
    let mut index = read(dir.join("index.json"));
    let mut manifest = read(blob(dir, &index["manifests"][0]));
    let mut config = read(blob(dir, &manifest["config"]));
    change(dir, &mut manifest, &mut config);
    if !config.is_null() {
        put(dir, &mut manifest["config"], config.to_string().as_bytes());
    }
    put(dir, &mut index["manifests"][0], manifest.to_string().as_bytes());
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A tar with one entry.
fn tar_with(name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_damaged_or_hostile_cache_is_a_warning_and_the_steps_run() {
    let Some(machines) = machines() else { return };
    machines.world.write("Dockerfile", "FROM scratch\nCOPY app.c /app\nCOPY page /page\n");
    machines.build("a", &[&machines.to(",mode=max")]).ok();
    let whole = machines.world.path("whole");
    std::fs::rename(machines.directory(), &whole).unwrap();
    let dir = machines.directory();
    type Damage = (&'static str, fn(&Path));
    let damages: &[Damage] = &[
        ("no such directory", |dir| std::fs::remove_dir_all(dir).unwrap()),
        ("no index", |dir| std::fs::remove_file(dir.join("index.json")).unwrap()),
        ("an index of garbage", |dir| std::fs::write(dir.join("index.json"), "{").unwrap()),
        ("layers cut short", |dir| {
            forge(dir, |dir, manifest, _| {
                for layer in manifest["layers"].as_array().unwrap() {
                    std::fs::File::options().write(true).open(blob(dir, layer)).unwrap().set_len(40).unwrap();
                }
            });
        }),
        ("layers gone", |dir| {
            forge(dir, |dir, manifest, _| {
                manifest["layers"].as_array().unwrap().iter().for_each(|layer| std::fs::remove_file(blob(dir, layer)).unwrap())
            });
        }),
        ("layers of other content", |dir| {
            forge(dir, |dir, manifest, _| {
                let bytes = tar_with(b"evil", b"evil");
                manifest["layers"].as_array_mut().unwrap().iter_mut().for_each(|layer| put(dir, layer, &bytes));
            });
        }),
        ("layers that delete what cannot be there", |dir| {
            forge(dir, |dir, manifest, config| {
                let bytes = tar_with(b".wh...", b"");
                for layer in manifest["layers"].as_array_mut().unwrap() {
                    put(dir, layer, &bytes);
                    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
                }
                let diff_id = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
                config["layers"].as_array_mut().unwrap().iter_mut().for_each(|layer| *layer = diff_id.clone().into());
            });
        }),
        ("layers of no layer's type", |dir| {
            forge(dir, |_, manifest, _| {
                manifest["layers"].as_array_mut().unwrap().iter_mut().for_each(|layer| layer["mediaType"] = "text/plain".into())
            });
        }),
        ("records of layers that there are not", |dir| {
            forge(dir, |_, _, config| config["records"].as_array_mut().unwrap().iter_mut().for_each(|record| record["layer"] = 99.into()));
        }),
        ("a layer less", |dir| forge(dir, |_, manifest, _| drop(manifest["layers"].as_array_mut().unwrap().pop()))),
        ("keys of another version", |dir| forge(dir, |_, _, config| config["keyVersion"] = 9_999.into())),
        ("another version", |dir| forge(dir, |_, _, config| config["version"] = 9_999.into())),
        ("keys that are none", |dir| {
            forge(dir, |_, _, config| {
                config["records"].as_array_mut().unwrap().iter_mut().for_each(|record| record["keys"] = json!(["x"]))
            });
        }),
        ("a huge config", |dir| {
            forge(dir, |dir, manifest, config| {
                let bytes = [config.to_string().into_bytes(), vec![b' '; 50 << 20]].concat();
                put(dir, &mut manifest["config"], &bytes);
                *config = Value::Null;
            });
        }),
        ("sixty thousand records", |dir| {
            forge(dir, |_, _, config| config["records"] = vec![json!({ "keys": [], "result": "0".repeat(64) }); 60_000].into());
        }),
        ("a config that lies about its size", |dir| {
            forge(dir, |dir, manifest, config| {
                put(dir, &mut manifest["config"], config.to_string().as_bytes());
                manifest["config"]["size"] = 7.into();
                *config = Value::Null;
            });
        }),
        ("another artifact", |dir| {
            forge(dir, |_, manifest, _| manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into())
        }),
        ("a cache of BuildKit", |dir| {
            forge(dir, |_, manifest, _| manifest["config"]["mediaType"] = "application/vnd.buildkit.cacheconfig.v0".into())
        }),
    ];
    for (at, (what, damage)) in damages.iter().enumerate() {
        let _ = std::fs::remove_dir_all(&dir);
        Run::new("cp", ["-a".as_ref(), whole.as_os_str(), dir.as_os_str()]).ok();
        damage(&dir);
        let archive = machines.world.path("damaged.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let store = format!("damaged{at}");
        let done = machines.build(&store, &[&machines.from(), "-o", &output]).ok();
        assert_eq!(done.stderr.matches("warning: the cache").count(), 1, "{what}: {done}");
        done.says(&[&format!("warning: the cache `{}", dir.display())]);
        assert_eq!(ran(&done).len(), 2, "{what}: {done}");
        let tree = Image::oci_archive(&archive).tree();
        assert_eq!(tree["app"].content, b"app", "{what}");
        assert!(!tree.contains_key("evil") && !machines.world.path("evil").exists(), "{what}");
        remove_store(&machines.world.path(&store));
    }
}

#[test]
fn what_is_damaged_of_a_cache_does_not_spoil_the_rest() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[&machines.to(",mode=max")]).ok();
    forge(&machines.directory(), |dir, manifest, config| {
        let record = config["records"]
            .as_array()
            .unwrap()
            .iter()
            .find(|record| record["step"]["text"].as_str().unwrap().contains("--link"))
            .unwrap();
        let layer = &manifest["layers"][usize::try_from(record["layer"].as_u64().unwrap()).unwrap()];
        std::fs::write(blob(dir, layer), "no layer").unwrap();
    });
    let done = machines.build("b", &[&machines.from()]).ok();
    assert_eq!(ran(&done), ["[stage-1 4/4] COPY --link page /page"], "{done}");
    done.says(&["in the cache `"]);
}

#[test]
fn a_registry_that_is_not_there_delays_no_build_for_long() {
    let Some(machines) = machines() else { return };
    let done =
        machines.build("a", &["--cache-from", "127.0.0.1:1/nothing:here", "--cache-from", &machines.registry.name("no/such:cache")]).ok();
    assert_eq!(done.stderr.matches("warning: the cache").count(), 2, "{done}");
    done.says(&["`127.0.0.1:1/nothing:here`", "no/such:cache`"]);
    assert!(done.elapsed.as_secs() < 20, "{done}");
    let image = done.image_id();
    let base = machines.registry.name("busybox:latest");
    let plain = machines.build("a", &["--cache-from", &base]).ok();
    plain.says(&["it is an image without a cache in it"]);
    assert_eq!(plain.image_id(), image);
}

#[test]
fn a_cache_that_cannot_be_written_fails_the_build_unless_that_does_not_matter() {
    let Some(machines) = machines() else { return };
    std::fs::write(machines.directory(), "a file").unwrap();
    machines.build("a", &[&machines.to("")]).fails().says(&["cannot export the cache to"]);
    machines.build("a", &[&machines.to(",ignore-error=true")]).ok().says(&["warning: the cache is not exported"]);
    machines.build("a", &["--cache-to=type=registry,ref=127.0.0.1:1/nothing:here"]).fails().says(&["127.0.0.1:1/nothing:here"]);
}

#[test]
fn builds_at_once_share_a_directory() {
    let Some(machines) = machines() else { return };
    let args = [machines.from(), machines.to(",mode=max,reset=true")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let builds: Vec<_> = ["a", "b", "c"].map(|name| scope.spawn(|| machines.build(name, &args).ok())).into();
            builds.into_iter().for_each(|build| drop(build.join().unwrap()));
        });
    }
    let done = machines.build("d", &[&machines.from()]).ok();
    ran_nothing(&done);
    let left = std::fs::read_dir(machines.directory().join("blobs/sha256")).unwrap().count();
    assert!(left <= 10, "{left} blobs: what is of no use goes");
}

#[test]
fn what_has_a_blob_is_not_compressed_again() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[&machines.to(",compression=zstd")]).ok();
    let kinds = |tag: &str| -> Vec<String> {
        let index = read(machines.directory().join("index.json"));
        let entry =
            index["manifests"].as_array().unwrap().iter().find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == tag);
        let manifest = read(blob(&machines.directory(), entry.unwrap()));
        manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["mediaType"].as_str().unwrap().rsplit(['+', '.']).next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds("latest"), ["zstd"; 3]);
    machines.build("a", &[&machines.to(",tag=kept,compression=gzip")]).ok();
    assert_eq!(kinds("kept"), ["zstd"; 3]);
    machines.build("a", &[&machines.to(",tag=forced,compression=gzip,force-compression=true")]).ok();
    assert_eq!(kinds("forced"), ["gzip"; 3]);
}

#[test]
fn a_build_without_cache_makes_one_that_others_can_use() {
    let Some(machines) = machines() else { return };
    machines.build("a", &[]).ok();
    let first = machines.build("a", &["--no-cache", &machines.to(",mode=max")]).ok();
    let second = machines.build("b", &[&machines.from()]).ok();
    ran_nothing(&second);
    assert_eq!(first.image_id(), second.image_id());
    let third = machines.build("b", &["--no-cache", &machines.from()]).ok();
    assert_eq!(ran(&third).len(), 7, "{third}");
}

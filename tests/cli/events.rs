//! What `events` tells of containers, images and volumes, as Docker does.

use serde_json::Value;

use crate::common::{World, wait_for, world};
use crate::docker_compat::shown;

/// What happened so far, as `KIND ACTION NAME` by line.
#[track_caller]
pub(crate) fn events(world: &World, flags: &[&str]) -> Vec<String> {
    let all = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"];
    let said = world.strake(all.iter().chain(flags)).ok().stdout;
    said.lines().map(str::to_owned).collect()
}

#[test]
fn what_happens_to_images_is_told() {
    let Some(world) = world() else { return };
    let id = world.strake(["inspect", "-f", "{{.Id}}", "localhost/busybox"]).ok().stdout.trim().to_owned();
    let archive = world.path("i.tar");
    let archive = archive.to_str().unwrap();
    world.strake(["tag", "localhost/busybox", "localhost/two:x"]).ok();
    world.strake(["save", "-o", archive, "localhost/two:x"]).ok();
    world.strake(["rmi", "localhost/two:x"]).ok();
    world.strake(["load", "-i", archive]).ok();
    let tar = crate::common::bases().join("busybox.tar");
    world.strake(["import", "-c", "LABEL kind=imported", tar.to_str().unwrap(), "localhost/imp:1"]).ok();
    let imported = world.strake(["inspect", "-f", "{{.Id}}", "localhost/imp:1"]).ok().stdout.trim().to_owned();
    world.strake(["rmi", "localhost/imp:1"]).ok();
    let told = events(&world, &["--filter", "type=image"]);
    let of = |action: &str, name: &str| format!("image {action} {name}");
    let expected = [
        of("tag", "localhost/busybox:latest"),
        of("tag", "localhost/two:x"),
        of("save", &id),
        of("untag", &id),
        of("load", &id),
        of("tag", "localhost/imp:1"),
        of("import", &imported),
        of("untag", &imported),
        of("delete", &imported),
    ];
    assert_eq!(told, expected);
    assert_eq!(events(&world, &["--filter", "image=localhost/two"]), [of("tag", "localhost/two:x")]);
    assert_eq!(events(&world, &["--filter", "type=image", "--filter", "label=kind=imported"]).len(), 4);
    assert_eq!(events(&world, &["--filter", "scope=local", "--filter", "type=image"]).len(), 9);
    assert!(events(&world, &["--filter", "scope=swarm"]).is_empty());
    let json = world.strake(["events", "--since", "1h", "--until", "0s", "--filter", "event=save", "--format", "json"]).ok().stdout;
    let value: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&value["status"], &value["id"], &value["Actor"]["ID"]), (&"save".into(), &id.as_str().into(), &id.as_str().into()));
    world.strake(["image", "prune", "-af"]).ok();
    let told = events(&world, &["--filter", "type=image"]);
    assert_eq!(told[9..], [of("untag", &id), of("untag", &id), of("delete", &id), of("prune", "<no value>")]);
}

#[test]
fn what_is_done_to_a_container_and_what_is_pruned_is_told_as_docker_does() {
    let Some(world) = world() else { return };
    let file = world.path("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    world.strake(["run", "-d", "--name", "c", "--network", "none", "localhost/busybox", "sleep", "1000"]).ok();
    world.strake(["cp", file, "c:/tmp/"]).ok();
    world.strake(["cp", "c:/tmp/file", file]).ok();
    world.strake(["cp", "c:/tmp/file", "-"]).ok();
    world.strake(["top", "c"]).ok();
    world.strake(["commit", "-m", "why not", "c", "localhost/made:1"]).ok();
    world.strake(["rename", "c", "d"]).ok();
    world.strake(["rm", "-f", "d"]).ok();
    let of = |action: &str, attributes: &str| {
        let format = format!("{{{{.Action}}}}{attributes}");
        let filter = format!("event={action}");
        let args = ["events", "--until", "0s", "--filter", "type=container", "--filter", &filter, "--format", &format];
        world.strake(args).ok().stdout
    };
    let attribute = |name: &str| format!(" {{{{index .Actor.Attributes \"{name}\"}}}}");
    assert_eq!(of("extract-to-dir", &attribute("name")), "extract-to-dir c\n");
    assert_eq!(of("archive-path", &attribute("name")), "archive-path c\narchive-path c\n");
    assert_eq!(of("top", ""), "top\n");
    assert_eq!(of("commit", &(attribute("comment") + &attribute("imageRef"))), "commit why not localhost/made:1\n");
    assert_eq!(of("rename", &attribute("oldName")), "rename /c\n");
    assert_eq!(of("die", &attribute("exitCode")), "die 137\n");
    assert!(of("die", &attribute("execDuration"))[4..].trim().parse::<u32>().is_ok_and(|seconds| seconds < 600));
    for kind in ["container", "volume", "network", "image", "system"] {
        world.strake([kind, "prune", "-f", "--filter", "label=nobody-has-this"]).ok();
    }
    world.strake(["builder", "prune", "-f"]).ok();
    let format = "{{.Type}} {{.Actor.Attributes.reclaimed}} {{.ID}}";
    let pruned = world.strake(["events", "--until", "0s", "--filter", "event=prune", "--format", format]).ok().stdout;
    let expected = "container 0 \nvolume 0 \nnetwork 0 \nimage 0 \ncontainer 0 \nnetwork 0 \nimage 0 \nbuilder 0 \n";
    assert_eq!(pruned, expected);
}

#[test]
fn events_are_found_by_times_and_filters_as_with_docker() {
    let Some(world) = world() else { return };
    world.strake(["run", "--name", "some-one", "--network", "none", "localhost/busybox", "true"]).ok();
    let count = |flags: &[&str]| world.strake(["events"].iter().chain(flags)).ok().stdout.lines().count();
    let all = count(&["--until", "0s"]);
    assert!(all >= 6, "{all}");
    assert_eq!(count(&["--since", "2020-01-01Z", "--until", "-1ms"]), all);
    assert_eq!(count(&["--since", "0", "--until", "1h"]), 0);
    world.strake(["events", "--since", "-1h", "--until", "0s"]).fails().says(&["--since", "is after", "--until"]);
    let filtered = |filter: &str| count(&["--until", "0s", "--filter", filter]);
    assert_eq!(filtered("container=some"), 4);
    assert_eq!(filtered("container=one"), 0);
    assert_eq!(filtered("network=no"), 2);
    assert_eq!((filtered("plugin=x"), filtered("service=x"), filtered("node=x")), (0, 0, 0));
    world.strake(["events", "--until", "0s", "--filter", "colour=red"]).fails().says(&["`colour`"]);
    let format = "{{.Status}} {{.From}} {{.Scope}} {{len .ID}} {{.Time}}";
    let told = world.strake(["events", "--until", "0s", "--filter", "event=start", "--format", format]).ok().stdout;
    assert!(told.starts_with("start localhost/busybox local 64 1"), "{told}");
    let json = world.strake(["events", "--until", "0s", "--filter", "event=start", "--format", "{{json .}}"]).ok().stdout;
    assert!(json.contains(r#""status":"start""#) && !json.contains("TimeNano"), "{json}");
}

#[test]
fn images_that_are_sent_and_fetched_are_told_by_their_names() {
    let Some(world) = world() else { return };
    let registry = crate::common::Registry::empty();
    let name = registry.name("app:1");
    world.strake(["tag", "localhost/busybox", &name]).ok();
    let plain = ["--plain-http", registry.host()];
    world.strake(["push"].iter().chain(&plain).chain(&[name.as_str()])).ok();
    world.strake(["pull"].iter().chain(&plain).chain(&[name.as_str()])).ok();
    let repository = name.strip_suffix(":1").unwrap();
    let told = events(&world, &["--filter", "event=push", "--filter", "event=pull"]);
    assert_eq!(told, [format!("image push {repository}"), format!("image pull {repository}")]);
    let ids = ["events", "--since", "1h", "--until", "0s", "--filter", "event=pull", "--format", "{{.Actor.ID}}"];
    assert_eq!(world.strake(ids).ok().stdout.trim(), name);
}

#[test]
fn volumes_of_containers_are_told_and_an_end_that_nobody_saw_is_put_on_record_once() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "--network", "none", "-v", "v:/v:ro", "localhost/busybox", "sleep", "1000"]).ok();
    let pid = shown(&world, "{{.State.Pid}}", "c");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the end", 20, || shown(&world, "{{.State.Status}}", "c") == "exited");
    let finished = shown(&world, "{{.State.FinishedAt}}", "c");
    let age = jiff::Timestamp::now().duration_since(finished.parse().unwrap());
    assert!(age.as_secs() < 60, "{finished}");
    world.strake(["ps", "-a"]).ok();
    assert_eq!(shown(&world, "{{.State.FinishedAt}} {{.State.ExitCode}}", "c"), format!("{finished} 137"));
    let told: Vec<String> = events(&world, &[]).into_iter().filter(|line| !line.starts_with("image")).collect();
    let expected = [
        "volume create <no value>",
        "container create c",
        "network connect none",
        "volume mount <no value>",
        "container start c",
        "network disconnect none",
        "volume unmount <no value>",
        "container die c",
    ];
    assert_eq!(told, expected);
    let place = "{{.Actor.ID}} {{index .Actor.Attributes \"destination\"}} {{index .Actor.Attributes \"read/write\"}}";
    let mounted = world.strake(["events", "--since", "1h", "--until", "0s", "--filter", "event=mount", "--format", place]).ok().stdout;
    assert_eq!(mounted, "v /v false\n");
    world.strake(["start", "c"]).ok();
    world.strake(["rm", "-f", "c"]).ok();
}

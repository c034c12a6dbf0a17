//! How words on the command line are read, where scripts written for Docker's count on it, and what a shell is told that completes them.

use crate::common::{Run, World, world};

const STRAKE: &str = env!("CARGO_BIN_EXE_strake");

#[test]
fn a_value_of_a_flag_may_begin_with_a_dash() {
    let Some(world) = world() else { return };
    let run = |args: &[&str]| world.strake(["run", "--network", "none"].iter().chain(args)).ok().stdout;
    assert!(run(&["--rm", "-e", "-X=1", "localhost/busybox", "env"]).lines().any(|line| line == "-X=1"));
    assert_eq!(run(&["--name", "c", "-h", "-x", "-l", "-team=a", "localhost/busybox", "hostname"]), "-x\n");
    assert_eq!(world.strake(["inspect", "-f", "{{index .Config.Labels \"-team\"}}", "c"]).ok().stdout, "a\n");
    assert_eq!(world.strake(["logs", "--since", "-1h", "c"]).ok().stdout, "");
    assert_eq!(world.strake(["logs", "-n", "-1", "c"]).ok().stdout, "-x\n");
    // What is missing is said as before.
    let refused = world.strake(["run", "-e"]).fails();
    assert!(refused.code == 125 && refused.stderr.contains("a value is required for '--env"), "{refused}");
    let refused = world.strake(["logs", "--tail", "-f"]).fails();
    assert!(refused.code == 1 && refused.stderr.contains("--tail"), "{refused}");
}

#[test]
fn a_flag_that_a_script_leaves_empty_is_not_given() {
    let Some(world) = world() else { return };
    let args = ["run", "--network", "none", "--name", "c", "--cidfile", "", "--hostname", "", "localhost/busybox", "hostname"];
    let host = world.strake(args).ok().stdout;
    let id = world.strake(["inspect", "-f", "{{.Id}}", "c"]).ok().stdout;
    assert_eq!(host.trim(), &id[..12]);
    let (usual, empty) = (world.strake(["inspect", "c"]).ok().stdout, world.strake(["inspect", "--format", "", "c"]).ok().stdout);
    assert_eq!(usual, empty);
    // Without the ages, which may have changed in between.
    let titles = |args: &[&str]| world.strake(args).ok().stdout.lines().next().map(str::to_owned);
    assert_eq!(titles(&["ps", "-a", "--format", ""]), titles(&["ps", "-a"]));
}

#[test]
fn a_group_of_commands_alone_says_what_there_is() {
    let world = World::new();
    for words in [&[][..], &["container"], &["image"], &["volume"], &["network"], &["system"]] {
        let alone = world.strake(words).ok();
        assert!(alone.stdout.contains("Commands:") && alone.stderr.is_empty(), "{alone}");
        assert_eq!(alone.stdout, world.strake(words.iter().chain(&["--help"])).ok().stdout);
    }
    world.strake(["container", "nonsense"]).fails();
}

/// What bash offers for a line whose last word is not finished.
#[track_caller]
fn offered(world: &World, line: &str) -> Vec<String> {
    let script = r#"
        mkdir -p bin && ln -sf "$1" bin/strake && PATH="$PWD/bin:$PATH"
        source <(strake completion bash) || exit 3
        complete -p strake > registered || exit 4
        [[ $(< registered) =~ -F\ ([^ ]+) ]] || exit 5
        COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9 COMP_WORDS=($2)
        [[ $2 == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        compopt() { :; }
        "${BASH_REMATCH[1]}" strake "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut run = Run::new("bash", ["-c", script, "bash", STRAKE, line]);
    run.command().env("STRAKE_ROOT", world.root()).env("HOME", world.path("home")).current_dir(world.path(""));
    run.ok().stdout.lines().map(|word| word.trim_end().to_owned()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn bash_completes_commands_flags_and_the_names_of_what_there_is() {
    let Some(world) = world() else { return };
    for name in ["web", "worker"] {
        world.strake(["create", "--network", "none", "--name", name, "-v", "kept:/kept", "localhost/busybox", "true"]).ok();
    }
    world.strake(["network", "create", "backend"]).ok();
    assert_eq!(offered(&world, "strake unpa"), ["unpause"]);
    assert_eq!(offered(&world, "strake container ren"), ["rename"]);
    assert!(offered(&world, "strake run --health-").contains(&"--health-cmd".to_owned()));
    assert_eq!(offered(&world, "strake ps --no-t"), ["--no-trunc"]);
    assert_eq!(offered(&world, "strake rm we"), ["web"]);
    assert_eq!(offered(&world, "strake rm web wo"), ["worker"]);
    assert_eq!(offered(&world, "strake container inspect wo"), ["worker"]);
    assert_eq!(offered(&world, "strake run --rm localhost/b"), ["localhost/busybox:latest"]);
    assert_eq!(offered(&world, "strake volume rm k"), ["kept"]);
    assert_eq!(offered(&world, "strake network rm back"), ["backend"]);
    assert_eq!(offered(&world, "strake run --network back"), ["backend"]);
    assert_eq!(offered(&world, "strake completion f"), ["fish"]);
    let elsewhere = world.path("elsewhere");
    assert!(offered(&world, &format!("strake --root {} rm we", elsewhere.display())).is_empty());
    assert!(!elsewhere.exists(), "asking made a store");
}

#[test]
fn other_shells_are_told_as_well() {
    let world = World::new();
    for (shell, word) in [("zsh", "compdef"), ("fish", "complete ")] {
        let told = world.strake(["completion", shell]).ok().stdout;
        assert!(told.contains(word) && told.contains("STRAKE_COMPLETE") && !told.contains(STRAKE), "{told}");
    }
    assert_eq!(world.strake(["completion", "tcsh"]).fails().code, 2);
}

use super::*;

const YAML: &str = r#"---
cdiVersion: "0.6.0"
kind: acme.example/widget
containerEdits:
  env: ["ALL=1"]
  additionalGids: [0, 44]
devices:
  - name: one
    annotations: {a.b/c: d}
    containerEdits:
      env:
        - "ONE=x y=z"
      deviceNodes:
        - path: /dev/widget
          hostPath: /dev/null
          permissions: r
        - {path: /dev/made, type: c, major: 1, minor: 5, fileMode: 384, uid: 7, gid: 8}
      mounts:
        - hostPath: /etc
          containerPath: /opt/etc
          options: [ro, nosuid, rbind]
  - name: "0"
    containerEdits:
      hooks:
        - hookName: createContainer
          path: /bin/true
          args: ["true", "x"]
"#;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn refused(text: &str, device: &str) -> String {
    let directory = directory(&[("a.json", text)]);
    let error = resolve_in(&[directory.path()], &names(&[device])).unwrap_err();
    format!("{error} {}", error.hint().unwrap_or_default())
}

#[test]
fn names_are_those_of_the_specification() {
    for name in ["vendor.com/class=name", "nvidia.com/gpu=0", "a/b=c:1", "v.x/c-d_e=GPU-8932f937-d72c"] {
        assert!(is_name(name), "{name}");
    }
    for text in ["/dev/fuse", "/dev/a=b", "vendor.com/class", "vendor.com/class=", "1v/c=n", "v/c=-n", "v/c.d=n", "v/c=a/b", "=x"] {
        assert!(!is_name(text), "{text}");
    }
}

#[test]
fn a_device_brings_what_is_of_all_and_what_is_its_own() {
    let directory = directory(&[("w.yaml", YAML), ("notes.txt", "x")]);
    let edits = resolve_in(&[directory.path()], &names(&["acme.example/widget=one", "acme.example/widget=0"])).unwrap();
    assert_eq!(edits.env, ["ALL=1", "ONE=x y=z"]);
    assert_eq!(edits.gids, [44]);
    assert_eq!(edits.devices[0].source, Path::new("/dev/null"));
    assert_eq!((edits.devices[0].access.to_string().as_str(), &edits.devices[0].node), ("r", &None));
    let made = DeviceNode { kind: NodeKind::Character, major: 1, minor: 5, mode: 0o600, owner: (7, 8) };
    assert_eq!(edits.devices[1].node, Some(made));
    let MountSpec::Bind { target, is_file, read_only, recursive, options, .. } = &edits.mounts[0] else { panic!("{:?}", edits.mounts) };
    assert_eq!((target.to_string().as_str(), is_file, read_only, recursive, options.nosuid), ("/opt/etc", &false, &true, &true, true));
    assert_eq!(edits.hooks.create_container[0].args, ["true", "x"]);
}

#[test]
fn the_later_directory_counts_and_two_files_in_one_contradict_each_other() {
    let json = |value: &str| {
        format!(r#"{{"cdiVersion":"0.5.0","kind":"a/b","devices":[{{"name":"c","containerEdits":{{"env":["WHO={value}"]}}}}]}}"#)
    };
    let (low, high) = (directory(&[("x.json", &json("low"))]), directory(&[("y.json", &json("high"))]));
    let edits = resolve_in(&[low.path(), high.path()], &names(&["a/b=c"])).unwrap();
    assert_eq!(edits.env, ["WHO=high"]);
    std::fs::write(high.path().join("z.json"), json("other")).unwrap();
    let error = resolve_in(&[low.path(), high.path()], &names(&["a/b=c"])).unwrap_err();
    assert!(matches!(error, Error::Ambiguous { .. }), "{error}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let with = |edits: &str| format!(r#"{{"cdiVersion":"0.6.0","kind":"a/b","devices":[{{"name":"c","containerEdits":{edits}}}]}}"#);
    for (text, expected) in [
        (with(r#"{"intelRdt":{"closID":"x"}}"#), "Intel RDT"),
        (with(r#"{"netDevices":[{"hostInterfaceName":"eth9","name":"x"}]}"#), "network devices"),
        (with(r#"{"env":["NOVALUE"]}"#), "NOVALUE"),
        (with(r#"{"deviceNodes":[{"path":"/dev/there-is-no-such-device"}]}"#), "there-is-no-such-device"),
        (with(r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null","permissions":"rq"}]}"#), "rq"),
        (with(r#"{"deviceNodes":[{"path":"/etc/x","hostPath":"/dev/null"}]}"#), "/etc/x"),
        (with(r#"{"mounts":[{"hostPath":"/etc","containerPath":"/x","options":["sideways"]}]}"#), "sideways"),
        (with(r#"{"hooks":[{"hookName":"sometimes","path":"/bin/true"}]}"#), "sometimes"),
        (with(r#"{"surprise":1}"#), "surprise"),
        (with("{}").replace("0.6.0", "9.0.0"), "9.0.0"),
        (with("{}").replace("\"c\"", "\"d\""), "there are: a/b=d"),
        ("{".to_owned(), "a.json"),
    ] {
        let said = refused(&text, "a/b=c");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

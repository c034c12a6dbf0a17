//! What templates say, beside what Go's `text/template` says with Docker's functions.

use serde_json::{Value, json};

use super::*;

fn container() -> Value {
    json!({
        "Id": "12ab", "Name": "/web", "Args": [], "Size": 7, "Ratio": 1.5,
        "State": { "Status": "running", "Running": true, "ExitCode": 0, "Health": null },
        "Config": { "Env": ["A=1", "B=two words"], "Labels": { "b": "2", "a.b/c": "dotted" }, "Cmd": ["sh", "-c"], "User": "" },
        "Mounts": [{ "Type": "bind", "Source": "/a", "RW": true }, { "Type": "volume", "Source": "/b", "RW": false }],
        "NetworkSettings": { "Networks": { "two": { "IPAddress": "10.0.0.2" }, "one": { "IPAddress": "10.0.0.1" } }, "Ports": { "80/tcp": [{ "HostPort": "8080" }] } }
    })
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(Template::parse(text).unwrap().render(&container()).unwrap(), expected, "{text}");
}

#[track_caller]
fn fails(text: &str, expected: &str) {
    let error = Template::parse(text).and_then(|template| template.render(&container()).map_err(|failure| failure.message)).unwrap_err();
    assert!(error.contains(expected), "{text}: {error}");
}

#[test]
fn fields_are_printed_as_go_does() {
    check("{{.Id}}", "12ab");
    check("{{ .Id }}:{{.Size}}\\t!\\n", "12ab:7\t!\n");
    check("{{.State.Running}} {{.Ratio}} {{.Config.Cmd}} {{.Args}} {{.State.Health}}", "true 1.5 [sh -c] [] <nil>");
    check("{{.Config.Labels}}", "map[a.b/c:dotted b:2]");
    check("{{json .Config.Env}}{{json .State.Health}}", r#"["A=1","B=two words"]null"#);
    check("{{$.Name}} {{(index .Mounts 0).Source}} {{.Config.Labels.b}} {{.Config.Labels.none}}", "/web /a 2 <no value>");
    check("{{/* nothing */}}a  {{- \" b \" -}}  c", "a b c");
    check("{{\"q\\\"\\t\"}}{{`raw\\n`}}{{true}}{{-3}}", "q\"\traw\\ntrue-3");
}

#[test]
fn structures_and_maps_are_told_apart() {
    // As dockerd's client prints the same.
    check("{{.NetworkSettings.Ports}}", "map[80/tcp:[{8080}]]");
    check("{{.Mounts}}", "[{bind  /a    true } {volume  /b    false }]");
    check("{{.State}} {{index .NetworkSettings.Ports \"80/tcp\"}}", "{running true 0 <nil>} [{8080}]");
    let other = json!({
        "Config": { "ExposedPorts": { "80/tcp": {} }, "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 90_000_000_000u64, "Retries": 3 } },
        "HostConfig": { "LogConfig": { "Type": "json-file", "Config": {} }, "Ulimits": [{ "Name": "nofile", "Hard": 2, "Soft": 1 }] },
        "NetworkSettings": { "Ports": { "80/tcp": null } }, "IPAM": { "Driver": "default", "Options": null, "Config": [{ "Subnet": "10.0.0.0/24" }] }
    });
    let shown = |text: &str| Template::parse(text).unwrap().render(&other).unwrap();
    assert_eq!(shown("{{.Config.ExposedPorts}} {{.Config.Healthcheck}}"), "map[80/tcp:{}] {[CMD-SHELL true] 1m30s 3}");
    assert_eq!(shown("{{.Config.Healthcheck.Interval}} {{json .Config.Healthcheck.Interval}}"), "1m30s 90000000000");
    assert_eq!(shown("{{.HostConfig.LogConfig}} {{.HostConfig.Ulimits}}"), "{json-file map[]} [nofile=1:2]");
    assert_eq!(shown("{{.NetworkSettings.Ports}} {{.IPAM}}"), "map[80/tcp:[]] {default map[] [{10.0.0.0/24   map[]}]}");
}

#[test]
fn what_is_nothing_is_printed_by_its_type() {
    // As the client of Docker 28 does with the structures of `docker inspect`.
    check("{{.State.Health}} {{.Config.Healthcheck}} {{.SizeRw}}", "<nil> <nil> <nil>");
    check("{{.Config.Entrypoint}} {{.Config.OnBuild}} {{.NetworkSettings.Ports.none}}", "[] [] <no value>");
    check("{{.Config.Volumes}} {{.Config.Labels.none}} <{{.Config.StopSignal}}> {{.Config.Tty}}", "map[] <no value> <> false");
    check("{{print .State.Health}} {{json .Config.Healthcheck}} {{len .Config.OnBuild}}", "<nil> null 0");
    check("{{if .Config.Healthcheck}}yes{{else}}no{{end}}", "no");
    fails("{{.State.Health.Status}}", "there is no field `Status` in `.State.Health`");
    fails("{{.Entrypoint}}", "there is no field `Entrypoint`");
}

#[test]
fn conditions_and_loops_are_gos() {
    check("{{if .State.Running}}up{{else}}down{{end}}", "up");
    check("{{if .Args}}a{{else if .Config.User}}b{{else if eq .State.ExitCode 0}}c{{else}}d{{end}}", "c");
    check("{{with .State.Health}}{{.Status}}{{else}}none{{end}} {{with $x := .Name}}{{$x}}{{.}}{{end}}", "none /web/web");
    check("{{range .Mounts}}{{.Type}}={{.Source}};{{end}}", "bind=/a;volume=/b;");
    check("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$i}}:{{$m.Type}}/{{$.Id}}{{end}}", "0:bind/12ab, 1:volume/12ab");
    check("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}", "one=10.0.0.1 two=10.0.0.2 ");
    check("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "10.0.0.1 10.0.0.2 ");
    check("{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}", "80/tcp -> 8080");
    check("{{range .Args}}x{{else}}empty{{end}}", "empty");
    check("{{range .Config.Env}}{{if eq . \"B=two words\"}}{{break}}{{end}}{{println .}}{{end}}", "A=1\n");
    check("{{range .Mounts}}{{if .RW}}{{continue}}{{end}}{{.Source}}{{end}}", "/b");
    check("{{$n := 1}}{{range .Mounts}}{{$n = .Source}}{{end}}{{$n}}", "/b");
}

#[test]
fn functions_are_gos_and_dockers() {
    check("{{index .Config.Labels \"a.b/c\"}}|{{index .Config.Labels \"none\"}}|{{index .Config.Env 1}}", "dotted||B=two words");
    check("{{len .Mounts}} {{len .Name}} {{len .Config.Labels}}", "2 4 2");
    check("{{join .Config.Cmd \" \"}} {{.Name | upper}} {{lower \"AB\"}} {{title \"two words\"}}", "sh -c /WEB ab Two Words");
    check("{{index (split .Name \"/\") 1}} {{truncate .Name 3}} {{pad .Id 1 2}}| {{slice .Name 1}}", "web /we  12ab  | web");
    check("{{printf \"%s-%5d|%-4s|%03d|%q|%.1f|%v%%\" .Id 7 \"a\" 7 \"q\" 2.25 true}}", "12ab-    7|a   |007|\"q\"|2.2|true%");
    check("{{print .Id .Size 3 \"x\"}} {{println 1 2}}", "12ab7 3x 1 2\n");
    check("{{and .Name .Size}} {{or .Args \"x\"}} {{not .Args}} {{and .Args .NoSuchThing}}", "7 x true []");
    check(
        "{{eq .Id \"a\" \"12ab\"}} {{ne .Size 7}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{gt .Ratio 1}} {{le 2 1}}",
        "true false true true true false",
    );
    check("{{if and .State.Running (eq .State.Status \"running\")}}yes{{end}}", "yes");
    check("{{.Config.Env | len | printf \"%d of %d\" 1}}", "1 of 2");
}

#[test]
fn mistakes_are_named() {
    fails("{{.Nmae}}", "there is no field `Nmae`");
    fails("{{.State.Foo}}", "there is no field `Foo` in `.State`");
    fails("{{.Id.Foo}}", "there is no field `Foo` in `.Id`");
    fails("{{.Id", "not closed");
    fails("{{if .Id}}", "no `{{end}}`");
    fails("{{end}}", "closes nothing");
    fails("{{nothing .Id}}", "there is no function `nothing`");
    fails("{{index .Mounts 5}}", "no element 5 in a list of 2");
    fails("{{$x}}", "no variable `$x`");
    fails("{{template \"x\"}}", "not supported");
    fails("{{.Id |}}", "a command is missing");
    fails("{{(.Id}}", "not closed");
    fails("{{range .Id}}{{end}}", "`range` goes over lists and maps");
    fails("{{.Id .Name}}", "only functions take arguments");
    let deep = format!("{}{}", "{{if .Id}}".repeat(1000), "{{end}}".repeat(1000));
    fails(&deep, "too deep");
}

#[test]
fn mounts_without_a_name_and_a_driver_have_empty_ones() {
    let value = json!({ "Mounts": [{ "Type": "bind", "Destination": "/m", "Propagation": "rprivate" }] });
    let text = "{{range .Mounts}}{{.Type}} {{.Name}}{{.Driver}} {{.Destination}}{{end}}";
    assert_eq!(Template::parse(text).unwrap().render(&value).unwrap(), "bind  /m");
    assert!(Template::parse("{{range .Mounts}}{{.Nmae}}{{end}}").unwrap().render(&value).is_err());
}

#[test]
fn rows_of_lists_have_labels() {
    let row = json!({ "Labels": "a=1,b.c=2", "Names": "x" });
    let render = |text: &str| Template::parse(text).unwrap().render(&row).unwrap();
    assert_eq!(render("{{.Label \"b.c\"}}{{.Label \"none\"}}"), "2");
    let title = Template::parse("{{.Label \"b.c\"}}").unwrap().header(&json!({})).unwrap();
    assert_eq!(title, "b.c");
}

//! What is seen of a build while it runs and when it has ended: on a terminal, in logs, in a profile.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Run, world};

/// As much of a terminal as progress may use: lines, the cursor up and down by lines, and erasing. Anything else that moves the cursor is an error.
struct Terminal {
    columns: usize,
    /// All lines ever shown, those that have scrolled off too.
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    rows: usize,
    /// The largest number of lines that the cursor went up.
    climbed: usize,
}

impl Terminal {
    fn new(rows: usize, columns: usize) -> Terminal {
        Terminal { columns, lines: vec![Vec::new()], at: (0, 0), rows, climbed: 0 }
    }

    fn show(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(character) = chars.next() {
            match character {
                '\x1b' => self.escape(&mut chars),
                '\r' => self.at.1 = 0,
                '\n' => self.down(),
                _ if character.is_control() => panic!("{character:?} reached the terminal"),
                _ => self.put(character),
            }
        }
    }

    fn down(&mut self) {
        self.at.0 += 1;
        if self.at.0 == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, character: char) {
        let width = console::measure_text_width(&character.to_string());
        if self.at.1 + width > self.columns {
            self.at.1 = 0;
            self.down();
        }
        let line = &mut self.lines[self.at.0];
        // A wide one takes a second cell, which holds nothing.
        let cells = [character, '\0'];
        for (offset, cell) in cells[..width].iter().enumerate() {
            if line.len() <= self.at.1 + offset {
                line.resize(self.at.1 + offset + 1, ' ');
            }
            line[self.at.1 + offset] = *cell;
        }
        self.at.1 += width;
    }

    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['), "only CSI sequences are drawn with");
        let mut number = String::new();
        loop {
            match chars.next().expect("a whole sequence") {
                c @ ('0'..='9' | ';' | '?') => number.push(c),
                'm' => return,
                'A' => {
                    let up = number.parse().unwrap_or(1);
                    self.climbed = self.climbed.max(up);
                    assert!(up < self.rows, "the cursor cannot go {up} lines up on {} rows", self.rows);
                    self.at.0 -= up;
                    return;
                }
                'B' => {
                    (0..number.parse().unwrap_or(1)).for_each(|_| self.down());
                    return;
                }
                'K' => {
                    let keep = if number == "2" { 0 } else { self.at.1 };
                    self.lines[self.at.0].truncate(keep);
                    return;
                }
                'J' => {
                    assert!(matches!(number.as_str(), "" | "0"), "the screen above stays");
                    self.lines[self.at.0].truncate(self.at.1);
                    self.lines.truncate(self.at.0 + 1);
                    return;
                }
                'h' | 'l' if number == "?25" => return,
                other => panic!("CSI {number}{other} is not expected"),
            }
        }
    }

    fn text(&self) -> String {
        let line = |line: &Vec<char>| line.iter().filter(|c| **c != '\0').collect::<String>().trim_end().to_owned();
        self.lines.iter().map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

/// Runs a command on a terminal of this size, and gives its exit status and all that it wrote.
fn on_terminal(mut run: Run, rows: u16, columns: u16) -> (i32, String) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let ends = || -> OwnedFd { pty.slave.try_clone().unwrap() };
    let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::from(ends())).stderr(Stdio::from(ends())).spawn().unwrap();
    drop(run);
    drop(pty.slave);
    let mut master = std::fs::File::from(pty.master);
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    // The end of the last writer is an error here.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        all.extend_from_slice(&buffer[..length]);
    }
    (child.wait().unwrap().code().unwrap(), String::from_utf8(all).unwrap())
}

const RUDE: &str = "FROM localhost/busybox AS a\n\
    RUN printf '\\033[2J\\033[5;5H\\033]0;title\\007\\033[31mred 漢字漢字漢字漢字漢字漢字漢字漢字漢字\\n10%%\\r50%%'; sleep 0.4\n\
    FROM localhost/busybox AS b\nRUN for i in 1 2 3 4 5 6 7 8 9; do echo a line of output that is longer than the terminal is wide $i; done; sleep 0.5\n\
    FROM localhost/busybox AS c\nRUN sleep 0.3\nFROM localhost/busybox AS d\nRUN sleep 0.3; echo 1\nFROM localhost/busybox AS e\nRUN sleep 0.3; echo 2\n\
    FROM localhost/busybox\nCOPY --from=a /bin/true /a\nCOPY --from=b /bin/true /b\nCOPY --from=c /bin/true /c\nCOPY --from=d /bin/true /d\n\
    COPY --from=e /bin/true /e\n";

#[test]
fn a_terminal_is_drawn_within_its_size_and_keeps_a_transcript() {
    let Some(world) = world() else { return };
    for (rows, columns) in [(24u16, 80u16), (6, 30)] {
        let run = world.build(RUDE, &["--no-cache"]).env("TERM", "xterm-256color");
        let (code, written) = on_terminal(run, rows, columns);
        let mut terminal = Terminal::new(rows.into(), columns.into());
        terminal.show(&written);
        let text = terminal.text();
        assert_eq!(code, 0, "{text}");
        assert!(terminal.climbed > 1, "nothing was drawn live");
        assert!(written.contains("=> [") && written.contains("[+] Building"));
        // Long lines wrap: the transcript is compared without line breaks.
        let flat = text.replace('\n', "");
        for stage in ["a 2/2", "b 2/2", "c 2/2"] {
            assert!(flat.contains(&format!("✔ [{stage}]")), "{text}");
        }
        assert!(flat.contains("built in ") && flat.contains("run"), "{text}");
        assert!(!flat.contains("=>"), "{text}");
    }
    assert!(on_terminal(world.build(RUDE, &["--no-cache"]).env("TERM", "dumb"), 24, 80).1.contains("#1 "), "a dumb terminal gets lines");
    let (_, plain) = on_terminal(world.build(RUDE, &["--no-cache"]).env("TERM", "xterm").env("NO_COLOR", "1"), 24, 80);
    assert!(!plain.contains("\x1b[3") && !plain.contains("\x1b[1m"), "no colours");
}

#[test]
fn the_last_line_sums_up_a_build_unless_it_is_quiet() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN sleep 3\nRUN echo hi > /hi\n";
    let line =
        |stderr: &str| stderr.lines().find(|line| line.starts_with("built in ") || line.starts_with("failed after ")).map(str::to_owned);
    let first = line(&world.build(text, &[]).ok().stderr).unwrap();
    assert!(
        first.contains("2 steps run") && first.contains("slowest") && first.contains("RUN sleep 3") && first.contains("image "),
        "{first}"
    );
    assert!(line(&world.build(text, &[]).ok().stderr).unwrap().contains("3 steps cached"));
    let failed = world.build(&format!("{text}RUN false\n"), &[]).fails();
    let failed = line(&failed.stderr).unwrap();
    assert!(failed.starts_with("failed after ") && failed.contains("1 step run, 3 cached"), "{failed}");
    assert_eq!(world.build(text, &["-q"]).ok().stderr, "");
    assert_eq!(world.build(text, &["--progress", "none"]).ok().stderr, "");
    let raw = world.build(text, &["--progress", "rawjson"]).ok();
    let messages: Vec<Value> = raw.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(messages.iter().any(|message| message["message"].as_str().is_some_and(|text| text.starts_with("built in "))), "{raw}");
}

#[test]
fn a_profile_is_a_trace_whose_spans_nest_and_tell_what_steps_used() {
    let Some(world) = world() else { return };
    world.write("big", vec![7; 3_000_000]);
    let text = "FROM localhost/busybox AS a\nRUN sleep 0.3\nFROM localhost/busybox AS b\nRUN sleep 0.3; head -c 5000000 /dev/zero | md5sum > /sum\n\
        FROM localhost/busybox\nCOPY big /big\nCOPY --from=a /bin/true /a\nCOPY --from=b /sum /sum\n";
    world.build(text, &["--profile", "trace.json", "-o", "type=oci,dest=out.tar"]).ok();
    let trace: Value = serde_json::from_slice(&std::fs::read(world.path("trace.json")).unwrap()).unwrap();
    let events: Vec<&Value> = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").collect();
    let mut tracks: std::collections::BTreeMap<u64, Vec<(f64, f64, &str)>> = std::collections::BTreeMap::new();
    for event in &events {
        let (from, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
        assert!(from >= 0.0 && length > 0.0, "{event}");
        tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((from, from + length, event["name"].as_str().unwrap()));
    }
    for spans in tracks.values() {
        for (one, other) in spans.iter().flat_map(|one| spans.iter().map(move |other| (one, other))) {
            let apart = one.1 <= other.0 + 0.01 || other.1 <= one.0 + 0.01;
            let nested = (one.0 <= other.0 && other.1 <= one.1) || (other.0 <= one.0 && one.1 <= other.1);
            assert!(apart || nested, "{one:?} and {other:?}");
        }
    }
    let find =
        |name: &str| *events.iter().find(|event| event["name"].as_str().unwrap().contains(name)).unwrap_or_else(|| panic!("no {name}"));
    for phase in ["build", "parse", "plan", "probe", "assemble", "export", "compress", "settle"] {
        assert_eq!(find(phase)["cat"], "phases");
    }
    let args = |name: &str| &find(name)["args"];
    assert_eq!(args("[a 2/2]")["cached"], false);
    assert!(args("[a 2/2]")["wall_us"].as_f64().unwrap() >= 300_000.0);
    assert_ne!(find("[a 2/2]")["tid"], find("[b 2/2]")["tid"], "they run side by side");
    let number = |name: &str, field: &str| args(name)[field].as_f64().unwrap_or_else(|| panic!("{name} {field}: {}", args(name)));
    assert!(number("[b 2/2]", "written_bytes") >= 5_000_000.0 && number("[b 2/2]", "read_bytes") >= 10_000_000.0);
    assert!(number("[b 2/2]", "cpu_user_us") > 0.0 && number("[b 2/2]", "peak_memory_bytes") > 100_000.0);
    assert_eq!(number("COPY big", "hashed_bytes"), 3_000_000.0);
    assert!(number("COPY big", "cpu_system_us") >= 0.0 && number("COPY big", "peak_memory_bytes") > 1_000_000.0);
    world.build(text, &["--profile", "trace.json"]).ok();
    let trace: Value = serde_json::from_slice(&std::fs::read(world.path("trace.json")).unwrap()).unwrap();
    let steps = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["cat"] == "steps").collect::<Vec<_>>();
    assert!(!steps.is_empty() && steps.iter().all(|step| step["args"]["cached"] == true), "{steps:?}");
}

#[test]
fn the_whole_output_of_a_step_is_kept_byte_for_byte() {
    let Some(world) = world() else { return };
    // 50 MB of lines of all lengths, with bytes that are no text, and no line break at the end.
    let script = "i=0; while [ $i -lt 400 ]; do head -c 125000 /dev/urandom; i=$((i+1)); done > /data; cat /data; cp /data /kept";
    world.build(&format!("FROM localhost/busybox\nRUN {script}\n"), &["-t", "noisy", "--progress", "quiet"]).ok();
    let kept = world.path("kept.tar");
    world.build("FROM scratch\nCOPY --from=noisy /kept /kept\n", &["-o", "out"]).ok();
    drop(kept);
    let expected = std::fs::read(world.path("out/kept")).unwrap();
    assert_eq!(expected.len(), 50_000_000);
    let out = world.path("logs.out");
    let list = world.strake(["build", "logs", "--list"]).ok().stdout;
    let noisy =
        list.lines().skip(1).find(|line| line.contains("RUN i=0")).and_then(|line| line.split_whitespace().next()).unwrap().to_owned();
    let mut run = world.strake(["build", "logs", &noisy]);
    let status = run.command().stdout(std::fs::File::create(&out).unwrap()).status().unwrap();
    assert!(status.success());
    let shown = std::fs::read(&out).unwrap();
    let body = &shown[shown.iter().position(|b| *b == b'\n').unwrap() + 1..];
    assert!(body == expected, "{} bytes of {}", body.len(), expected.len());
}

#[test]
fn standard_output_and_error_do_not_meet_within_a_line() {
    let Some(world) = world() else { return };
    let script =
        "(for i in $(seq 3000); do echo -n out; echo put$i; done) & (for i in $(seq 3000); do echo -n er; echo ror$i; done) >&2; wait";
    let done = world.build(&format!("FROM localhost/busybox\nRUN {script}\n"), &["--progress", "plain"]).ok();
    let (mut out, mut err) = (0, 0);
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    // What the step wrote is what stands behind its number and time.
    for line in done.stderr.lines().filter(|line| !line.contains("seq")).filter_map(|line| line.splitn(3, ' ').nth(2)) {
        match (line.strip_prefix("output").is_some_and(is_number), line.strip_prefix("error").is_some_and(is_number)) {
            (true, _) => out += 1,
            (_, true) => err += 1,
            _ => assert!(!line.contains("put") && !line.contains("ror"), "`{line}` is two lines"),
        }
    }
    assert_eq!((out, err), (3000, 3000));
}

#[test]
fn a_result_that_is_written_counts_its_bytes() {
    let Some(world) = world() else { return };
    world.write("big", vec![7; 3_000_000]);
    for (kind, place, least) in
        [("local", "out", 3_000_000), ("tar", "out.tar", 3_000_000), ("oci", "oci.tar", 3_000), ("docker", "d.tar", 3_000)]
    {
        let output = format!("type={kind},dest={place}");
        let raw = world.build("FROM scratch\nCOPY big /big\n", &["--progress", "rawjson", "-o", &output]).ok();
        let messages: Vec<Value> = raw.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut vertexes = messages.iter().flat_map(|message| message["vertexes"].as_array().into_iter().flatten());
        let vertex =
            vertexes.find(|vertex| vertex["name"].as_str().is_some_and(|name| name.starts_with("exporting to ") && name.ends_with(place)));
        let digest = &vertex.unwrap_or_else(|| panic!("no step of {kind}: {raw}"))["digest"];
        let mut statuses = messages.iter().flat_map(|message| message["statuses"].as_array().into_iter().flatten());
        let last = statuses.rfind(|status| status["vertex"] == *digest).unwrap_or_else(|| panic!("no bytes of {kind}: {raw}"));
        assert!(last["current"].as_u64().unwrap() >= least && last["completed"].is_string(), "{kind}: {last}");
    }
    let plain = world.build_as_it_is(&["--progress", "plain", "-o", "type=tar,dest=again.tar"]).ok();
    assert!(plain.stderr.contains("exporting to the tar archive again.tar") && plain.stderr.contains("writing 3"), "{plain}");
}

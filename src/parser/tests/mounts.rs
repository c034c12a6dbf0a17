//! `RUN --mount`: what is read with the file, where mistakes are shown, and what the vectors of `testdata/values/mounts.txt` are compared with.

use crate::diag::{SourceFile, Span, Spanned};
use crate::parser::*;

/// What a mount's text means, in words; the message and the part at fault if it is refused.
pub(super) fn describe(text: &str, variables: &dyn Variables) -> Result<String, String> {
    let file = SourceFile::new("Dockerfile", text);
    let flag = Word { text: text.into(), span: Span::new(0, text.len()) };
    let resolved = RunMount::resolve(&flag, &file, &mut |value| expand(value, '\\', variables, Mode::Word).map(|expanded| expanded.text));
    let mount = resolved
        .map_err(|diagnostic| format!("{} @ {}", diagnostic.message, diagnostic.file.slice(diagnostic.span)).trim_end().to_owned())?;
    let mut words = Words(Vec::new());
    let target = mount.target.as_deref();
    match mount.kind {
        RunMountKind::Bind { from, source, writable } => {
            words.bare(if writable { "bind rw" } else { "bind ro" }).text("target", target).text("source", source.as_deref()).from(from);
        }
        RunMountKind::Cache { id, sharing, from, source, mode, uid, gid, read_only } => {
            words.bare(if read_only { "cache ro" } else { "cache rw" }).text("target", target).text("id", id.as_deref());
            words.bare(match sharing {
                CacheSharing::Shared => "shared",
                CacheSharing::Private => "private",
                CacheSharing::Locked => "locked",
            });
            words.text("source", source.as_deref()).from(from).owner(mode, uid, gid);
        }
        RunMountKind::Tmpfs { size, read_only } => {
            words
                .bare(if read_only { "tmpfs ro" } else { "tmpfs" })
                .text("target", target)
                .text("size", size.map(|size| size.to_string()).as_deref());
        }
        RunMountKind::Secret { id, env, required, mode, uid, gid } => {
            words.bare("secret").text("target", target).text("id", id.as_deref()).text("env", env.as_deref());
            words.switch("required", required).owner(mode, uid, gid);
        }
        RunMountKind::Ssh { id, required, mode, uid, gid } => {
            words.bare("ssh").text("target", target).text("id", id.as_deref()).switch("required", required).owner(mode, uid, gid);
        }
    }
    Ok(words.0.join(" "))
}

struct Words(Vec<String>);

impl Words {
    fn bare(&mut self, word: &str) -> &mut Words {
        self.0.push(word.to_owned());
        self
    }

    fn text(&mut self, name: &str, value: Option<&str>) -> &mut Words {
        self.0.extend(value.map(|value| format!("{name}={value}")));
        self
    }

    fn from(&mut self, from: Option<Spanned<Text>>) -> &mut Words {
        self.text("from", from.map(|from| from.value).as_deref())
    }

    fn switch(&mut self, name: &str, on: bool) -> &mut Words {
        self.0.extend(on.then(|| name.to_owned()));
        self
    }

    fn owner(&mut self, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> &mut Words {
        self.text("mode", mode.map(|mode| format!("{mode:o}")).as_deref());
        self.text("uid", uid.map(|uid| uid.to_string()).as_deref()).text("gid", gid.map(|gid| gid.to_string()).as_deref())
    }
}

/// The mistakes of a file with one `RUN`: `message @ part`.
fn mistakes(run: &str) -> Vec<String> {
    let file = SourceFile::new("Dockerfile", format!("FROM scratch\nRUN {run} true\n"));
    parse(&file).diagnostics.iter().map(|found| format!("{} @ {}", found.message, file.slice(found.span))).collect()
}

/// The mistake of a mount that the graph finds in a file with one `RUN`.
fn late(run: &str) -> String {
    let file = SourceFile::new("Dockerfile", format!("FROM scratch\nRUN {run} true\n"));
    let parsed = parse(&file);
    let Instruction::Run(run) = &parsed.dockerfile.stages[0].instructions[0].instruction else { panic!("no RUN") };
    let found = RunMount::resolve(&run.mounts[0], &file, &mut |value| Ok(value.to_owned())).unwrap_err();
    format!("{} @ {}", found.message, file.slice(found.span))
}

#[test]
fn only_what_never_depends_on_variables_is_told_with_the_file() {
    for run in ["--mount=type=cahce", "--mount=type=bind,targt=/x", "--mount=target", "--mount=type=secret", "--mount=type=tmpfs,size=big"]
    {
        assert_eq!(mistakes(run), Vec::<String>::new(), "{run}");
    }
    for (run, expected) in [
        ("--mount=from=$X,target=/x", "variables are not expanded in `from` @ $X"),
        ("--mount=target=/x,From=a${X}", "variables are not expanded in `from` @ a${X}"),
        ("--mount=target=\\\"x", "the quotes of this mount do not match @ target=\\\"x"),
        ("--mount=", "flag `--mount` needs a value @ "),
    ] {
        assert_eq!(mistakes(run), [expected], "{run}");
    }
}

#[test]
fn mistakes_point_at_the_field_also_where_the_flag_has_quotes_or_goes_on_in_another_line() {
    for (run, expected) in [
        ("--mount=type=bind,targt=/x", "unknown key `targt` in `--mount` @ targt=/x"),
        ("--mount=type=bind,source=\"a b\",targt=/x", "unknown key `targt` in `--mount` @ targt=/x"),
        ("--mount=type=bind,\\\nsource=a,targt=/x", "unknown key `targt` in `--mount` @ targt=/x"),
        ("--mount=\"type=cahce,target=/x\"", "unknown type of mount `cahce` @ cahce"),
        ("--mount=type=cache,uid=\"x\"", "`x` is no value for `uid` @ type=cache,uid=\"x\""),
    ] {
        assert_eq!(late(run), expected, "{run}");
    }
}

#[test]
fn the_stage_that_a_mount_is_from_has_its_place() {
    let text = "target=/x,from=base,rw";
    let file = SourceFile::new("Dockerfile", text);
    let flag = Word { text: text.into(), span: Span::new(0, text.len()) };
    let mount = RunMount::resolve(&flag, &file, &mut |value| Ok(value.to_owned())).unwrap();
    let RunMountKind::Bind { from: Some(from), .. } = mount.kind else { panic!("no bind mount from a stage") };
    assert_eq!(file.slice(from.span), "base");
}

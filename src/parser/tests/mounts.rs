//! `RUN --mount`: what is read with the file, and what is resolved with variables.

use crate::diag::{SourceFile, Span};
use crate::parser::*;

fn resolve_with(text: &str, value_of_v: &str) -> Result<RunMount, String> {
    let file = SourceFile::new("Dockerfile", text);
    let flag = Word { text: text.to_owned(), span: Span::new(0, text.len()) };
    let variables = |name: &str| (name == "V").then(|| value_of_v.to_owned());
    RunMount::resolve(&flag, &file, &mut |value| expand(value, '\\', &variables, Mode::Word).map(|expanded| expanded.text))
        .map_err(|diagnostic| format!("{} at {}", diagnostic.message, diagnostic.file.slice(diagnostic.span)))
}

fn resolve(text: &str) -> Result<RunMount, String> {
    resolve_with(text, "val")
}

#[track_caller]
fn kind(text: &str) -> String {
    let mount = resolve(text).unwrap();
    let from = |from: Option<crate::diag::Spanned<String>>| from.map(|from| from.value);
    match mount.kind {
        RunMountKind::Bind { from: stage, source, writable } => {
            format!("bind {:?} from {:?} source {source:?} writable {writable}", mount.target, from(stage))
        }
        RunMountKind::Cache { id, sharing, from: stage, source, mode, uid, gid, read_only } => format!(
            "cache {:?} id {id:?} {sharing:?} from {:?} {source:?} {mode:?} {uid:?} {gid:?} read_only {read_only}",
            mount.target,
            from(stage)
        ),
        RunMountKind::Tmpfs { size } => format!("tmpfs {:?} {size:?}", mount.target),
        RunMountKind::Secret { id, env, required, mode, uid, gid } => {
            format!("secret {:?} {id:?} env {env:?} required {required} {mode:?} {uid:?} {gid:?}", mount.target)
        }
        RunMountKind::Ssh { id, required, mode, uid, gid } => {
            format!("ssh {:?} {id:?} required {required} {mode:?} {uid:?} {gid:?}", mount.target)
        }
    }
}

#[test]
fn mounts_of_every_type_are_read() {
    for (text, expected) in [
        ("target=/x", "bind Some(\"/x\") from None source None writable false"),
        ("type=BIND,from=base,source=/a,dst=b,rw", "bind Some(\"b\") from Some(\"base\") source Some(\"/a\") writable true"),
        ("destination=/x,readonly=false", "bind Some(\"/x\") from None source None writable true"),
        ("target=/x,rw,ro", "bind Some(\"/x\") from None source None writable false"),
        ("Target=/x,RW=true", "bind Some(\"/x\") from None source None writable true"),
        (
            "type=cache,target=/c,id=k,sharing=Locked,mode=0700,uid=1,gid=2",
            "cache Some(\"/c\") id Some(\"k\") Locked from None None Some(448) Some(1) Some(2) read_only false",
        ),
        ("type=cache,target=/c,ro", "cache Some(\"/c\") id None Shared from None None None None None read_only true"),
        ("type=tmpfs,target=/t,size=1.5m", "tmpfs Some(\"/t\") Some(1572864)"),
        ("size=64KiB,target=/t,type=tmpfs", "tmpfs Some(\"/t\") Some(65536)"),
        ("type=tmpfs,target=/t", "tmpfs Some(\"/t\") None"),
        ("type=secret,id=key", "secret None Some(\"key\") env None required false None None None"),
        ("type=secret,source=key,required", "secret None Some(\"key\") env None required true None None None"),
        ("type=secret,id=key,env=KEY,required=1", "secret None Some(\"key\") env Some(\"KEY\") required true None None None"),
        ("type=secret,target=/k,mode=0440", "secret Some(\"/k\") None env None required false Some(288) None None"),
        ("type=ssh", "ssh None None required false None None None"),
        ("required=true,type=ssh,id=a", "ssh None Some(\"a\") required true None None None"),
        ("target=/x,source=a$V", "bind Some(\"/x\") from None source Some(\"aval\") writable false"),
        ("\"target=/a,b\",source=\"c\"", "bind Some(\"/a,b\") from None source Some(\"c\") writable false"),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}

#[test]
fn mistakes_in_mounts_point_at_the_field() {
    for (text, expected) in [
        ("type=bnid,target=/x", "unknown type of mount `bnid` at bnid"),
        ("target=/x,sorce=a", "unknown key `sorce` in `--mount` at sorce=a"),
        ("target", "`target` needs a value at target"),
        ("target=/x,mode=1", "`mode` means nothing for a mount of type `bind` at mode=1"),
        ("target=/x,size=1", "`size` means nothing for a mount of type `bind` at size=1"),
        ("target=/x,required", "`required` means nothing for a mount of type `bind` at required"),
        ("target=/x,sharing=locked", "`sharing` means nothing for a mount of type `bind` at sharing=locked"),
        ("type=cache,target=/x,sharing=all", "unknown sharing `all` at sharing=all"),
        ("type=cache,target=/x,mode=9", "`9` is no value for `mode` at mode=9"),
        ("type=cache,target=/x,uid=-1", "`-1` is no value for `uid` at uid=-1"),
        ("type=tmpfs,target=/x,size=big", "`big` is no value for `size` at size=big"),
        ("type=secret", "a secret needs an `id` or a `target` at type=secret"),
        ("type=secret,id=a,source=b", "a secret has an `id` or a `source`, not both at source=b"),
        ("type=secret,id=a,from=b", "`from` means nothing for a mount of type `secret` at from=b"),
        ("type=ssh,source=b", "`source` means nothing for a mount of type `ssh` at source=b"),
        ("target=/x,ro=maybe", "`ro` is true or false, not `maybe` at ro=maybe"),
        ("target=/x,from=a$V", "variables are not expanded in `from` at a$V"),
        ("target=/", "the root directory cannot be the target of a mount at target=/"),
        ("target=/./", "the root directory cannot be the target of a mount at target=/./"),
        ("target=${}", "bad substitution at ${}"),
        ("target=\"a", "unknown key `` in `--mount` at "),
        ("target=/x,", "unknown key `` in `--mount` at "),
    ] {
        let error = resolve(text).unwrap_err();
        assert!(error == expected || text == "target=\"a", "{text}: {error}");
    }
}

#[test]
fn a_comma_in_a_value_adds_no_field() {
    let mount = resolve_with("target=/x,source=$V", "a,rw").unwrap();
    let RunMountKind::Bind { source, writable, .. } = mount.kind else { panic!("no bind") };
    assert_eq!((source.as_deref(), writable), (Some("a,rw"), false));
}

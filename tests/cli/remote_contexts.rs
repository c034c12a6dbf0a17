//! What builds read from elsewhere: `ADD` of git repositories and URLs, and build contexts from git and web servers. All servers are real and on this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::common::web::{Reply, Request, Web, commit, git};
use crate::common::{Entry, Image, World, able, wait_for};

fn world() -> Option<World> {
    able(&["git"]).then(World::new)
}

/// Where the repository `name` is.
fn repository(world: &World, name: &str) -> PathBuf {
    world.path("srv").join(name)
}

fn serve(world: &World) -> Web {
    Web::git(&world.path("srv"), None)
}

#[track_caller]
fn text_at(tree: &BTreeMap<String, Entry>, path: &str) -> String {
    let entry = tree.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", tree.keys()));
    String::from_utf8(entry.content.clone()).unwrap()
}

/// A tar archive of files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn add_of_a_repository_gives_its_files_with_submodules_and_plain_modes() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "deep.git"), &[("deep.txt", "deep\n")]);
    let sub = repository(&world, "sub.git");
    commit(&sub, &[("sub.txt", "sub\n")]);
    git(&sub, &["submodule", "--quiet", "add", "../deep.git", "deep"]);
    commit(&sub, &[]);
    let app = repository(&world, "app.git");
    commit(&app, &[("a.txt", "a\n"), ("bin/run", "#!/bin/sh\n"), ("skip.md", "")]);
    std::fs::set_permissions(app.join("bin/run"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    symlink("../../etc/passwd", app.join("bin/link")).unwrap();
    git(&app, &["submodule", "--quiet", "add", "../sub.git", "sub"]);
    commit(&app, &[]);
    let web = serve(&world);
    let text = format!(
        "FROM scratch\nADD --exclude=*.md {0} /app/\nADD --link --chown=7:8 --chmod=u=rwX,go= {0}?submodules=false /own/\n",
        web.url("/app.git")
    );
    let image = world.image(&text, &[]);
    let tree = image.tree();
    for (path, kind, mode) in [
        ("app", "dir", 0o755),
        ("app/a.txt", "file", 0o644),
        ("app/bin", "dir", 0o755),
        ("app/bin/run", "file", 0o755),
        ("app/bin/link", "symlink", 0o777),
        ("app/sub/sub.txt", "file", 0o644),
        ("app/sub/deep/deep.txt", "file", 0o644),
        ("app/.gitmodules", "file", 0o644),
        ("own/a.txt", "file", 0o600),
    ] {
        let entry = tree.get(path).unwrap_or_else(|| panic!("{path}"));
        assert_eq!((entry.kind, entry.mode), (kind, mode), "{path}");
        let owner = if path.starts_with("own") { (7, 8) } else { (0, 0) };
        assert_eq!((entry.uid, entry.gid), owner, "{path}");
    }
    assert_eq!(tree["app/bin/link"].target, "../../etc/passwd");
    let absent = |path: &str| !tree.contains_key(path);
    assert!(absent("app/skip.md") && absent("own/sub/sub.txt"));
    assert!(!tree.keys().any(|path| path.ends_with(".git")), "{:?}", tree.keys());
}

#[test]
fn an_unchanged_commit_is_a_hit_without_a_fetch_and_a_new_one_is_not() {
    let Some(world) = world() else { return };
    let app = repository(&world, "app.git");
    commit(&app, &[("a.txt", "1\n"), ("dir/b", "1\n")]);
    let web = serve(&world);
    let text = format!("FROM scratch\nADD {0}#main:dir /dir/\nADD {0}#main /app/\n", web.url("/app.git"));
    assert_eq!(world.build(&text, &[]).ok().step("#main /app/"), "DONE");
    assert!(web.fetches() > 0);
    assert_eq!(world.build(&text, &[]).ok().step("#main /app/"), "CACHED");
    assert_eq!(web.fetches(), 0, "nothing is fetched");
    // Another branch at the same commit, and the commit itself: the same files.
    let head = git(&app, &["rev-parse", "HEAD"]);
    git(&app, &["branch", "other"]);
    world.build(&text.replace("#main /app", "#other /app"), &[]).ok();
    world.build(&text.replace("#main", &format!("#{head}")), &[]).ok();
    assert_eq!(web.fetches(), 0, "a commit is one, whatever leads to it");
    commit(&app, &[("a.txt", "2\n")]);
    let done = world.build(&text, &["-o", "out"]).ok();
    assert_eq!(std::fs::read(world.path("out/app/a.txt")).unwrap(), b"2\n");
    assert_eq!(done.step("#main /app/"), "DONE");
    // The part of the repository that did not change gives the same layer again.
    assert_eq!(done.step("#main:dir /dir/"), "CACHED");
}

#[test]
fn everything_that_names_a_commit_leads_to_it() {
    let Some(world) = world() else { return };
    let app = repository(&world, "app.git");
    let mut commits = Vec::new();
    for number in ["1", "2", "3", "4"] {
        commits.push(commit(&app, &[("n", number)]));
    }
    git(&app, &["tag", "light", &commits[0]]);
    git(&app, &["tag", "-a", "-m", "x", "v1", &commits[1]]);
    git(&app, &["branch", "a/b", &commits[2]]);
    git(&app, &["update-ref", "refs/pull/1/head", &commits[1]]);
    let tag = git(&app, &["rev-parse", "v1"]);
    let web = serve(&world);
    let forms = [
        ("".to_owned(), "4"),
        ("#main".to_owned(), "4"),
        ("#HEAD".to_owned(), "4"),
        ("#light".to_owned(), "1"),
        ("#v1".to_owned(), "2"),
        ("#refs/tags/v1".to_owned(), "2"),
        (format!("#{tag}"), "2"),
        ("#a/b".to_owned(), "3"),
        ("#refs/heads/a/b".to_owned(), "3"),
        ("#refs/pull/1/head".to_owned(), "2"),
        ("#pull/1/head".to_owned(), "2"),
        (format!("#{}", commits[0]), "1"),
        (format!("#{}", &commits[2][..9]), "3"),
        ("?branch=a/b".to_owned(), "3"),
        ("?tag=v1".to_owned(), "2"),
        ("?ref=light".to_owned(), "1"),
        (format!("?commit={}", commits[2]), "3"),
        (format!("?tag=v1&checksum={}", &commits[1][..12]), "2"),
        (format!("?tag=v1&checksum={}", &tag[..12]), "2"),
        (format!("?branch=a/b&fetch-by-commit=true&commit={}", commits[2]), "3"),
    ];
    let lines: String = forms.iter().enumerate().map(|(at, (form, _))| format!("ADD {}{form} /{at}/\n", web.url("/app.git"))).collect();
    let tree = world.image(&format!("FROM scratch\n{lines}"), &[]).tree();
    for (at, (form, number)) in forms.iter().enumerate() {
        assert_eq!(text_at(&tree, &format!("{at}/n")), *number, "{form}");
    }
}

#[test]
fn what_is_not_there_or_not_what_was_demanded_fails_with_its_name() {
    let Some(world) = world() else { return };
    let app = repository(&world, "app.git");
    let head = commit(&app, &[("a", "a")]);
    symlink("/etc", app.join("out")).unwrap();
    commit(&app, &[]);
    let web = serve(&world);
    let url = web.url("/app.git");
    let add = |what: &str| world.build(&format!("FROM scratch\nADD {what} /x/\n"), &[]).fails();
    add(&format!("{url}#gone")).says(&["no branch, tag or commit `gone`", &url]);
    add(&format!("{url}#abcd123")).says(&["no branch, tag or commit `abcd123`"]);
    add(&format!("{url}#:gone")).says(&["no directory `gone`"]);
    add(&format!("{url}#:a")).says(&["no directory `a`"]);
    // A link out of the repository leads into it, where there is nothing.
    add(&format!("{url}#:out")).says(&["no directory `out`"]);
    add(&format!("--checksum={head} {url}")).says(&["is demanded, but the commit is"]);
    add(&format!("--checksum=sha256:{head} {url}")).says(&["hexadecimal"]);
    add(&format!("--keep-git-dir=true {url}?keep-git-dir=false")).says(&["contradicts"]);
    add(&format!("{url}?what=1")).says(&["no option `what`"]);
    add(&format!("{url}#--upload-pack=touch$IFS/pwned")).says(&["cannot be the name"]);
    add("ssh://-oProxyCommand=id/x").says(&["begins with `-`"]);
    add("git@127.0.0.1:x.git").says(&["no ssh agent", "hint:"]);
    add(&web.url("/none.git")).says(&["none.git", "hint:"]);
    world.build(&format!("FROM scratch\nCOPY {url} /x/\n"), &[]).fails().says(&["COPY cannot read from a git repository"]);
    let run = world.build(&format!("FROM scratch\nADD {url} /x/\n"), &[]).env("PATH", "/nowhere").fails();
    run.says(&["`git` was not found", "install git"]);
    world.build(&format!("FROM scratch\nADD --checksum={head} {url}#{head} /x/\n"), &[]).ok();
}

#[test]
fn a_git_directory_that_is_kept_is_a_repository_at_that_commit() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "sub.git"), &[("s", "s")]);
    let app = repository(&world, "app.git");
    git(
        &{
            commit(&app, &[("a", "1")]);
            app.clone()
        },
        &["submodule", "--quiet", "add", "../sub.git", "sub"],
    );
    let head = commit(&app, &[("a", "2")]);
    git(&app, &["tag", "-a", "-m", "x", "v2"]);
    let web = serve(&world);
    let text = format!("FROM scratch\nADD --keep-git-dir=true {0}#v2 /\n", web.url("/app.git").replace("http://", "http://me:hunter2@"));
    world.build(&text, &["-o", "out"]).ok();
    let out = world.path("out");
    assert_eq!(git(&out, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&out, &["describe"]), "v2");
    assert_eq!(git(&out, &["status", "--short"]), "");
    assert_eq!(git(&out.join("sub"), &["status", "--short"]), "");
    assert_eq!(git(&out, &["remote", "get-url", "origin"]), web.url("/app.git"));
    for gone in [".git/FETCH_HEAD", ".git/hooks", ".git/logs"] {
        assert!(!out.join(gone).exists(), "{gone}");
    }
    let config = std::fs::read_to_string(out.join(".git/config")).unwrap();
    assert!(!config.contains("hunter2") && !config.contains("store"), "{config}");
}

#[test]
fn repositories_with_the_longer_hash_are_read_too() {
    let Some(world) = world() else { return };
    let app = repository(&world, "app.git");
    std::fs::create_dir_all(&app).unwrap();
    git(&app, &["init", "-q", "-b", "main", "--object-format=sha256"]);
    let head = commit(&app, &[("a", "256")]);
    assert_eq!(head.len(), 64);
    let web = serve(&world);
    let text = format!("FROM scratch\nADD {0} /1/\nADD {0}#{head} /2/\nADD --keep-git-dir {0} /3/\n", web.url("/app.git"));
    let tree = world.image(&text, &[]).tree();
    assert_eq!((text_at(&tree, "1/a"), text_at(&tree, "2/a"), text_at(&tree, "3/a")), ("256".into(), "256".into(), "256".into()));
}

#[test]
fn times_are_those_of_the_commit_where_that_is_asked_for() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "app.git"), &[("dir/a", "a")]);
    let web = serve(&world);
    let tree = world.image(&format!("FROM scratch\nADD {}?mtime=commit /x/\n", web.url("/app.git")), &[]).tree();
    assert_eq!((tree["x/dir/a"].mtime, tree["x/dir"].mtime), (1_700_000_000, 1_700_000_000));
}

#[test]
fn a_token_opens_a_private_repository_and_is_seen_nowhere() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "app.git"), &[("a", "private")]);
    let token = "s3cr3t-t0k3n";
    let header = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
    let web = Web::git(&world.path("srv"), Some(format!("Basic {header}")));
    let text = format!("FROM scratch\nADD {} /x/\n", web.url("/app.git"));
    world.build(&text, &[]).fails().says(&["hint:", "GIT_AUTH_TOKEN"]);
    for (id, value) in [
        ("GIT_AUTH_TOKEN".to_owned(), token.to_owned()),
        (format!("GIT_AUTH_TOKEN.127.0.0.1:{}", web.port), format!("{token}\n")),
        ("GIT_AUTH_HEADER.127.0.0.1".to_owned(), format!("Basic {header}")),
    ] {
        std::fs::write(world.path("secret"), value).unwrap();
        let secret = format!("id={id},src={}", world.path("secret").display());
        let image = world.image(&text, &["--secret", &secret, "--progress=plain"]);
        assert_eq!(text_at(&image.tree(), "x/a"), "private", "{id}");
        world.strake(["prune", "-af"]).run();
    }
    std::fs::write(world.path("secret"), "wrong-t0k3n").unwrap();
    let secret = format!("id=GIT_AUTH_TOKEN,src={}", world.path("secret").display());
    let wrong = base64::engine::general_purpose::STANDARD.encode("x-access-token:wrong-t0k3n");
    world.build(&text, &["--no-cache", "--secret", &secret]).fails().omits(&["wrong-t0k3n", &wrong]);
    for entry in walkdir::WalkDir::new(world.root()).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!holds(token) && !holds(&header), "{}", entry.path().display());
    }
}

#[test]
fn a_repository_cannot_bring_in_files_of_this_machine() {
    let Some(world) = world() else { return };
    let secret = repository(&world, "private.git");
    commit(&secret, &[("secret", "secret")]);
    let app = repository(&world, "app.git");
    commit(&app, &[("a", "a")]);
    git(&app, &["submodule", "--quiet", "add", "../private.git", "sub"]);
    git(&app, &["config", "-f", ".gitmodules", "submodule.sub.url", &format!("file://{}", secret.display())]);
    commit(&app, &[]);
    let web = serve(&world);
    let add = |options: &str| world.build(&format!("FROM scratch\nADD {}{options} /x/\n", web.url("/app.git")), &[]);
    add("").fails().says(&["hint:", "submodules=false"]);
    add("?submodules=false").ok();
    // Nothing that the user has set counts either.
    std::fs::write(
        world.path("home/.gitconfig"),
        format!("[url \"file://{}\"]\n\tinsteadOf = {}\n", secret.display(), web.url("/app.git")),
    )
    .unwrap();
    let tree = world.image(&format!("FROM scratch\nADD {}?submodules=0&ref=main /y/\n", web.url("/app.git")), &[]).tree();
    assert!(tree.contains_key("y/a") && !tree.contains_key("y/secret"));
}

#[test]
fn a_context_from_git_has_its_dockerfile_and_no_ignore_file() {
    let Some(world) = world() else { return };
    let app = repository(&world, "app.git");
    commit(&app, &[("Dockerfile", "FROM scratch\nCOPY . /\n"), (".dockerignore", "*.txt\n"), ("a.txt", "1"), ("sub/b", "b")]);
    git(&app, &["tag", "v1"]);
    commit(&app, &[("a.txt", "2"), ("sub/other.Dockerfile", "FROM scratch\nCOPY b /other\nADD a* /none/\n")]);
    let web = serve(&world);
    let url = web.url("/app.git");
    let archive = world.path("out.tar");
    let build = |args: &[&str]| {
        let output = format!("type=oci,dest={}", archive.display());
        let done = world.strake(["build", "-o", &output].iter().chain(args)).stdin("FROM scratch\nCOPY sub/b /piped\n").run();
        assert!(done.code == 0, "{done}");
        Image::oci_archive(&archive).tree()
    };
    let tree = build(&[&url]);
    assert_eq!((text_at(&tree, "a.txt").as_str(), text_at(&tree, "sub/b").as_str()), ("2", "b"));
    assert!(tree.contains_key(".dockerignore") && !tree.contains_key(".git"));
    assert_eq!(text_at(&build(&[&format!("{url}#v1")]), "a.txt"), "1");
    let tree = build(&["-f", "other.Dockerfile", &format!("{url}#main:sub")]);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["other"]);
    assert_eq!(text_at(&build(&["-f", "-", &url]), "piped"), "b");
    let local = world.path("local.Dockerfile");
    std::fs::write(&local, "FROM scratch\nCOPY sub /local\n").unwrap();
    assert!(build(&["-f", local.to_str().unwrap(), &url]).contains_key("local/b"));
    web.take();
    assert!(build(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).contains_key(".git/HEAD"));
    world.strake(["build", "-f", "gone", &url]).fails().says(&["cannot read the Dockerfile `gone`"]);
    world.strake(["build", "--check", &url]).ok();
    world.strake(["context", "ls", &url]).fails().says(&["is not on this machine"]);
    world.strake(["build", "file:///srv/x.git"]).fails().says(&["`file://` is no kind of context"]);
    // A directory that is there goes before an address.
    std::fs::create_dir_all(world.path("github.com/x")).unwrap();
    world.strake(["context", "ls", "github.com/x"]).ok();
}

#[test]
fn a_context_from_a_web_server_is_an_archive_or_a_dockerfile() {
    let Some(world) = world() else { return };
    let files = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("dir/a", "a"), ("other", "FROM scratch\nCOPY dir /\n")]);
    let web = Web::start(move |request| match request.path.as_str() {
        "/plain" => Reply::new(200, files.clone()).with("ETag", "\"1\""),
        "/gz" => Reply::new(200, gzip(&files)),
        "/Dockerfile" => Reply::new(200, "FROM scratch\nCOPY context /copied\n"),
        _ => Reply::new(404, ""),
    });
    let archive = world.path("out.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let build = |args: &[&str]| {
        world.strake(["build", "-o", &output].iter().chain(args)).ok();
        Image::oci_archive(&archive).tree()
    };
    let tree = build(&[&web.url("/plain")]);
    assert_eq!((text_at(&tree, "dir/a"), tree["dir/a"].mode), ("a".into(), 0o640));
    assert_eq!(text_at(&build(&["-f", "other", &web.url("/gz")]), "a"), "a");
    assert_eq!(text_at(&build(&[&web.url("/Dockerfile")]), "copied"), "FROM scratch\nCOPY context /copied\n");
    world.strake(["build", &web.url("/none")]).fails().says(&["404", "/none"]);
}

#[test]
fn named_contexts_come_from_git_and_web_servers() {
    if !able(&["git", "docker-registry"]) {
        return;
    }
    let world = World::new();
    world.busybox();
    commit(&repository(&world, "app.git"), &[("dir/a", "git\n")]);
    let files = gzip(&archive(&[("web", "web\n")]));
    let served = world.path("srv");
    let git_server = Web::git(&served, None);
    let web = Web::start(move |_| Reply::new(200, files.clone()).with("ETag", "\"x\""));
    let text = "FROM repo AS base\nFROM localhost/busybox\nCOPY --from=base dir/a /1\nCOPY --from=repo dir /2/\nCOPY --from=site web /3\n\
                RUN --mount=from=repo,target=/m --mount=from=site,target=/n cat /m/dir/a /n/web > /4\n";
    let repo = format!("repo={}#main", git_server.url("/app.git"));
    let site = format!("site={}", web.url("/files.tar.gz"));
    let args = ["--build-context", &repo, "--build-context", &site];
    let tree = world.image(text, &args).tree();
    for (path, content) in [("1", "git\n"), ("2/a", "git\n"), ("3", "web\n"), ("4", "git\nweb\n")] {
        assert_eq!(text_at(&tree, path), content, "{path}");
    }
    git_server.take();
    assert_eq!(world.build(text, &args).ok().step("RUN"), "CACHED");
    assert_eq!(git_server.fetches(), 0);
    // Whatever no step reads is not asked for.
    world.build("FROM localhost/busybox\n", &["--build-context", "repo=http://127.0.0.1:1/gone.git"]).ok();
}

/// What a test's file is at the moment, and how its server behaves.
struct Served {
    body: Vec<u8>,
    etag: &'static str,
    modified: &'static str,
}

/// A server of one file that knows of versions and ranges.
fn file_server(served: Arc<Mutex<Served>>) -> Web {
    Web::start(move |request: &Request| {
        let served = served.lock().unwrap();
        let known = |header: &str, value: &str| !value.is_empty() && request.header(header) == value;
        if known("if-none-match", served.etag) || known("if-modified-since", served.modified) {
            return Reply::new(304, "");
        }
        let mut reply = Reply::new(200, served.body.clone());
        for (name, value) in [("ETag", served.etag), ("Last-Modified", served.modified)] {
            if !value.is_empty() {
                reply = reply.with(name, value);
            }
        }
        reply
    })
}

const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

#[test]
fn add_of_a_url_is_asked_for_again_and_fetched_only_when_it_changed() {
    for (etag, modified) in [("\"one\"", DATE), ("W/\"weak\"", ""), ("", DATE)] {
        let Some(world) = world() else { return };
        let served = Arc::new(Mutex::new(Served { body: b"1".to_vec(), etag, modified }));
        let web = file_server(served.clone());
        let text = format!("FROM scratch\nADD {} /dir/\n", web.url("/a%20b?x=/y"));
        let tree = world.image(&text, &[]).tree();
        let entry = &tree["dir/a b"];
        let mtime = if modified.is_empty() { 0 } else { 1_700_000_000 };
        assert_eq!((entry.mode, entry.uid, entry.gid, entry.mtime, entry.content.as_slice()), (0o600, 0, 0, mtime, &b"1"[..]));
        web.take();
        assert_eq!(world.build(&text, &[]).ok().step("/dir/"), "CACHED", "{etag} {modified}");
        let asked = web.take();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(!asked[0].header("if-none-match").is_empty() || !asked[0].header("if-modified-since").is_empty(), "{asked:?}");
        // Another version with the same content is a hit, another content is not.
        served.lock().unwrap().etag = "\"two\"";
        served.lock().unwrap().modified = "";
        assert_eq!(world.build(&text, &[]).ok().step("/dir/"), "CACHED");
        served.lock().unwrap().body = b"2".to_vec();
        served.lock().unwrap().etag = "\"three\"";
        assert_eq!(world.build(&text, &[]).ok().step("/dir/"), "DONE");
    }
}

#[test]
fn a_checksum_that_is_here_needs_no_server() {
    let Some(world) = world() else { return };
    let served = Arc::new(Mutex::new(Served { body: b"content".to_vec(), etag: "", modified: "" }));
    let web = file_server(served.clone());
    let digest = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    let text = format!("FROM scratch\nADD --checksum={digest} {} /f\n", web.url("/f"));
    world.build(&text, &[]).ok();
    web.take();
    assert_eq!(world.build(&text.replace("/f\n", "/g\n"), &[]).ok().step("ADD"), "DONE");
    assert!(web.take().is_empty());
    served.lock().unwrap().body = b"changed".to_vec();
    // Whoever changes the address and forgets the checksum is told, though there is a file with that checksum.
    world.build(&text.replace("/f /f\n", "/v2/f2 /h\n"), &[]).fails().says(&["the content hashes to sha256:", digest]);
    world.strake(["prune", "-af"]).ok();
    world.build(&text, &[]).fails().says(&["the content hashes to sha256:", digest]);
    world.build(&text.replace(digest, &format!("sha512:{}", "0".repeat(128))), &[]).fails().says(&["sha256"]);
}

#[test]
fn failures_that_pass_are_tried_again_and_a_cut_transfer_goes_on() {
    let Some(world) = world() else { return };
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (whole, count) = (body.clone(), AtomicUsize::new(0));
    let web = Web::start(move |request| {
        let start = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
        match (count.fetch_add(1, Ordering::SeqCst), start) {
            (0, _) => Reply::new(503, "").with("Retry-After", "0"),
            (_, Some(start)) if request.header("if-range") == "\"v\"" => {
                let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
                Reply::new(206, &whole[start..]).with("Content-Range", &range).with("ETag", "\"v\"")
            }
            _ => Reply { cut: Some(2_500_000), ..Reply::new(200, whole.clone()).with("ETag", "\"v\"") },
        }
    });
    let image = world.image(&format!("FROM scratch\nADD {} /f\n", web.url("/f")), &[]);
    assert!(image.tree()["f"].content == body, "the pieces make the file");
    let asked = web.take();
    assert_eq!(asked.len(), 3);
    assert!(!asked[2].header("range").is_empty());
    // What does not pass is not tried again, and a server that is not there is given up soon.
    let web = Web::start(|_| Reply::new(404, ""));
    let failed = world.build(&format!("FROM scratch\nADD {} /f\n", web.url("/f")), &[]).fails();
    failed.says(&["404", "Dockerfile:2", "^^^"]);
    assert_eq!(web.take().len(), 1);
    let started = Instant::now();
    world.build("FROM scratch\nADD http://127.0.0.1:1/f /f\n", &[]).fails().says(&["127.0.0.1:1/f"]);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_dockerfile_is_read_from_a_web_server_with_any_context() {
    let Some(world) = world() else { return };
    let text = Arc::new(Mutex::new("FROM scratch\nCOPY f /one\n".to_owned()));
    let served = text.clone();
    let web = Web::start(move |request| match request.path.as_str() {
        "/D" => Reply::new(200, served.lock().unwrap().clone()),
        _ => Reply::new(404, ""),
    });
    world.write("f", "content").write("Dockerfile", "FROM nothing\n");
    let (url, archive) = (web.url("/D"), world.path("image.oci.tar"));
    let output = format!("type=oci,dest={}", archive.display());
    world.build_as_it_is(&["-f", &url, "-o", &output]).ok();
    assert_eq!(text_at(&Image::oci_archive(&archive).tree(), "one"), "content");
    // It is asked for each time.
    *text.lock().unwrap() = "FROM scratch\nCOPY f /two\nWRONG\n".to_owned();
    world.build_as_it_is(&["-f", &url]).fails().says(&["/D:3", "WRONG"]);
    world.build_as_it_is(&["-f", &url, "--check"]).fails().says(&["WRONG"]);
    *text.lock().unwrap() = "FROM scratch\nCOPY f /two\n".to_owned();
    let mut tar = tar::Builder::new(Vec::new());
    std::fs::write(world.path("other"), "tar").unwrap();
    tar.append_path_with_name(world.path("other"), "f").unwrap();
    world.strake(["build", "-f", &url, "-o", &output, "-"]).stdin(tar.into_inner().unwrap()).ok();
    assert_eq!(text_at(&Image::oci_archive(&archive).tree(), "two"), "tar");
    world.build_as_it_is(&["-f", &web.url("/none")]).fails().says(&["404", "/none"]);
}

#[test]
fn a_named_context_that_nothing_means_is_told() {
    let Some(world) = world() else { return };
    world.write("named/f", "");
    let named = |name: &str| format!("{name}={}", world.context().join("named").display());
    let text =
        "ARG BASE=base\nFROM scratch AS source\nFROM scratch AS unused\nCOPY --from=other f /\nFROM ${BASE}\nCOPY --from=source f /f\n";
    let done = world
        .build(
            text,
            &[
                "--build-context",
                &named("base"),
                "--build-context",
                &named("sourse"),
                "--build-context",
                &named("source"),
                "--build-context",
                &named("other"),
            ],
        )
        .ok();
    done.says(&["`sourse` was not used", "did you mean `source`?"]).omits(&["`base` was", "`source` was", "`other` was"]);
}

#[test]
fn pieces_of_two_versions_of_a_file_are_not_put_together() {
    let Some(world) = world() else { return };
    // The server ignores If-Range, and has another version from the second request on.
    for tags in [["\"one\"", "\"two\"", "\"two\""], ["\"one\"", "", ""]] {
        let count = AtomicUsize::new(0);
        let web = Web::start(move |request| {
            let start = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
            let number = count.fetch_add(1, Ordering::SeqCst);
            let body = vec![if number == 0 { b'1' } else { b'2' }; 3_000_000];
            let reply = match start {
                Some(start) => {
                    Reply::new(206, &body[start..]).with("Content-Range", &format!("bytes {start}-{}/{}", body.len() - 1, body.len()))
                }
                None => Reply { cut: (number == 0).then_some(2_500_000), ..Reply::new(200, body) },
            };
            if tags[number.min(2)].is_empty() { reply } else { reply.with("ETag", tags[number.min(2)]) }
        });
        let image = world.image(&format!("FROM scratch\nADD {} /f\n", web.url("/f")), &[]);
        assert!(image.tree()["f"].content == vec![b'2'; 3_000_000], "{tags:?}");
        assert_eq!(web.take().len(), 3, "{tags:?}");
    }
}

#[test]
fn a_credential_for_a_server_does_not_follow_to_another() {
    let Some(world) = world() else { return };
    let other = Web::start(|_| Reply::new(200, "other"));
    let target = other.url("/f");
    let web = Web::start(move |request| match request.path.as_str() {
        "/away" => Reply::new(302, "").with("Location", &target),
        "/here" => Reply::new(307, "").with("Location", "/f"),
        _ if request.header("authorization") == "Bearer t0k3n" => Reply::new(200, "mine"),
        _ => Reply::new(401, ""),
    });
    std::fs::write(world.path("token"), "t0k3n\n").unwrap();
    let secret = format!("id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", world.path("token").display());
    let text = format!("FROM scratch\nADD {} /here\nADD {} /away\n", web.url("/here"), web.url("/away"));
    world.build(&text, &[]).fails().says(&["401", "HTTP_AUTH_TOKEN"]);
    let tree = world.image(&text, &["--secret", &secret]).tree();
    assert_eq!((text_at(&tree, "here"), text_at(&tree, "away")), ("mine".into(), "other".into()));
    assert!(other.take().iter().all(|request| request.header("authorization").is_empty()));
}

#[test]
fn two_builds_at_once_fetch_a_commit_once() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "app.git"), &[("a", "a")]);
    let web = serve(&world);
    world.write("Dockerfile", format!("FROM scratch\nADD {} /x/\n", web.url("/app.git")));
    world.strake(["images"]).ok();
    let mut builds: Vec<_> = (0..4).map(|_| world.build_as_it_is(&[]).start()).collect();
    assert!(builds.iter_mut().all(|build| build.wait().unwrap().success()));
    assert_eq!(web.fetches(), 1);
}

#[test]
fn interrupting_a_fetch_ends_git_and_leaves_nothing() {
    let Some(world) = world() else { return };
    commit(&repository(&world, "app.git"), &[("a", "a")]);
    let served = world.path("srv");
    let slow = Web::git(&served, None);
    // Answers what is asked first, and then never.
    let backend = slow.port;
    let web = Web::start(move |request| {
        if String::from_utf8_lossy(&request.body).contains("command=fetch") {
            std::thread::sleep(Duration::from_secs(60));
        }
        let url = format!("http://127.0.0.1:{backend}{}?{}", request.path, request.query);
        forward(&url, request)
    });
    world.write("Dockerfile", format!("FROM scratch\nADD {} /x/\n", web.url("/app.git")));
    let mut build = world.build_as_it_is(&[]).start();
    let fetching = || web_git_processes(web.port);
    wait_for("git fetches", 20, || fetching() > 0);
    let started = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(build.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(!build.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    wait_for("git ends", 10, || fetching() == 0);
    let left: Vec<_> = std::fs::read_dir(world.root().join("snapshots")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "0"), "{left:?}");
}

/// How many processes talk to the server on this port.
fn web_git_processes(port: u16) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let needle = format!("git-remote-http\0origin\0http://127.0.0.1:{port}/");
    processes
        .filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle)))
        .count()
}

/// Hands a request on to another server of this machine.
fn forward(url: &str, request: &Request) -> Reply {
    use std::io::{Read, Write};
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let mut head = format!("{} /{path} HTTP/1.1\r\nContent-Length: {}\r\n", request.method, request.body.len());
    for name in ["content-type", "git-protocol", "content-encoding"] {
        if !request.header(name).is_empty() {
            head.push_str(&format!("{name}: {}\r\n", request.header(name)));
        }
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(&request.body).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut reply = Reply::new(200, &answer[end + 4..]);
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| *name != "Content-Length") {
            reply = reply.with(name, value);
        }
    }
    reply
}

//! Each case builds a base and a source, copies, mounts base and new layer as the kernel would for a RUN, and looks at that.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::graph::FileMode;
use crate::image::layer::{LayerOptions, diff_id_only};
use crate::path::RootPath;
use crate::store::view::fixture::{Overlay, can_mount, listing, plant};
use crate::store::view::{Marks, MergedView};

/// A base, a source, and an empty layer.
pub(super) struct Bench {
    directory: tempfile::TempDir,
    base: Vec<PathBuf>,
}

impl Bench {
    /// `base` is one text for each layer, topmost first.
    pub(super) fn new(base: &[&str], source: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        plant(&directory.path().join("source"), source);
        fs::create_dir(directory.path().join("upper")).unwrap();
        let make = |(index, text): (usize, &&str)| {
            let layer = directory.path().join(format!("base{index}"));
            plant(&layer, text);
            layer
        };
        let base = base.iter().enumerate().map(make).collect();
        Bench { directory, base }
    }

    pub(super) fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.directory.path().join("upper")
    }

    pub(super) fn view(&self) -> MergedView {
        MergedView::new(self.base.clone(), Marks::Trusted).unwrap()
    }

    pub(super) fn run(&self, instruction: &str) -> Result<Copied, Error> {
        Ok(Copied { layer: None, ..self.run_telling(instruction, None)? })
    }

    /// The same with what is said of the layer meanwhile, which has to be what is read from it.
    pub(super) fn run_telling(&self, instruction: &str, sharing: Option<&Sharing<'_>>) -> Result<Copied, Error> {
        let options = LayerOptions::default();
        let copied = copy_with(&self.view(), &self.upper(), &self.request(instruction), Aids { sharing, diff: Some(&options) })?;
        if let Some(layer) = &copied.layer {
            assert_eq!(diff_id_only(&self.upper(), &self.base.clone().into(), &options).as_ref().ok(), Some(layer), "{instruction}");
        }
        Ok(copied)
    }

    /// Reads an instruction; only as much of the language as the cases need.
    pub(super) fn request(&self, instruction: &str) -> CopyRequest {
        let mut words: Vec<&str> = instruction.split_whitespace().collect();
        let unpack = if words.remove(0) == "ADD" { Unpack::Sniff } else { Unpack::Never };
        let mut request = CopyRequest {
            sources: Vec::new(),
            destination: words.pop().unwrap().replace("\"\"", ""),
            workdir: RootPath::new("/here"),
            chown: None,
            chmod: None,
            parents: false,
            with_way: false,
            exclude: Vec::new(),
            link: false,
            unpack,
            max_unpacked: None,
            created_time: None,
        };
        let tree: Arc<dyn crate::sys::tree::Tree> = Arc::new(MergedView::new(vec![self.source()], Marks::Trusted).unwrap());
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("--chown", owner) => {
                    let (uid, gid) = owner.split_once(':').unwrap();
                    request.chown = Some(Owner { uid: uid.parse().unwrap(), gid: gid.parse().unwrap() });
                }
                ("--chmod", mode) => request.chmod = Some(FileMode::parse(mode).unwrap()),
                ("--parents", _) => request.parents = true,
                ("--link", _) => request.link = true,
                ("--unpack", value) => request.unpack = if value == "false" { Unpack::Never } else { Unpack::Always },
                ("--exclude", pattern) => request.exclude.push(pattern.to_owned()),
                ("<<", _) => unreachable!(),
                (word, _) if word.starts_with("<<") => {
                    let name = word.trim_start_matches('<').to_owned();
                    request.sources.push(CopySource::File { name, content: b"here".to_vec(), mode: 0o644 });
                }
                _ => request.sources.push(CopySource::Tree { tree: Arc::clone(&tree), pattern: word.to_owned() }),
            }
        }
        request
    }

    fn overlay(&self) -> Overlay {
        let layers: Vec<PathBuf> = std::iter::once(self.upper()).chain(self.base.iter().cloned()).collect();
        Overlay::mount(&layers)
    }

    /// What the next step sees.
    pub(super) fn merged(&self) -> Vec<String> {
        listing(&self.overlay().root())
    }
}

/// Runs an instruction and compares all of what there is then.
#[track_caller]
fn case(base: &[&str], source: &str, instruction: &str, expected: &[&str]) {
    let bench = Bench::new(base, source);
    if let Err(error) = bench.run(instruction) {
        panic!("{instruction}: {error:?}");
    }
    assert_eq!(bench.merged(), expected, "{instruction}");
}

#[track_caller]
fn fails(base: &[&str], source: &str, instruction: &str, expected: &str) {
    match Bench::new(base, source).run(instruction) {
        Ok(copied) => panic!("{instruction}: {copied:?}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{instruction}"),
    }
}

macro_rules! needs_root {
    ($name:literal) => {
        if !can_mount($name) {
            return;
        }
    };
}

const TREE: &str = "d 0700 dir\nf 0640 dir/a A\nd 0711 dir/sub\nf 0600 dir/sub/b B\nu 7:8 dir/sub/b\nu 5:6 dir/sub";

#[test]
fn a_directory_gives_its_contents_to_a_destination_that_is_made() {
    needs_root!("a_directory_gives_its_contents_to_a_destination_that_is_made");
    let made = ["d 0755 0:0 /x", "d 0755 0:0 /x/y", "f 0640 0:0 /x/y/a A", "d 0711 5:6 /x/y/sub", "f 0600 7:8 /x/y/sub/b B"];
    for destination in ["/x/y", "/x/y/", "../x/y", "/x/./y/."] {
        case(&[], TREE, &format!("COPY dir {destination}"), &made);
    }
    case(&[], TREE, "COPY dir/ /x/y", &made);
    let owned = ["d 0750 1:2 /x", "d 0750 1:2 /x/y", "f 0750 1:2 /x/y/a A", "d 0750 1:2 /x/y/sub", "f 0750 1:2 /x/y/sub/b B"];
    case(&[], TREE, "COPY --chown=1:2 --chmod=750 dir /x/y", &owned);
}

#[test]
fn an_existing_destination_keeps_its_attributes_and_directories_in_it_do_not() {
    needs_root!("an_existing_destination_keeps_its_attributes_and_directories_in_it_do_not");
    let base = "d 1777 x\nu 3:4 x\nd 0500 x/sub\nf 0644 x/sub/old O\nf 0644 x/a old";
    let expected = ["d 1777 3:4 /x", "f 0640 0:0 /x/a A", "d 0711 5:6 /x/sub", "f 0600 7:8 /x/sub/b B", "f 0644 0:0 /x/sub/old O"];
    case(&[base], TREE, "COPY dir /x", &expected);
    case(&["", base], TREE, "COPY dir /x/", &expected);
    case(&["f 0644 x/sub/old O\nu 3:4 x\nm 1777 x\nm 0500 x/sub", "f 0644 x/a old"], TREE, "COPY dir /x", &expected);
}

#[test]
fn a_slash_tells_a_directory_from_a_file() {
    needs_root!("a_slash_tells_a_directory_from_a_file");
    let source = "f 0644 f F";
    case(&["d 0700 x"], source, "COPY f /x", &["d 0700 0:0 /x", "f 0644 0:0 /x/f F"]);
    case(&[], source, "COPY f /x", &["f 0644 0:0 /x F"]);
    case(&[], source, "COPY f /x/", &["d 0755 0:0 /x", "f 0644 0:0 /x/f F"]);
    case(&[], source, "COPY f /x/y", &["d 0755 0:0 /x", "f 0644 0:0 /x/y F"]);
    case(&["f 0600 x old"], source, "COPY f /x", &["f 0644 0:0 /x F"]);
    for here in [".", "./", "\"\"", "/here/", "/here/."] {
        case(&[], source, &format!("COPY f {here}"), &["d 0755 0:0 /here", "f 0644 0:0 /here/f F"]);
    }
    case(&[], source, "COPY f ..", &["f 0644 0:0 /f F"]);
    case(&[], source, "COPY f /", &["f 0644 0:0 /f F"]);
}

#[test]
fn many_sources_onto_one_name_leave_the_last_with_a_warning() {
    needs_root!("many_sources_onto_one_name_leave_the_last_with_a_warning");
    let bench = Bench::new(&[], "f 0644 a A\nf 0644 b B");
    let copied = bench.run("COPY a b /d").unwrap();
    assert_eq!(bench.merged(), ["f 0644 0:0 /d B"]);
    assert_eq!(copied.warnings.len(), 1);
    let bench = Bench::new(&["d 0755 d"], "f 0644 a A\nf 0644 b B");
    assert_eq!(bench.run("COPY a b /d").unwrap(), Copied { entries: 2, bytes: 2, warnings: vec![], changed: None, layer: None });
    assert_eq!(bench.merged(), ["d 0755 0:0 /d", "f 0644 0:0 /d/a A", "f 0644 0:0 /d/b B"]);
    // The first makes the directory that the second goes into.
    case(&[], "f 0644 a/x X\nf 0644 b B", "COPY a b /d", &["d 0755 0:0 /d", "f 0644 0:0 /d/b B", "f 0644 0:0 /d/x X"]);
}

#[test]
fn a_missing_source_is_an_error_and_a_wildcard_without_match_is_not() {
    needs_root!("a_missing_source_is_an_error_and_a_wildcard_without_match_is_not");
    fails(&[], "f 0644 main.rs M", "COPY mian.rs /", "`/mian.rs` was not found");
    let error = Bench::new(&[], "f 0644 main.rs M").run("COPY mian.rs /").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("there is `main.rs`"));
    fails(&[], "l gone nowhere", "COPY gone /", "`/nowhere` was not found");
    case(&[], "f 0644 foo F", "COPY foo nomatch* /", &["f 0644 0:0 /foo F"]);
    case(&[], "f 0644 foo F", "COPY nomatch* /x/", &[]);
}

#[test]
fn wildcards_match_names_and_matched_directories_merge() {
    needs_root!("wildcards_match_names_and_matched_directories_merge");
    let source = "f 0644 a1/x X\nf 0644 a2/y Y\nf 0644 a3 3\nf 0644 b/a4 4\nf 0644 [a] bracket";
    let expected = ["d 0755 0:0 /d", "f 0644 0:0 /d/a3 3", "f 0644 0:0 /d/x X", "f 0644 0:0 /d/y Y"];
    case(&[], source, "COPY a* /d/", &expected);
    case(
        &[],
        source,
        "COPY ** /d/",
        &[
            "d 0755 0:0 /d",
            "f 0644 0:0 /d/[a] bracket",
            "f 0644 0:0 /d/a3 3",
            "f 0644 0:0 /d/a4 4",
            "f 0644 0:0 /d/x X",
            "f 0644 0:0 /d/y Y",
        ],
    );
    case(&[], source, "COPY */a4 /d/", &["d 0755 0:0 /d", "f 0644 0:0 /d/a4 4"]);
    case(&[], source, "COPY [[]a] /d/", &["d 0755 0:0 /d", "f 0644 0:0 /d/[a] bracket"]);
}

#[test]
fn a_source_that_is_a_link_is_followed_and_links_in_a_directory_are_kept() {
    needs_root!("a_source_that_is_a_link_is_followed_and_links_in_a_directory_are_kept");
    let source = "f 0600 real/f F\nl abs /real/f\nl out ../../../real/f\nl dir real\nl real/dangling /no/where\nl real/self ../real";
    case(&[], source, "COPY abs out /d/", &["d 0755 0:0 /d", "f 0600 0:0 /d/abs F", "f 0600 0:0 /d/out F"]);
    let expected = ["d 0755 0:0 /d", "l 0:0 /d/dangling /no/where", "f 0600 0:0 /d/f F", "l 0:0 /d/self ../real"];
    case(&[], source, "COPY dir /d", &expected);
    case(&[], source, "COPY di* /d", &expected);
    case(&[], source, "COPY dir/f /d/", &["d 0755 0:0 /d", "f 0600 0:0 /d/f F"]);
}

#[test]
fn links_of_the_destination_are_followed_inside_the_root_file_system() {
    needs_root!("links_of_the_destination_are_followed_inside_the_root_file_system");
    let base = "d 0755 real\nl abs /real\nl up ../../real\nl dangling /fresh";
    let links = ["l 0:0 /abs /real", "l 0:0 /dangling /fresh"];
    for destination in ["/abs", "/abs/", "/abs/f", "/up/", "/up"] {
        let expected = [&links[..], &["d 0755 0:0 /real", "f 0644 0:0 /real/f F", "l 0:0 /up ../../real"]].concat();
        case(&[base], "f 0644 f F", &format!("COPY f {destination}"), &expected);
    }
    let expected = [&links[..], &["f 0644 0:0 /fresh F", "d 0755 0:0 /real", "l 0:0 /up ../../real"]].concat();
    case(&[base], "f 0644 f F", "COPY f /dangling", &expected);
    let expected = [&links[..], &["d 0755 0:0 /fresh", "f 0644 0:0 /fresh/f F", "d 0755 0:0 /real", "l 0:0 /up ../../real"]].concat();
    case(&[base], "f 0644 f F", "COPY f /dangling/", &expected);
}

#[test]
fn kinds_that_do_not_fit_are_errors_and_links_are_replaced_by_files() {
    needs_root!("kinds_that_do_not_fit_are_errors_and_links_are_replaced_by_files");
    let source = "f 0644 s/x/f F\nf 0644 file F\nl links/x here";
    for base in ["d 0755 d\nl d/x /d", "f 0644 d/x file"] {
        fails(&[base], source, "COPY s /d", "cannot make the directory `/d/x`: something else is there");
    }
    fails(&["f 0644 d file"], source, "COPY s /d", "cannot make the directory `/d`: something else is there");
    fails(&["f 0644 d/x/y 1"], "f 0644 s/x F", "COPY s /d", "cannot replace the directory `/d/x` by a file");
    fails(&["d 0755 d/x"], source, "COPY links /d", "cannot replace the directory `/d/x` by a file");
    fails(&["d 0755 d/file"], source, "COPY file /d/", "cannot replace the directory `/d/file` by a file");
    let expected = ["d 0755 0:0 /d", "f 0644 0:0 /d/file F", "d 0755 0:0 /other"];
    case(&["d 0755 other\nd 0755 d\nl d/file /other"], source, "COPY file /d/", &expected);
}

#[test]
fn sources_cannot_leave_their_tree() {
    needs_root!("sources_cannot_leave_their_tree");
    for source in ["../../f", "/f", "./f", "d/../f", "f/"] {
        case(&[], "f 0644 f F\nd 0755 d", &format!("COPY {source} /x"), &["f 0644 0:0 /x F"]);
    }
}

#[test]
fn hard_links_pipes_and_devices_survive_and_sockets_become_empty_files() {
    needs_root!("hard_links_pipes_and_devices_survive_and_sockets_become_empty_files");
    let bench = Bench::new(&[], "f 0640 s/a A\nh s/sub/b s/a\np 0610 s/pipe\nc 0666 s/null 1 3\nu 1:2 s/a");
    drop(std::os::unix::net::UnixListener::bind(bench.source().join("s/socket")).unwrap());
    std::fs::set_permissions(bench.source().join("s/socket"), std::fs::Permissions::from_mode(0o710)).unwrap();
    bench.run("COPY s /d").unwrap();
    let expected = [
        "d 0755 0:0 /d",
        "f 0640 1:2 /d/a A",
        "c 0666 0:0 /d/null 1 3",
        "p 0610 0:0 /d/pipe",
        "f 0710 0:0 /d/socket",
        "d 0755 0:0 /d/sub",
        "h /d/sub/b /d/a",
    ];
    assert_eq!(bench.merged(), expected);
}

#[test]
fn set_user_id_survives_a_change_of_owner_and_capabilities_too() {
    needs_root!("set_user_id_survives_a_change_of_owner_and_capabilities_too");
    let bench = Bench::new(&[], "f 4755 s/su S\nf 2755 s/sg S\nd 1777 s/tmp\nf 0755 s/ping P\nx user.note=n s/ping");
    // VFS_CAP_REVISION_2, effective: CAP_NET_RAW.
    let capability = [1_u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(bench.source().join("s/ping"), "security.capability", &capability, flags).unwrap();
    bench.run("COPY --chown=9:9 s /d").unwrap();
    let expected = ["d 0755 9:9 /d", "f 0755 9:9 /d/ping P", "f 2755 9:9 /d/sg S", "f 4755 9:9 /d/su S", "d 1777 9:9 /d/tmp"];
    assert_eq!(bench.merged(), expected);
    let mut value = [0; 64];
    let overlay = bench.overlay();
    let length = rustix::fs::getxattr(overlay.root().join("d/ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length], capability);
    assert_eq!(rustix::fs::getxattr(overlay.root().join("d/ping"), "user.note", &mut value[..]).unwrap(), 1);
}

#[test]
fn a_directory_that_is_there_keeps_attributes_that_the_source_does_not_have() {
    needs_root!("a_directory_that_is_there_keeps_attributes_that_the_source_does_not_have");
    let base = "d 0755 d\nx user.kept=k d\nx user.both=b d";
    let bench = Bench::new(&[base], "f 0644 s/d/f F\nx user.both=s s/d\nx user.more=m s/d");
    bench.run("COPY s /").unwrap();
    let value = |name: &str| {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(bench.upper().join("d"), name, &mut value[..]).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(["user.kept", "user.both", "user.more"].map(value), [b"k".to_vec(), b"s".to_vec(), b"m".to_vec()]);
}

#[test]
fn chmod_rules_see_what_they_change() {
    needs_root!("chmod_rules_see_what_they_change");
    let source = "f 0750 s/a A\nf 0600 s/b B\nd 0600 s/sub\nl s/z a";
    let expected = ["d 0755 0:0 /d", "f 0755 0:0 /d/a A", "f 0644 0:0 /d/b B", "d 0655 0:0 /d/sub", "l 0:0 /d/z a"];
    case(&[], source, "COPY --chmod=go=rX s /d", &expected);
}

#[test]
fn directories_made_for_the_destination_get_the_number_of_chmod_without_special_bits_and_no_symbols() {
    needs_root!("directories_made_for_the_destination_get_the_number_of_chmod_without_special_bits_and_no_symbols");
    case(&[], "f 0644 f F", "COPY --chmod=4711 f /x/y/f", &["d 0711 0:0 /x", "d 0711 0:0 /x/y", "f 4711 0:0 /x/y/f F"]);
    case(&[], "f 0644 f F", "COPY --chmod=go= f /x/y/", &["d 0755 0:0 /x", "d 0755 0:0 /x/y", "f 0600 0:0 /x/y/f F"]);
}

#[test]
fn link_takes_the_base_for_empty() {
    needs_root!("link_takes_the_base_for_empty");
    let bench = Bench::new(&["d 1777 tmp\nu 3:4 tmp\nl l /tmp"], "f 0644 f F");
    bench.run("COPY --link f /tmp/x/").unwrap();
    assert_eq!(listing(&bench.upper()), ["d 0755 0:0 /tmp", "d 0755 0:0 /tmp/x", "f 0644 0:0 /tmp/x/f F"]);
    let bench = Bench::new(&["d 1777 tmp\nl l /tmp"], "f 0644 f F");
    bench.run("COPY --link f /l/").unwrap();
    assert_eq!(listing(&bench.upper()), ["d 0755 0:0 /l", "f 0644 0:0 /l/f F"]);
}

#[test]
fn parents_keep_the_path_below_the_pivot() {
    needs_root!("parents_keep_the_path_below_the_pivot");
    let source = "d 0711 x\nu 1:2 x\nf 0644 x/y/a.txt A\nf 0644 x/b.md B\nf 0644 x/y/z/c.txt C\nf 0644 w/d.txt D";
    let under_x = |names: &[&'static str]| [&["d 0755 0:0 /p", "d 0711 1:2 /p/x"][..], names].concat();
    case(&[], source, "COPY --parents ./x/b.md /p", &under_x(&["f 0644 0:0 /p/x/b.md B"]));
    case(&[], source, "COPY --parents ./x/./y/a.txt /p", &["d 0755 0:0 /p", "d 0755 0:0 /p/y", "f 0644 0:0 /p/y/a.txt A"]);
    let all = under_x(&["d 0755 0:0 /p/x/y", "f 0644 0:0 /p/x/y/a.txt A", "d 0755 0:0 /p/x/y/z", "f 0644 0:0 /p/x/y/z/c.txt C"]);
    case(&[], source, "COPY --parents x/**/*.txt /p", &all);
    case(&[], source, "COPY --parents x/y /p", &all);
    case(&["d 0700 p/x"], source, "COPY --parents x/b.md /p", &["d 0755 0:0 /p", "d 0711 0:0 /p/x", "f 0644 0:0 /p/x/b.md B"]);
    fails(&[], source, "COPY --parents x/none /p", "`/x/none` was not found");
    fails(&[], source, "COPY nodir/*.txt /p/", "`/nodir` was not found");
    fails(&[], source, "COPY w x/nodir/*/a* /p/", "`/x/nodir` was not found");
    case(&[], source, "COPY w/none* /p/", &[]);
    case(&[], source, "COPY --parents none/*.txt w/* /p", &["d 0755 0:0 /p", "d 0755 0:0 /p/w", "f 0644 0:0 /p/w/d.txt D"]);
    // The destination is made, also where wildcards match nothing (BuildKit: testCopyParentsMissingDirectory).
    case(&[], source, "COPY --parents x/none* /p", &["d 0755 0:0 /p"]);
    case(&[], source, "COPY --parents ./x/./none*/c /p/", &["d 0755 0:0 /p"]);
}

#[test]
fn exclude_works_relative_to_what_is_copied() {
    needs_root!("exclude_works_relative_to_what_is_copied");
    let source = "f 0644 s/a.md A\nf 0644 s/b.txt B\nf 0644 s/sub/c.md C\nf 0644 s/sub/keep.md K\nf 0644 t.md T";
    let expected =
        ["d 0755 0:0 /d", "f 0644 0:0 /d/b.txt B", "d 0755 0:0 /d/sub", "f 0644 0:0 /d/sub/c.md C", "f 0644 0:0 /d/sub/keep.md K"];
    case(&[], source, "COPY --exclude=*.md s /d", &expected);
    let expected = ["d 0755 0:0 /d", "f 0644 0:0 /d/b.txt B", "d 0755 0:0 /d/sub", "f 0644 0:0 /d/sub/keep.md K"];
    case(&[], source, "COPY --exclude=**/*.md --exclude=!**/keep.md s /d", &expected);
    case(&[], source, "COPY --exclude=sub --exclude=*.md --exclude=!sub/keep.md s /d", &expected);
    // What a source names itself is copied, as in BuildKit, whose documents say otherwise; so it is told.
    let expected = ["d 0755 0:0 /d", "f 0644 0:0 /d/b.txt B", "f 0644 0:0 /d/t.md T"];
    case(&[], source, "COPY --exclude=sub --exclude=*.md s t.md /d/", &expected);
    let warnings = |instruction| Bench::new(&[], source).run(instruction).unwrap().warnings;
    assert_eq!(warnings("COPY --exclude=*.txt s t.md /d/"), [""; 0]);
    let [warning] = &warnings("COPY --exclude=*.md s *.md /d/")[..] else { panic!() };
    assert!(warning.contains("`t.md`, which a source names itself, was copied all the same"), "{warning}");
    let [warning] = &warnings("COPY --exclude=** t.md s/*.* /d/")[..] else { panic!() };
    assert!(warning.contains("`t.md` (and 2 more), which"), "{warning}");
    case(
        &[],
        source,
        "COPY --parents --exclude=s/sub s /d",
        &["d 0755 0:0 /d", "d 0755 0:0 /d/s", "f 0644 0:0 /d/s/a.md A", "f 0644 0:0 /d/s/b.txt B"],
    );
}

#[test]
fn here_documents_are_named_by_their_delimiter_in_a_directory() {
    needs_root!("here_documents_are_named_by_their_delimiter_in_a_directory");
    case(&[], "", "COPY <<robots.txt <<b /x/", &["d 0755 0:0 /x", "f 0644 0:0 /x/b here", "f 0644 0:0 /x/robots.txt here"]);
    case(&[], "", "COPY --chmod=755 --chown=1:2 <<EOF /run.sh", &["f 0755 1:2 /run.sh here"]);
}

#[test]
fn times_are_kept_and_directories_change_only_when_they_get_an_entry() {
    needs_root!("times_are_kept_and_directories_change_only_when_they_get_an_entry");
    let base = "f 0644 a/b/old O\nt 1000 a/b/old\nt 2000 a/b\nt 3000 a\nt 4000 .";
    let bench = Bench::new(&[base], "f 0644 s/f F\nl s/l f\nt 5000 s/f\nt 6000 s/l\nt 7000 s");
    bench.run("COPY s/f s/l /a/b").unwrap();
    let overlay = bench.overlay();
    let time = |path: &str| {
        let metadata = fs::symlink_metadata(overlay.root().join(path)).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!((time("."), time("a"), time("a/b/old")), ((4000, 123), (3000, 123), (1000, 123)));
    // The link is followed, for a source names it.
    assert_eq!((time("a/b/f"), time("a/b/l")), ((5000, 123), (5000, 123)));
    assert!(time("a/b").0 > 1_000_000, "a directory with a new entry was changed just now");

    // A directory that gets the contents of another gets its time with them, as in BuildKit.
    for destination in ["a/b", "new/d"] {
        let bench = Bench::new(&[base], "f 0644 s/f F\nl s/l f\nt 5000 s/f\nt 6000 s/l\nt 7000 s");
        bench.run(&format!("COPY s /{destination}")).unwrap();
        let time = |path: &str| fs::symlink_metadata(bench.upper().join(path)).unwrap().mtime();
        assert_eq!((time(destination), time(&format!("{destination}/f")), time(&format!("{destination}/l"))), (7000, 5000, 6000));
        assert!(destination == "a/b" || time("new") > 1_000_000);
    }
    let bench = Bench::new(&[base], "f 0644 s/f F\nf 0644 g G\nt 7000 s");
    bench.run("COPY g s /a/b/").unwrap();
    assert_eq!(fs::metadata(bench.upper().join("a/b")).unwrap().mtime(), 7000);
    bench.run("COPY s g /a/b/").unwrap();
    assert!(fs::metadata(bench.upper().join("a/b")).unwrap().mtime() > 7000);

    let bench = Bench::new(&[], "f 0644 s/d/f F\nt 5000 s/d");
    let mut request = bench.request("COPY s /x/y");
    request.created_time = Some((77, 5));
    copy(&bench.view(), &bench.upper(), &request).unwrap();
    let time = |path: &str| fs::symlink_metadata(bench.upper().join(path)).unwrap().mtime();
    assert_eq!((time("x"), time("x/y"), time("x/y/d")), (77, 77, 5000));
}

#[test]
fn parents_of_the_destination_are_copied_up_as_they_are() {
    needs_root!("parents_of_the_destination_are_copied_up_as_they_are");
    let base = "f 0644 a/b/x X\nm 2750 a\nu 3:4 a\nm 2770 a/b\nu 5:6 a/b\nx user.note=n a/b";
    let bench = Bench::new(&[base], "f 0644 f F\nd 0755 d");
    // What is made on the way inherits the group of a set-group-ID parent, as in BuildKit, and what is copied does not.
    bench.run("COPY f d /a/b/new/").unwrap();
    assert_eq!(listing(&bench.upper()), ["d 2750 3:4 /a", "d 2770 5:6 /a/b", "d 2755 0:6 /a/b/new", "f 0644 0:0 /a/b/new/f F"]);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(bench.upper().join("a/b"), "user.note", &mut value[..]).unwrap(), 1);
}

#[test]
fn a_new_directory_over_something_deleted_starts_empty() {
    needs_root!("a_new_directory_over_something_deleted_starts_empty");
    case(&["w d", "f 0644 d/old O"], "f 0644 s/f F", "COPY s /d", &["d 0755 0:0 /d", "f 0644 0:0 /d/f F"]);
    case(&["d 0711 d\no d", "f 0644 d/old O"], "f 0644 s/f F", "COPY s /d", &["d 0711 0:0 /d", "f 0644 0:0 /d/f F"]);
    // Deleted below, there again above, and now with more in it.
    let base = ["f 0644 d/new N", "w d", "f 0644 d/old O"];
    case(&base, "f 0644 s/f F", "COPY s /d", &["d 0755 0:0 /d", "f 0644 0:0 /d/f F", "f 0644 0:0 /d/new N"]);
}

#[test]
fn zero_zero_devices_of_a_source_do_not_delete() {
    needs_root!("zero_zero_devices_of_a_source_do_not_delete");
    struct Raw(PathBuf);
    impl crate::sys::tree::Tree for Raw {
        fn metadata(&self, path: &RootPath) -> std::io::Result<Option<crate::sys::tree::Metadata>> {
            match rustix::fs::statat(rustix::fs::CWD, self.0.join(path.relative()), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => crate::sys::inode::metadata(&stat).map(Some),
                Err(_) => Ok(None),
            }
        }
        fn read_dir(&self, path: &RootPath) -> std::io::Result<Vec<crate::sys::tree::DirEntry>> {
            let mut names: Vec<_> = fs::read_dir(self.0.join(path.relative()))?.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            let kind = |name: &std::ffi::OsString| self.metadata(&path.join(name)).unwrap().unwrap().kind;
            Ok(names.into_iter().map(|name| crate::sys::tree::DirEntry { kind: kind(&name), name }).collect())
        }
        fn read_link(&self, _: &RootPath) -> std::io::Result<std::ffi::OsString> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
        fn open(&self, path: &RootPath) -> std::io::Result<fs::File> {
            fs::File::open(self.0.join(path.relative()))
        }
        fn xattrs(&self, _: &RootPath) -> std::io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
            Ok(Vec::new())
        }
    }
    let bench = Bench::new(&["f 0644 d/keep K"], "w s/keep\nf 0644 s/f F");
    let mut request = bench.request("COPY /d");
    request.sources.push(CopySource::Tree { tree: Arc::new(Raw(bench.source())), pattern: "s".to_owned() });
    let copied = copy(&bench.view(), &bench.upper(), &request).unwrap();
    assert_eq!(copied.warnings, ["`/s/keep` is left out: such a device cannot be made"]);
    assert_eq!(bench.merged(), ["d 0755 0:0 /d", "f 0644 0:0 /d/f F", "f 0644 0:0 /d/keep K"]);
}

#[test]
fn holes_stay_holes() {
    needs_root!("holes_stay_holes");
    let bench = Bench::new(&[], "f 0644 s/x X");
    let file = fs::File::create(bench.source().join("s/sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 32 << 20).unwrap();
    assert_eq!(bench.run("COPY s /d").unwrap().bytes, (64 << 20) + 1);
    let copied = bench.upper().join("d/sparse");
    let metadata = fs::metadata(&copied).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    assert!(fs::read(copied).unwrap() == fs::read(bench.source().join("s/sparse")).unwrap());
}

#[test]
fn a_large_tree_is_copied_whole_by_several_threads() {
    needs_root!("a_large_tree_is_copied_whole_by_several_threads");
    let bench = Bench::new(&[], "f 0644 s/first F");
    for directory in 0..40 {
        let path = bench.source().join(format!("s/{directory}/in"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..40 {
            fs::write(path.join(file.to_string()), format!("{directory} {file}")).unwrap();
        }
        fs::hard_link(path.join("0"), path.join("linked")).unwrap();
    }
    for file in 0..2000 {
        fs::write(bench.source().join(format!("s/flat{file}")), file.to_string()).unwrap();
    }
    let copied = bench.run("COPY s /").unwrap();
    assert_eq!(copied.entries, 40 * (2 + 41) + 2001);
    assert_eq!(bench.merged(), listing(&bench.source().join("s")));
    assert_eq!(open_descriptors_below(bench.directory.path()), 0);
}

fn open_descriptors_below(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|target| target.starts_with(path)).count()
}

#[test]
fn selection_is_what_is_copied() {
    let bench = Bench::new(&[], "f 0644 a/x X\nf 0644 a/y Y\nl l a/x");
    let tree = MergedView::new(vec![bench.source()], Marks::Trusted).unwrap();
    let roots = |pattern, parents| -> Vec<(String, String)> {
        let found = select(&tree, pattern, Naming::of(parents, false)).unwrap();
        found.into_iter().map(|root| (root.path.to_string(), root.name.to_string_lossy().into_owned())).collect()
    };
    let pair = |path: &str, name: &str| (path.to_owned(), name.to_owned());
    assert_eq!(roots("l", false), [pair("/a/x", "l")]);
    assert_eq!(roots("a/*", false), [pair("/a/x", "x"), pair("/a/y", "y")]);
    assert_eq!(roots("a/x", true), [pair("/a/x", "a/x")]);
    assert_eq!(roots("a/./x", true), [pair("/a/x", "x")]);
    assert_eq!(roots("**", true), [pair("/a", "a"), pair("/l", "l")]);
    assert_eq!(roots(".", false), [pair("/", "")]);
    // `a!b` sorts between `a` and `a/x` as bytes, and is not between them.
    std::fs::create_dir(bench.source().join("a!b")).unwrap();
    std::fs::write(bench.source().join("a!b/x"), "").unwrap();
    assert_eq!(roots("**/**", true), [pair("/a", "a"), pair("/a!b", "a!b"), pair("/l", "l")]);
}

#[test]
fn directories_are_made_only_where_missing() {
    needs_root!("directories_are_made_only_where_missing");
    let base = &["d 0700 app\nu 3:4 app\nl link /app\nf 0644 file F"];
    let owner = Some(Owner { uid: 1, gid: 2 });
    let bench = Bench::new(base, "");
    let make = |path: &str| make_dir(&bench.view(), &bench.upper(), &RootPath::new(path), owner, 0o755, None);
    assert!(!make("/app").unwrap() && !make("/link").unwrap() && !make("/").unwrap());
    assert_eq!(fs::read_dir(bench.upper()).unwrap().count(), 0);
    assert!(make("/link/x/y").unwrap());
    let expected = ["d 0700 3:4 /app", "d 0755 1:2 /app/x", "d 0755 1:2 /app/x/y", "f 0644 0:0 /file F", "l 0:0 /link /app"];
    assert_eq!(bench.merged(), expected);
    assert_eq!(make("/file").unwrap_err().to_string(), "cannot make the directory `/file`: something else is there");
}

#[test]
fn files_of_this_machine_are_added_with_the_given_attributes() {
    needs_root!("files_of_this_machine_are_added_with_the_given_attributes");
    let bench = Bench::new(&[], "f 0777 download D");
    let mut request = bench.request("ADD /x/");
    let path = bench.source().join("download");
    request.sources.push(CopySource::HostFile { path, name: "tool".to_owned(), mode: 0o600, uid: 0, gid: 0, mtime: Some((9, 0)) });
    copy(&bench.view(), &bench.upper(), &request).unwrap();
    assert_eq!(bench.merged(), ["d 0755 0:0 /x", "f 0600 0:0 /x/tool D"]);
    assert_eq!(fs::metadata(bench.upper().join("x/tool")).unwrap().mtime(), 9);
}

/// How long `cp -a` takes for the source.
fn cp(bench: &Bench) -> std::time::Duration {
    let target = bench.directory.path().join("cp");
    let start = std::time::Instant::now();
    assert!(std::process::Command::new("cp").arg("-a").arg(bench.source().join("s")).arg(&target).status().unwrap().success());
    let took = start.elapsed();
    fs::remove_dir_all(target).unwrap();
    took
}

/// How long COPY takes for the source.
fn ours(bench: &Bench) -> std::time::Duration {
    fs::remove_dir_all(bench.upper()).unwrap();
    fs::create_dir(bench.upper()).unwrap();
    let start = std::time::Instant::now();
    bench.run("COPY s /app").unwrap();
    start.elapsed()
}

/// Not a test: run it with `--ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_small_files() {
    let bench = Bench::new(&["d 0755 app"], "d 0755 s");
    for directory in 0..200 {
        let path = bench.source().join(format!("s/{directory}"));
        fs::create_dir(&path).unwrap();
        for file in 0..50 {
            fs::write(path.join(file.to_string()), vec![b'x'; 500 + file * 200]).unwrap();
        }
    }
    for _ in 0..5 {
        eprintln!("10,000 small files: {:?}, cp -a {:?}", ours(&bench), cp(&bench));
    }
}

/// Not a test: run it with `--ignored --nocapture`.
#[test]
#[ignore = "measures, and writes gigabytes"]
fn measure_a_large_file() {
    let bench = Bench::new(&[], "d 0755 s");
    fs::write(bench.source().join("s/large"), vec![b'x'; 1 << 30]).unwrap();
    for _ in 0..2 {
        eprintln!("1 GiB: {:?}, cp -a {:?}", ours(&bench), cp(&bench));
    }
}

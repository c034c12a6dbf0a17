//! Other programs' streams unpacked here, and ours read by other programs.

use std::process::{Command, Output};

use super::*;

/// Runs a program; `None`, with a reason, where it is not installed.
fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: cannot run {program}: {error}");
            None
        }
    }
}

/// A filled tree without what only overlayfs knows.
fn plain_tree(temp: &Path) -> PathBuf {
    let tree = temp.join("tree");
    std::fs::create_dir(&tree).unwrap();
    fill(&tree);
    std::fs::remove_file(tree.join("deep/gone")).unwrap();
    rustix::fs::lremovexattr(tree.join("opaque"), "trusted.overlay.opaque").unwrap();
    set_time(&tree.join("deep"), 1_234_567_890, 0);
    // Sparse, with data in the middle.
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 5_000_000).unwrap();
    sparse.set_len(9_000_000).unwrap();
    set_time(&tree.join("sparse"), 1_234_567_890, 0);
    tree
}

#[test]
fn gnu_tar_in_every_format_is_unpacked_as_it_was() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = plain_tree(temp.path());
    for format in ["gnu", "pax", "oldgnu"] {
        for sparse in [&[][..], &["-S"], &["-S", "--sparse-version=0.0"], &["-S", "--sparse-version=0.1"], &["-S", "--sparse-version=1.0"]]
        {
            let mut arguments: Vec<&std::ffi::OsStr> = ["-C", tree.to_str().unwrap(), "-c", "--format", format].map(AsRef::as_ref).to_vec();
            if format == "pax" {
                arguments.extend(["--xattrs", "--xattrs-include=*"].map(std::ffi::OsStr::new));
            }
            arguments.extend(sparse.iter().map(std::ffi::OsStr::new));
            arguments.extend(["-f", "-", "."].map(std::ffi::OsStr::new));
            let Some(output) = run("tar", &arguments) else { return };
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let (_temp, target, applied) = unpack(&output.stdout);
            assert!(applied.unwrap().implied_directories.is_empty(), "the root is in the stream");
            let strip = |tree: &Path| -> Vec<String> {
                let lines = describe(tree).into_iter().map(|(path, line)| format!("{} {line}", path.display()));
                // Only the PAX format knows attributes.
                lines.map(|line| if format == "pax" { line } else { cut_attributes(&line) }).collect()
            };
            assert_eq!(strip(&target), strip(&tree), "{format} {sparse:?}");
        }
    }
}

fn cut_attributes(line: &str) -> String {
    let end = line.rfind("first=").unwrap_or(line.len());
    format!("{}{}", line.split(" [").next().unwrap_or_default(), &line[end..])
}

#[test]
fn python_reads_what_we_write_and_we_read_what_it_writes() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = plain_tree(temp.path());
    let stream = written(&tree, &[]);
    let path = temp.path().join("layer.tar");
    std::fs::write(&path, &stream).unwrap();
    let list = "import sys,tarfile; t=tarfile.open(sys.argv[1]); m=t.getmembers(); \
                [t.extractfile(x).read() for x in m if x.isfile()]; print(len(m)); \
                o=tarfile.open(sys.argv[2],'w',format=int(sys.argv[3])); o.add(sys.argv[4],'.'); o.close()";
    for format in ["1", "2"] {
        let again = temp.path().join("again.tar");
        let arguments = [std::ffi::OsStr::new("-c"), list.as_ref(), path.as_os_str(), again.as_os_str(), format.as_ref(), tree.as_os_str()];
        let Some(output) = run("python3", &arguments) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let count = describe(&tree).len();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count.to_string());
        let (_temp, target, applied) = unpack(&std::fs::read(&again).unwrap());
        applied.unwrap();
        let lines = |tree: &Path| -> Vec<String> { describe(tree).values().map(|line| cut_attributes(line)).collect() };
        assert_eq!(lines(&target), lines(&tree));
    }
}

#[test]
fn gnu_tar_unpacks_what_we_write_without_a_word() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let tree = plain_tree(temp.path());
    // GNU tar warns of times before the epoch.
    set_time(&tree.join("nothing"), 5, 0);
    let path = temp.path().join("layer.tar");
    std::fs::write(&path, written(&tree, &[])).unwrap();
    let out = temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let arguments = ["-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-f"].map(std::ffi::OsStr::new);
    let arguments = [&arguments[..], &[path.as_os_str(), "-C".as_ref(), out.as_os_str()]].concat();
    let Some(output) = run("tar", &arguments) else { return };
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(describe(&out), describe(&tree));
}

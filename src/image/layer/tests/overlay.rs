//! The kernel's overlayfs as the judge: what it left in an upper directory must, as a layer, give the same merged tree again.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;
use crate::image::layer::inherit_directories;

/// An overlay that is unmounted when it goes out of scope.
struct Overlay(PathBuf);

impl Overlay {
    /// Mounts `layers` (topmost first) read-only, or with `upper` above them.
    fn mount(at: &Path, layers: &[&Path], upper: Option<(&Path, &Path)>) -> Option<Overlay> {
        for dir in [Some(at), upper.map(|(upper, _)| upper), upper.map(|(_, work)| work)].into_iter().flatten() {
            std::fs::create_dir_all(dir).unwrap();
        }
        let lower: Vec<&str> = layers.iter().map(|path| path.to_str().unwrap()).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = upper {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let options = std::ffi::CString::new(options).unwrap();
        match mount("overlay", at, "overlay", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Overlay(at.to_owned())),
            Err(errno) => {
                eprintln!("skipped: cannot mount an overlay here: {errno}");
                None
            }
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What a RUN step might do to a tree: every way to change, replace and delete.
fn rampage(root: &Path) {
    let at = |name: &str| root.join(name);
    std::fs::remove_file(at("nothing")).unwrap();
    std::fs::remove_dir_all(at("empty")).unwrap();
    // Replaced by another directory, which overlayfs marks opaque.
    std::fs::remove_dir_all(at("long")).unwrap();
    std::fs::create_dir(at("long")).unwrap();
    std::fs::write(at("long/new"), "new").unwrap();
    // File to directory, link to file, directory to link.
    std::fs::remove_file(at("big")).unwrap();
    std::fs::create_dir_all(at("big/inner")).unwrap();
    std::fs::remove_file(at("deep/link")).unwrap();
    std::fs::write(at("deep/link"), "a file").unwrap();
    std::fs::remove_dir(at("opaque")).unwrap();
    std::os::unix::fs::symlink("bin", at("opaque")).unwrap();
    // Metadata alone, and a file made and deleted again.
    set_mode(&at("bin"), 0o700);
    set_xattr(&at("bin"), "user.new", b"1");
    std::fs::write(at("deep/passing"), "").unwrap();
    std::fs::remove_file(at("deep/passing")).unwrap();
    std::fs::hard_link(at("deep/er/same"), at("deep/er/third")).unwrap();
    std::fs::rename(at("fifo"), at("bin/moved")).unwrap();
}

/// Times as a layer holds them: whole seconds. Those of the root belong to no layer.
fn whole_seconds(root: &Path) {
    for entry in walkdir::WalkDir::new(root).contents_first(true).min_depth(1) {
        let entry = entry.unwrap();
        use std::os::unix::fs::MetadataExt;
        set_time(entry.path(), entry.path().symlink_metadata().unwrap().mtime(), 0);
    }
}

#[test]
fn a_layer_made_of_an_upper_directory_gives_the_same_tree_again() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let base = at("base");
    std::fs::create_dir(&base).unwrap();
    fill(&base);
    std::fs::remove_file(base.join("deep/gone")).unwrap();
    rustix::fs::lremovexattr(base.join("opaque"), "trusted.overlay.opaque").unwrap();
    whole_seconds(&base);
    let (upper, merged) = (at("upper"), at("merged"));
    let Some(overlay) = Overlay::mount(&merged, &[&base], Some((&upper, &at("work")))) else { return };
    rampage(&merged);
    let expected = describe(&merged);
    drop(overlay);

    let stream = written(&upper, &[&base]);
    let (_temp, again, applied) = unpack(&stream);
    inherit_directories(&again, &applied.unwrap().implied_directories, std::slice::from_ref(&base), Marks::Trusted).unwrap();
    let Some(overlay) = Overlay::mount(&at("merged2"), &[&again, &base], None) else { return };
    assert_eq!(describe(&overlay.0), expected);
    drop(overlay);
    assert_eq!(names(&written(&again, &[&base])), names(&stream), "nothing more and nothing less is a change");

    // A step that reads and touches up nothing leaves an empty layer.
    let Some(overlay) = Overlay::mount(&at("merged3"), &[&again, &base], Some((&at("upper3"), &at("work3")))) else { return };
    let tool = overlay.0.join("bin/tool");
    set_mode(&tool, 0o4755);
    drop(overlay);
    assert!(at("upper3/bin/tool").exists(), "overlayfs copied it up");
    assert_eq!(names(&written(&at("upper3"), &[&again, &base])), Vec::<String>::new());
}

//! A COPY that is made again shares what did not change with its earlier snapshot, and nobody can tell.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::image::{Entry, Image};
use crate::common::{Run, World};

const FILES: usize = 40;

/// A world whose context has files that are old enough to be known by their times.
fn world() -> World {
    let world = World::new();
    for at in 0..FILES {
        world.write(&format!("src/d{}/f{at:02}", at % 3), format!("content {at}"));
    }
    std::thread::sleep(Duration::from_millis(3200));
    world
}

fn name(at: usize) -> String {
    format!("d{}/f{at:02}", at % 3)
}

/// The snapshots that hold the context's files, oldest first: the store's numbers go up, in base 36.
fn snapshots(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.root().join("snapshots")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("fs/src").join(name(0)).exists());
    let mut found: Vec<PathBuf> = paths.map(|path| path.join("fs/src")).collect();
    found.sort_by_key(|path| {
        let number = path.ancestors().nth(2).unwrap().file_name().unwrap().to_str().unwrap();
        u64::from_str_radix(number, 36).unwrap()
    });
    found
}

/// Whether files are shared by reflinks here, which have inodes of their own.
fn has_reflinks(world: &World) -> bool {
    std::fs::write(world.path("one"), "x").unwrap();
    let (from, to) = (world.path("one"), world.path("two"));
    Run::new("cp", ["--reflink=always".as_ref(), from.as_os_str(), to.as_os_str()]).run().code == 0
}

fn contents(image: &Image) -> BTreeMap<String, Vec<u8>> {
    image.tree().into_iter().filter(|(_, entry)| entry.kind == "file").map(|(path, entry)| (path, entry.content)).collect()
}

#[test]
fn what_did_not_change_is_one_file_in_both_snapshots() {
    let world = world();
    world.build("FROM scratch\nCOPY src /src\n", &["-t", "localhost/one"]).ok();
    world.write(&format!("src/{}", name(7)), "changed!!!");
    world.build("FROM scratch\nCOPY src /src\n", &["-t", "localhost/two"]).ok();
    let found = snapshots(&world);
    let [one, two] = found.as_slice() else { panic!("not two snapshots: {found:?}") };
    assert_eq!(std::fs::read_to_string(one.join(name(7))).unwrap(), "content 7", "the earlier snapshot was written");
    assert_eq!(std::fs::read_to_string(two.join(name(7))).unwrap(), "changed!!!");
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    for at in 0..FILES {
        let same = inode(one.join(name(at))) == inode(two.join(name(at)));
        assert!(same == (at != 7 && !has_reflinks(&world)), "{}: same file is {same}", name(at));
    }
    // A file that is written in the sandbox is the new layer's alone.
    world.busybox();
    let run = "FROM localhost/busybox\nCOPY --from=localhost/two /src /src\n\
        RUN for f in /src/*/*; do echo more >> $f; chmod 700 $f; touch -d @1 $f; done\n";
    world.build(run, &[]).ok();
    for (snapshot, at) in [one, two].into_iter().flat_map(|snapshot| (8..FILES).map(move |at| (snapshot, at))) {
        let path = snapshot.join(name(at));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("content {at}"));
        assert_ne!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_run_above_shared_files_leaves_them_alone_and_removing_either_image_leaves_the_other_whole() {
    let world = world();
    world.busybox();
    let text = "FROM localhost/busybox\nCOPY src /src\n";
    world.build(text, &["-t", "localhost/one"]).ok();
    world.write(&format!("src/{}", name(7)), "changed!!!");
    let run = format!("{text}RUN for f in /src/*/*; do echo more >> $f; chmod 700 $f; done\n");
    world.build(&run, &[]).ok();
    world.build(text, &["-t", "localhost/two"]).ok();
    let whole = |tag: &str, seventh: &str| {
        let archive = world.path("saved.tar");
        world.strake(["save", "-o", archive.to_str().unwrap(), tag]).ok();
        let files = contents(&Image::docker_archive(&archive));
        for at in 0..FILES {
            let expected = if at == 7 { seventh.to_owned() } else { format!("content {at}") };
            assert_eq!(files[&format!("src/{}", name(at))], expected.as_bytes(), "{tag}: {}", name(at));
        }
    };
    whole("localhost/one", "content 7");
    whole("localhost/two", "changed!!!");
    world.strake(["rmi", "localhost/one"]).ok();
    world.strake(["prune", "-f", "--build-cache"]).ok();
    assert_eq!(snapshots(&world).len(), 1, "{:?}", snapshots(&world));
    whole("localhost/two", "changed!!!");
    world.write(&format!("src/{}", name(8)), "new");
    world.build(text, &["-t", "localhost/three"]).ok();
    world.strake(["rmi", "localhost/three"]).ok();
    world.strake(["prune", "-f", "--build-cache"]).ok();
    whole("localhost/two", "changed!!!");
}

#[test]
fn sharing_makes_the_same_layers_as_copying() {
    let world = world();
    // The second COPY repeats what is below: only without hard links in the way is it left out.
    let text = "FROM scratch AS a\nCOPY src /src\nFROM a\nCOPY src /src\nCOPY src /again\n";
    world.build(text, &[]).ok();
    world.write(&format!("src/{}", name(7)), "changed!!!");
    std::fs::hard_link(world.context().join("src").join(name(9)), world.context().join("src/other")).unwrap();
    let shared = world.image(text, &[]);
    let copied = world.image(text, &["--no-cache"]);
    // A directory that is made for the destination has the time of its build.
    let entries = |image: &Image| -> Vec<BTreeMap<String, Entry>> {
        let undated = |entry: Entry| if entry.kind == "dir" { Entry { mtime: 0, ..entry } } else { entry };
        let layers = image.layers.iter();
        layers.map(|layer| layer.iter().map(|(path, entry)| (path.clone(), undated(entry.clone()))).collect()).collect()
    };
    assert_eq!(entries(&shared), entries(&copied));
    // Of files, only the one that has two names in this layer is in it.
    let files: Vec<_> = shared.layers[1].iter().filter(|(_, entry)| entry.kind != "dir").map(|(path, _)| path.as_str()).collect();
    assert_eq!(files, [format!("src/{}", name(9)).as_str(), "src/other"]);
}

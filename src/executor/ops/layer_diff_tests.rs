//! What is said of a layer while it is written is what is read from it when it is finished, or nothing is said. [`Bench::run_telling`] compares the two.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tests::Bench;
use super::{Aids, CopyRequest, CopySource, copy_with};
use crate::context::{IgnoreRules, LocalContext, Owners};
use crate::image::layer::{LayerOptions, diff_id_only};
use crate::store::view::fixture::{can_mount, plant};

/// Directories between whose names others sort, files around the limits of what is kept, and all other kinds.
fn large_tree(bench: &Bench) {
    for directory in 0..12 {
        for name in [format!("s/d{directory}"), format!("s/d{directory} x"), format!("s/d{directory}/deep/er")] {
            fs::create_dir_all(bench.source().join(name)).unwrap();
        }
        for file in 0..40 {
            let text = vec![b'a' + (file % 26) as u8; file * directory * 7];
            fs::write(bench.source().join(format!("s/d{directory}/f{file}")), &text).unwrap();
            fs::write(bench.source().join(format!("s/d{directory} x/f{file}")), &text).unwrap();
        }
        fs::write(bench.source().join(format!("s/d{directory}/deep/er/x")), [7; 100]).unwrap();
    }
    for size in [64 << 10, (64 << 10) + 1, 200_000] {
        fs::write(bench.source().join(format!("s/d3/large{size}")), vec![1; size]).unwrap();
    }
}

const KINDS: &str = "l s/d1/link ../x\nh s/d9/again s/d2/f3\nh s/a s/d2/f3\np 0600 s/d4/pipe\nc 0600 s/d4/null 1 3\nd 2755 s/empty\nu 4:5 s/d5/f6\n\
                     m 4755 s/d6/f1\nx user.a=b s/d7/f7\nx user.d=e s/d7\nt -5 s/d8/f8";

#[test]
fn a_large_tree_is_told_of_while_it_is_copied() {
    if !can_mount("a_large_tree_is_told_of_while_it_is_copied") {
        return;
    }
    let below = "d 0750 app/d2\nf 0644 app/d2/f5 other\nf 0644 app/d2/mine M\nf 0644 app/zz Z\nd 0755 app/d3\nt 77 app";
    let bases: [&[&str]; 4] = [&[], &["d 0700 app"], &[below], &["f 0644 app/d2/g G\nd 0711 app", below]];
    for base in bases {
        for instruction in
            ["COPY s /app", "COPY --chown=3:4 --chmod=640 s /app/", "COPY --exclude=d1* --exclude=**/f3 s /app", "COPY s /x/y"]
        {
            let bench = Bench::new(base, "");
            large_tree(&bench);
            plant(&bench.source(), KINDS);
            let told = bench.run_telling(instruction, None).unwrap();
            assert!(told.layer.is_some(), "{base:?} {instruction}");
        }
    }
}

#[test]
fn what_equals_the_base_is_left_out() {
    if !can_mount("what_equals_the_base_is_left_out") {
        return;
    }
    let bench = Bench::new(&["d 0755 app\nf 0644 app/same S\nf 0644 app/other O\nt 5 app/same\nt 5 app/other\nt 9 app"], "");
    plant(&bench.source(), "f 0644 s/same S\nf 0644 s/other X\nt 5 s/same\nt 5 s/other");
    let told = bench.run_telling("COPY s /app", None).unwrap();
    assert_eq!(told.layer.unwrap().entries, 2, "`app` and `app/other`");
    // A file with two names is not left out, and only the finished layer tells that it has them.
    let bench = Bench::new(&["f 0644 app/same S\nt 5 app/same"], "f 0644 s/same S\nt 5 s/same\nh s/second s/same");
    assert!(bench.run_telling("COPY s /app", None).unwrap().layer.is_none());
}

#[test]
fn names_that_would_mean_deletions_are_left_to_whoever_reads_the_layer() {
    let bench = Bench::new(&[], "f 0644 s/.wh.x X");
    let options = LayerOptions::default();
    let aids = Aids { sharing: None, diff: Some(&options) };
    let copied = copy_with(&bench.view(), &bench.upper(), &bench.request("COPY s /"), aids).unwrap();
    assert!(copied.layer.is_none());
    assert!(diff_id_only(&bench.upper(), &Vec::new().into(), &options).is_err());
}

#[test]
fn made_directories_have_the_time_at_which_the_copy_began() {
    let bench = Bench::new(&[], "f 0644 s/a A");
    let before = std::time::SystemTime::now();
    bench.run_telling("COPY s /x/y/z", None).unwrap();
    let time = |path: &str| fs::metadata(bench.upper().join(path)).unwrap().modified().unwrap();
    assert_eq!(time("x"), time("x/y"));
    assert!(before <= time("x") && time("x") <= std::time::SystemTime::now());
}

/// The bytes of the layer, and not those of the source before or after, are what counts.
#[test]
fn files_that_change_while_they_are_copied_are_told_of_as_they_were_written() {
    let bench = Bench::new(&[], "");
    large_tree(&bench);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, source) = (stop.clone(), bench.source());
        std::thread::spawn(move || {
            let mut round = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                round = round.wrapping_add(1);
                for directory in 0..12 {
                    fs::write(source.join(format!("s/d{directory}/f{}", round % 40)), vec![round; usize::from(round) * 40]).unwrap();
                }
            }
        })
    };
    let options = LayerOptions::default();
    for _ in 0..20 {
        fs::remove_dir_all(bench.upper()).unwrap();
        fs::create_dir(bench.upper()).unwrap();
        let context = LocalContext::with_rules(&bench.source(), IgnoreRules::default(), Owners::Root).unwrap();
        let request = CopyRequest::fill(CopySource::Tree { tree: Arc::new(context), pattern: "s".to_owned() });
        let copied = copy_with(&bench.view(), &bench.upper(), &request, Aids { sharing: None, diff: Some(&options) }).unwrap();
        assert_eq!(copied.layer, diff_id_only(&bench.upper(), &Vec::new().into(), &options).ok());
        assert!(copied.layer.is_some());
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

/// An archive of many files, with what makes knowledge of them wrong: names that come twice, directories that are replaced, and links.
#[test]
fn a_large_archive_is_told_of_when_it_is_unpacked() {
    if !can_mount("a_large_archive_is_told_of_when_it_is_unpacked") {
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, text: &[u8], link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1234);
        header.set_size(text.len() as u64);
        if link.is_empty() {
            builder.append_data(&mut header, name, text).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    };
    for at in 0..600_usize {
        add(tar::EntryType::Regular, &format!("d{}/f{at}", at % 7), &vec![b'x'; at * 3], "");
    }
    add(tar::EntryType::Regular, "d1/large", &[7; 100_000], "");
    add(tar::EntryType::Regular, "d1/f1", b"again", "");
    add(tar::EntryType::Symlink, "d2/f2", b"", "nowhere");
    add(tar::EntryType::Regular, "d6", b"a file now", "");
    for at in 0..100_usize {
        add(tar::EntryType::Regular, &format!("e/f{at}"), b"more", "");
    }
    add(tar::EntryType::Link, "e/z", b"", "e/f9");
    let archive = builder.into_inner().unwrap();
    for base in [&[][..], &["f 0644 a/e/f3 more\nt 1234 a/e/f3"]] {
        let bench = Bench::new(base, "");
        fs::write(bench.source().join("a.tar"), &archive).unwrap();
        let told = bench.run_telling("ADD a.tar /a/", None).unwrap();
        assert!(told.layer.is_some(), "{base:?}");
        let at = |path: &str| bench.upper().join("a").join(path);
        assert_eq!(fs::read(at("d1/f1")).unwrap(), b"again");
        assert_eq!(fs::metadata(at("d3/f500")).unwrap().len(), 1500);
        assert_eq!(fs::metadata(at("e/z")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(at("e/f77")).unwrap().mtime(), 1234);
    }
}

#[test]
fn a_file_that_cannot_be_filled_is_an_error_with_its_name() {
    // Larger than this directory's disk, which has room for one page.
    let disk = tempfile::tempdir().unwrap();
    if rustix::mount::mount("tmpfs", disk.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=256k").is_err() {
        eprintln!("a_file_that_cannot_be_filled_is_an_error_with_its_name is skipped: it mounts a small disk, which needs root");
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    for at in 0..200 {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(4000);
        builder.append_data(&mut header, format!("f{at:03}"), &[7; 4000][..]).unwrap();
    }
    let bench = Bench::new(&[], "");
    fs::write(bench.source().join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let upper = disk.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let options = LayerOptions::default();
    let aids = Aids { sharing: None, diff: Some(&options) };
    let error = copy_with(&bench.view(), &upper, &bench.request("ADD a.tar /a/"), aids).unwrap_err().to_string();
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(error.contains("/a/f0"), "{error}");
}

//! Archives there and back, in every form that the tools write, and such as nobody should write.

use std::io::Cursor;

use serde_json::{Value, json};

use super::*;
use crate::image::archive::{ArchiveFormat, Saved, write_archive};
use crate::image::import::import;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let name_field = &mut header.as_old_mut().name;
        name_field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn layer(text: &str) -> Vec<u8> {
    tar(&[("hello", text.as_bytes())])
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
    json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string().into_bytes()
}

fn manifest_json(config: &str, tags: &[&str], layers: &[&str]) -> Vec<u8> {
    json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string().into_bytes()
}

#[track_caller]
fn loaded(store: &Store, archive: Vec<u8>) -> Vec<Loaded> {
    load(store, Cursor::new(archive), &LoadFor::Preferred(Platform::host())).unwrap()
}

#[track_caller]
fn refused(archive: Vec<u8>) -> String {
    let (_dir, store) = store();
    let error = load(&store, Cursor::new(archive), &LoadFor::Preferred(Platform::host())).unwrap_err();
    assert!(store.images().unwrap().is_empty(), "nothing may be left of a refused image");
    error.to_string()
}

fn content(store: &Store, image: &ImageRecord, layer: usize) -> String {
    std::fs::read_to_string(store.snapshot_path(image.snapshots[layer]).join("hello")).unwrap()
}

#[test]
fn docker_s_old_form_is_read_in_any_order_and_through_links() {
    let (_dir, store) = store();
    let (a, b) = (layer("a"), layer("b"));
    let config = config(&[&a, &b, &a]);
    let mut builder = tar::Builder::new(Cursor::new(Vec::new()));
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "3/layer.tar", "../1/layer.tar").unwrap();
    let names = ["1/layer.tar", "2/layer.tar", "3/layer.tar"];
    let document = manifest_json("c.json", &["acme/app:1", "acme/app:2"], &names);
    let files: [(&str, &[u8]); 5] =
        [("manifest.json", &document), ("2/layer.tar", &b), ("1/json", b"{}"), ("c.json", &config), ("1/layer.tar", &a)];
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    let archive = builder.into_inner().unwrap().into_inner();
    let images = loaded(&store, gzip(&archive));
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].image.id.digest(), &Digest::sha256(&config));
    assert_eq!(content(&store, &images[0].image, 1), "b");
    let names: Vec<String> = store.names_of(&images[0].image.id).unwrap().iter().map(Reference::familiar).collect();
    assert_eq!(names, ["acme/app:1", "acme/app:2"]);
}

#[test]
fn what_is_saved_is_loaded_with_the_same_manifest() {
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let (_dir, store) = store();
        let name: Reference = "localhost:5000/acme/app:1".parse().unwrap();
        let empty = ImageConfig::empty(&Platform::host());
        let image = import(&store, Cursor::new(layer("x")), empty, "", Some(&name)).unwrap();
        let mut archive = Vec::new();
        write_archive(&store, &[Saved { image: image.clone(), index: None, names: vec![name.clone()] }], format, &mut archive).unwrap();
        let (_other_dir, other) = self::store();
        let images = loaded(&other, archive.clone());
        assert_eq!(images[0].image.id, image.id, "{format:?}");
        assert_eq!(images[0].names, [name], "{format:?}");
        assert_eq!(content(&other, &images[0].image, 0), "x");
        let mut again = Vec::new();
        write_archive(&other, &[Saved { image: images[0].image.clone(), index: None, names: images[0].names.clone() }], format, &mut again)
            .unwrap();
        assert!(again == archive, "{format:?}: saved again, the archive is another");
    }
}

#[test]
fn a_tar_that_was_written_by_others_is_compressed_as_it_came() {
    let (_dir, store) = store();
    // No tar writer of ours makes this name.
    let odd = tar(&[("./hello", b"x")]);
    let image = import(&store, Cursor::new(odd.clone()), ImageConfig::empty(&Platform::host()), "", None).unwrap();
    let manifest = crate::image::blobs::ensure_manifest(&store, &image).unwrap();
    let blob = store.read_blob(&manifest.manifest.layers[0].digest, 1 << 20).unwrap();
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(blob.as_slice()).read_to_end(&mut plain).unwrap();
    assert!(plain == odd);
}

#[test]
fn an_import_of_gzip_keeps_the_blob_and_of_xz_the_tar() {
    let (_dir, store) = store();
    let plain = layer("x");
    let packed = gzip(&plain);
    let empty = ImageConfig::empty(&Platform::host());
    let image = import(&store, Cursor::new(packed.clone()), empty.clone(), "", None).unwrap();
    assert_eq!(image.diff_ids[0].digest(), &Digest::sha256(&plain));
    assert_eq!(store.layer_blobs(&image.diff_ids[0]).unwrap()[0].digest, Digest::sha256(&packed));
    let (_dir, store) = self::store();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(plain.as_slice(), 1).read_to_end(&mut xz).unwrap();
    let image = import(&store, Cursor::new(xz), empty, "", None).unwrap();
    assert_eq!(store.layer_blobs(&image.diff_ids[0]).unwrap()[0].digest, Digest::sha256(&plain));
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let config = config(&[&layer("good")]);
    let document = manifest_json("c.json", &["a:1"], &["l.tar"]);
    let error = refused(tar(&[("c.json", &config), ("l.tar", &layer("evil")), ("manifest.json", &document)]));
    assert!(error.contains("does not match its config"), "{error}");
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let hex = Digest::sha256(b"good").hex();
    let archive = tar(&[(&format!("blobs/sha256/{hex}"), b"evil"), ("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)]);
    let (_dir, store) = store();
    assert!(matches!(load(&store, Cursor::new(archive), &LoadFor::Preferred(Platform::host())), Err(Error::Store(_))));
    assert!(store.blob_size(&Digest::sha256(b"good")).unwrap().is_none());
}

#[test]
fn names_and_links_that_lead_out_are_refused() {
    assert!(refused(tar(&[("../../etc/cron.d/x", b"")])).contains("leads out"));
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "l.tar", "../../etc/shadow").unwrap();
    let config = config(&[b""]);
    let document = manifest_json("c.json", &[], &["l.tar"]);
    let rest: [(&str, &[u8]); 2] = [("c.json", &config), ("manifest.json", &document)];
    for (name, bytes) in rest {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    let error = refused(builder.into_inner().unwrap());
    assert!(error.contains("`l.tar` is missing"), "{error}");
}

#[test]
fn links_in_a_circle_come_to_an_end() {
    let mut builder = tar::Builder::new(Vec::new());
    for (from, to) in [("c.json", "d.json"), ("d.json", "c.json")] {
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, from, to).unwrap();
    }
    let document = manifest_json("c.json", &[], &[]);
    let mut header = tar::Header::new_ustar();
    header.set_size(document.len() as u64);
    builder.append_data(&mut header, "manifest.json", document.as_slice()).unwrap();
    assert!(refused(builder.into_inner().unwrap()).contains("missing"));
}

#[test]
fn what_is_no_archive_of_images_is_refused_with_a_reason() {
    assert!(refused(Vec::new()).contains("empty"));
    assert!(refused(tar(&[("hello", b"x")])).contains("neither"));
    refused(vec![b'x'; 5000]);
    refused(gzip(&tar(&[("hello", b"x")]))[..40].to_vec());
    let no_layers = manifest_json("c.json", &[], &[]);
    let config = config(&[&layer("x")]);
    assert!(refused(tar(&[("manifest.json", &no_layers), ("c.json", &config)])).contains("contradicts itself"));
    let bad_name = manifest_json("c.json", &["../x"], &[]);
    assert!(refused(tar(&[("manifest.json", &bad_name), ("c.json", &config)])).contains("not an image reference"));
    for document in [&b"{}"[..], b"[{}]", b"[[]]", b"null", b"[{\"Config\":7}]"] {
        refused(tar(&[("manifest.json", document)]));
        refused(tar(&[("index.json", document)]));
    }
}

#[test]
fn an_index_of_itself_comes_to_an_end() {
    // A digest cannot contain itself, so this is as deep as it gets: indexes in indexes.
    let mut inner = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] });
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for _ in 0..20 {
        let bytes = inner.to_string().into_bytes();
        let digest = Digest::sha256(&bytes);
        let entry = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.to_string(), "size": bytes.len() });
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        inner = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] });
    }
    files.push(("index.json".into(), inner.to_string().into_bytes()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    assert!(refused(tar(&files)).contains("deep"));
    let _: Value = inner;
}

//! Images, names, containers and volumes.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_tag_moves_and_tells_where_it_was() {
    let (_dir, store) = new_store();
    let (one, two) = (image(&store, "one", &[]), image(&store, "two", &[]));
    let app = name("registry.example/app:1");
    assert_eq!(store.tag(&app, &one, None).unwrap(), None);
    assert_eq!(store.tag(&app, &two, None).unwrap(), Some(one.clone()));
    assert_eq!(store.tag(&app, &two, None).unwrap(), Some(two.clone()));
    assert_eq!(store.resolve(&app).unwrap().unwrap().id, two);
    assert_eq!(store.names_of(&two).unwrap(), std::slice::from_ref(&app));
    assert_eq!(store.untag(&app).unwrap(), Some(two));
    assert_eq!(store.resolve(&app).unwrap(), None);
    assert!(store.image(&one).unwrap().is_some());
}

#[test]
fn a_tag_needs_its_image_and_its_manifest() {
    let (_dir, store) = new_store();
    let missing = ImageId::new(Digest::sha256(b"missing"));
    assert!(matches!(store.tag(&name("app"), &missing, None), Err(Error::NoImage { .. })));
    assert!(matches!(store.put_image(&record(&missing, &[])), Err(Error::NoBlob { .. })));
    let there = image(&store, "there", &[]);
    assert!(matches!(store.tag(&name("app"), &there, Some(&Digest::sha256(b"missing"))), Err(Error::NoBlob { .. })));
}

#[test]
fn images_are_found_by_name_id_and_beginning() {
    let (_dir, store) = new_store();
    let images: Vec<ImageId> = (0..40).map(|number| image(&store, &format!("config {number}"), &[])).collect();
    store.tag(&name("acme/app:2"), &images[0], None).unwrap();
    let find = |text: &str| store.find_image(text).map(|found| found.map(|image| image.id));
    assert_eq!(find("acme/app:2").unwrap().as_ref(), Some(&images[0]));
    assert_eq!(find("acme/app").unwrap(), None);
    assert_eq!(find(&images[1].to_string()).unwrap().as_ref(), Some(&images[1]));
    assert_eq!(find(&images[1].digest().hex()).unwrap().as_ref(), Some(&images[1]));
    assert_eq!(find(&images[1].digest().short()).unwrap().as_ref(), Some(&images[1]));
    // Forty IDs share sixteen first digits.
    let first = |id: &ImageId| id.digest().hex()[..1].to_owned();
    let shared = images.iter().map(first).find(|digit| images.iter().filter(|id| first(id) == *digit).count() > 1).unwrap();
    let error = find(&shared).unwrap_err();
    assert!(matches!(&error, Error::Ambiguous { candidates, .. } if candidates.len() > 1), "{error}");
    // A name goes before the beginning of an ID.
    store.tag(&name(&format!("{shared}:latest")), &images[3], None).unwrap();
    assert_eq!(find(&shared).unwrap().as_ref(), Some(&images[3]));
    assert_eq!(find("%").unwrap(), None);
    assert_eq!(find("").unwrap(), None);
}

#[test]
fn a_digest_reference_finds_the_manifest_of_its_repository() {
    let (_dir, store) = new_store();
    let manifest = store.put_blob(b"manifest").unwrap();
    let app = image(&store, "config", &[]);
    store.tag(&name("acme/app:1"), &app, Some(&manifest)).unwrap();
    let by_digest = |repository: &str| store.resolve(&name(&format!("{repository}@{manifest}"))).unwrap().map(|image| image.id);
    assert_eq!(by_digest("acme/app"), Some(app.clone()));
    assert_eq!(by_digest("acme/ap"), None);
    assert_eq!(by_digest("acme/application"), None);
    assert_eq!(store.tagged_manifest(&name("acme/app:1")).unwrap(), Some(manifest));
}

#[test]
fn images_are_listed_with_their_names() {
    let (_dir, store) = new_store();
    let (one, two) = (image(&store, "one", &[]), image(&store, "two", &[]));
    store.tag(&name("b"), &one, None).unwrap();
    store.tag(&name("a"), &one, None).unwrap();
    let images = store.images().unwrap();
    assert_eq!(images.len(), 2);
    let names = |id: &ImageId| images.iter().find(|(_, image)| image.id == *id).unwrap().0.clone();
    assert_eq!(names(&one), [name("a"), name("b")]);
    assert_eq!(names(&two), []);
    assert_eq!(store.remove_image(&one).unwrap(), Some(vec![name("a"), name("b")]));
    assert_eq!(store.remove_image(&one).unwrap(), None);
    assert_eq!(store.resolve(&name("a")).unwrap(), None);
}

#[test]
fn what_a_registry_said_is_remembered() {
    let (_dir, store) = new_store();
    let (debian, digest) = (name("debian:12"), Digest::sha256(b"index"));
    assert_eq!(store.remote_manifest(&debian).unwrap(), None);
    store.record_remote_manifest(&debian, &digest, &MediaType::OciIndex).unwrap();
    let said = store.remote_manifest(&debian).unwrap().unwrap();
    assert_eq!((said.digest, said.media_type), (digest, MediaType::OciIndex));
    assert!(said.checked_at.elapsed().unwrap().as_secs() < 60);
}

#[test]
fn containers_have_unique_names_and_a_directory() {
    let (_dir, store) = new_store();
    let layer = snapshot(&store, "layer");
    let one = store.create_container(new_container_id().unwrap(), "web", None, &[layer]).unwrap();
    assert!(matches!(store.create_container(new_container_id().unwrap(), "web", None, &[]), Err(Error::NameTaken { .. })));
    assert!(matches!(store.create_container(new_container_id().unwrap(), "../x", None, &[]), Err(Error::BadName { .. })));
    assert_eq!(listing(&store, "containers"), std::slice::from_ref(&one.id));
    assert!(store.container_dir(&one.id).join("fs").is_dir());
    let two = store.create_container(new_container_id().unwrap(), "db", None, &[]).unwrap();
    assert_eq!(store.find_container("web").unwrap().as_ref(), Some(&one));
    assert_eq!(store.find_container(&two.id[..12]).unwrap().as_ref(), Some(&two));
    assert_eq!(store.find_container("nope").unwrap(), None);
    assert!(matches!(store.rename_container(&two.id, "web"), Err(Error::NameTaken { .. })));
    store.rename_container(&two.id, "cache").unwrap();
    assert_eq!(store.containers().unwrap().len(), 2);
    assert!(store.remove_container(&one.id).unwrap());
    assert!(!store.remove_container(&one.id).unwrap());
    assert_eq!(listing(&store, "containers"), [two.id]);
}

#[test]
fn volumes_and_networks_are_kept_by_name() {
    let (_dir, store) = new_store();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert!(store.ensure_volume("data", false, &labels, &BTreeMap::new()).unwrap());
    assert!(!store.ensure_volume("data", false, &labels, &BTreeMap::new()).unwrap());
    std::fs::write(store.volume_path("data").join("x"), "x").unwrap();
    store.prune(&PruneOptions::all()).unwrap();
    assert_eq!(store.volume("data").unwrap().unwrap().labels, labels);
    assert!(store.volume_path("data").join("x").exists());
    assert!(store.remove_volume("data").unwrap());
    assert!(store.ensure_volume("data", true, &labels, &BTreeMap::new()).unwrap());
    assert!(!store.volume_path("data").join("x").exists());
    assert!(matches!(store.ensure_volume("a/b", false, &labels, &BTreeMap::new()), Err(Error::BadName { .. })));
    store.create_network("front", b"config").unwrap();
    assert!(matches!(store.create_network("front", b"other"), Err(Error::NameTaken { .. })));
    assert_eq!(store.network("front").unwrap().as_deref(), Some(&b"config"[..]));
    assert_eq!(store.networks().unwrap().len(), 1);
    assert!(store.remove_network("front").unwrap());
}

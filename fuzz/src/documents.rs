//! What registries and archives send: manifests, indexes, configs; and names of images.
//!
//! ```text
//! m {"schemaVersion":2,…}    a manifest or an index
//! c {"architecture":…}       a config
//! r host:5000/name:tag       a reference
//! ```

use std::time::Duration;

use strake::oci::{ImageConfig, ManifestOrIndex, MediaType, Platform, Reference};

use crate::cost;

/// Panics where something does not hold for this document.
pub fn check(data: &[u8]) {
    let Some((kind, rest)) = data.split_first_chunk::<2>() else { return };
    cost::within(Duration::from_secs(1), "reading a document", || match kind {
        b"m " => manifest(rest),
        b"c " => config(rest),
        b"r " => reference(&String::from_utf8_lossy(rest)),
        _ => {}
    });
}

fn manifest(bytes: &[u8]) {
    for stated in [
        None,
        Some(MediaType::OciManifest),
        Some(MediaType::OciIndex),
        Some(MediaType::DockerManifest),
        Some(MediaType::DockerManifestList),
    ] {
        let Ok(parsed) = ManifestOrIndex::parse(bytes, stated.as_ref()) else { continue };
        let written = match &parsed {
            ManifestOrIndex::Manifest(manifest) => serde_json::to_vec(manifest),
            ManifestOrIndex::Index(index) => {
                for wanted in ["amd64", "arm64", "arm"] {
                    let wanted = Platform::new("linux", wanted, None);
                    let found = index.select(&wanted);
                    assert_eq!(found, index.select(&wanted));
                    assert!(found.is_none_or(|found| index.manifests.contains(found)));
                }
                serde_json::to_vec(index)
            }
        };
        let written = written.expect("a document can be written");
        let kind = parsed.media_type();
        assert_eq!(ManifestOrIndex::parse(&written, Some(&kind)).expect("what was written can be read"), parsed);
    }
}

fn config(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<ImageConfig>(bytes) else { return };
    let _ = config.platform();
    let again: ImageConfig = serde_json::from_slice(&config.to_bytes()).expect("what was written can be read");
    assert_eq!(again.to_bytes(), config.to_bytes());
}

fn reference(text: &str) {
    let Ok(name) = text.parse::<Reference>() else { return };
    assert_eq!(name.written(), text);
    let whole: Reference = name.to_string().parse().expect("a normal name is a name");
    assert_eq!(whole, name);
    assert_eq!(whole.to_string(), name.to_string());
    assert!(!whole.is_short());
    let familiar: Reference = name.familiar().parse().expect("the name as Docker shows it is a name");
    assert_eq!(familiar, name);
    assert!(name.tag().is_none_or(Reference::is_tag) && Reference::is_repository(name.repository()));
    assert!(!name.registry().is_empty() && !name.registry().contains(['/', '@']));
}

//! Images and their names.
//!
//! An image is named by the digest of its config, whose blob it needs; a name points at one image and moves in one transaction. A name that
//! is not settled yet remembers where it pointed before, and falls back there after a power cut.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::oci::{Algorithm, DiffId, Digest, ImageId, MediaType, Platform, Reference};
use crate::task::fault_point;

use super::database::{parsed, parsed_option};
use super::lock::Kind;
use super::open::{from_micros, now};
use super::snapshot::{pack, unpack};
use super::{Error, SnapshotId, Store};

/// An image in the store. Its config is the blob that `id` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its config.
    pub id: ImageId,
    /// Its manifest as it was pulled or exported, raw, where it has one.
    pub manifest: Option<Digest>,
    /// What it runs on.
    pub platform: Platform,
    /// When it came into the store.
    pub created_at: SystemTime,
    /// What its layers take as tars, in bytes.
    pub size: u64,
    /// Its layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// The snapshots of its layers, bottom first; empty where it is not unpacked (or is found by its chain).
    pub snapshots: Vec<SnapshotId>,
}

/// What a registry last said that a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteManifest {
    /// The manifest or index.
    pub digest: Digest,
    /// Which of both.
    pub media_type: MediaType,
    /// When the registry said so.
    pub checked_at: SystemTime,
}

const COLUMNS: &str = "images.id, images.manifest, images.platform, images.created_at, images.size, images.diff_ids, images.snapshots";

impl Store {
    /// Records an image. Its config and its manifest must be in the store, and its snapshots committed.
    pub fn put_image(&self, image: &ImageRecord) -> Result<(), Error> {
        let _shared = self.lock_store(Kind::Shared)?;
        for digest in [image.id.digest()].into_iter().chain(&image.manifest) {
            if self.blob_size(digest)?.is_none() {
                return Err(self.no_blob(digest));
            }
        }
        self.hold(format_args!("image {}", image.id))?;
        fault_point("image:held");
        let diff_ids: Vec<String> = image.diff_ids.iter().map(DiffId::to_string).collect();
        if self.image(&image.id)?.is_some_and(|known| ImageRecord { created_at: image.created_at, ..known } == *image) {
            return Ok(());
        }
        self.database().write("record an image", |tx| {
            self.check_snapshots(tx, &image.snapshots)?;
            let sql = "INSERT INTO images (id, manifest, platform, created_at, size, diff_ids, snapshots) VALUES (?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET manifest = coalesce(excluded.manifest, manifest), size = excluded.size,
                snapshots = CASE length(excluded.snapshots) WHEN 0 THEN snapshots ELSE excluded.snapshots END";
            tx.prepare_cached(sql)?.execute(params![
                image.id.to_string(),
                image.manifest.as_ref().map(Digest::to_string),
                serde_json::to_string(&image.platform).unwrap_or_default(),
                super::open::to_micros(image.created_at),
                image.size.cast_signed(),
                diff_ids.join(" "),
                pack(&image.snapshots),
            ])?;
            Ok(())
        })
    }

    /// The image `id`, where it is in the store.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        self.database().read("read an image", |db| {
            let sql = format!("SELECT {COLUMNS} FROM images WHERE id = ?");
            db.prepare_cached(&sql)?.query_row([id.to_string()], image_from_row).optional()
        })
    }

    /// Points `name` at an image, and tells which it pointed at before. `manifest` is the manifest (or index) that the name means, raw, in the store.
    /// Writes nothing where the name points there already.
    pub fn tag(&self, name: &Reference, image: &ImageId, manifest: Option<&Digest>) -> Result<Option<ImageId>, Error> {
        if let Some(manifest) = manifest
            && self.blob_size(manifest)?.is_none()
        {
            return Err(self.no_blob(manifest));
        }
        if name.is_like_digest() {
            return Err(Error::LikeDigest { name: name.familiar() });
        }
        // A name with a digest never stands for anything else.
        if let Some(digest) = name.digest()
            && manifest != Some(digest)
            && self.image(image)?.is_none_or(|image| image.manifest.as_ref() != Some(digest))
        {
            return Err(Error::OtherDigest { name: name.familiar(), image: image.clone() });
        }
        let (name, manifest) = (name.to_string(), manifest.map(Digest::to_string));
        let before = self.database().read("read a name", |db| target_of(db, &name))?;
        if let Some((known, known_manifest)) = &before
            && known == image
            && *known_manifest == manifest
            && self.image(image)?.is_some()
        {
            return Ok(Some(image.clone()));
        }
        let _shared = self.lock_store(Kind::Shared)?;
        fault_point("name:moving");
        self.database().write("move a name", |tx| {
            if !tx.prepare_cached("SELECT 1 FROM images WHERE id = ?")?.exists([image.to_string()])? {
                return Err(Error::NoImage { id: image.clone(), root: self.root().to_owned() }.into());
            }
            let before = target_of(tx, &name)?;
            // A name that was settled remembers where; one that was not remembers what it remembered.
            let sql = "INSERT INTO names (name, image, manifest, tagged_at) VALUES (?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET
                settled_image = CASE settled WHEN 1 THEN image ELSE settled_image END,
                settled_manifest = CASE settled WHEN 1 THEN manifest ELSE settled_manifest END,
                image = excluded.image, manifest = excluded.manifest, tagged_at = excluded.tagged_at, settled = 0";
            tx.prepare_cached(sql)?.execute(params![name, image.to_string(), manifest, now()])?;
            Ok(before.map(|(image, _)| image))
        })
    }

    /// The image that `name` means here. A digest is looked for among the manifests of that repository's images.
    pub fn resolve(&self, name: &Reference) -> Result<Option<ImageRecord>, Error> {
        self.database().read("resolve a name", |db| {
            // Neither is a name with a digest believed to stand for anything else, whoever wrote it.
            let sql = format!(
                "SELECT {COLUMNS} FROM names JOIN images ON images.id = names.image
                WHERE names.name = ?1 AND (?2 IS NULL OR ?2 IN (names.manifest, images.manifest))"
            );
            let digest = name.digest().map(Digest::to_string);
            let exact = db.prepare_cached(&sql)?.query_row(params![name.to_string(), digest], image_from_row).optional()?;
            let (None, Some(digest)) = (&exact, name.digest()) else { return Ok(exact) };
            let sql = format!(
                "SELECT {COLUMNS} FROM names JOIN images ON images.id = names.image
                WHERE ?1 IN (names.manifest, images.manifest) AND names.name > ?2 AND substr(names.name, 1, length(?2) + 1) IN (?2 || ':', ?2 || '@')"
            );
            db.prepare_cached(&sql)?.query_row(params![digest.to_string(), name.name()], image_from_row).optional()
        })
    }

    /// Whether what `name` names by its digest is known to be in that repository of its registry: the registry has said so, or it was pulled from or pushed to there.
    pub fn is_known_at(&self, name: &Reference) -> Result<bool, Error> {
        let Some(digest) = name.digest() else { return Ok(false) };
        let said = name.only_digest(digest.clone()).to_string();
        self.database().read("look for where a manifest came from", |db| {
            let sql = "SELECT 1 FROM remote_manifests WHERE name = ?1
                UNION ALL SELECT 1 FROM names JOIN images ON images.id = names.image
                WHERE names.manifest IS NOT NULL AND ?2 IN (names.manifest, images.manifest)
                AND names.name > ?3 AND substr(names.name, 1, length(?3) + 1) IN (?3 || ':', ?3 || '@')";
            db.prepare_cached(sql)?.exists(params![said, digest.to_string(), name.name()])
        })
    }

    /// The manifest (or index) that `name` was tagged with.
    pub fn tagged_manifest(&self, name: &Reference) -> Result<Option<Digest>, Error> {
        self.database().read("read a name", |db| {
            let sql = "SELECT manifest FROM names WHERE name = ? AND manifest IS NOT NULL";
            db.prepare_cached(sql)?.query_row([name.to_string()], |row| parsed(row, 0)).optional()
        })
    }

    /// The image that a user means: by name, by ID (with or without its algorithm) or by the beginning of an ID.
    /// A whole ID goes before a name, and a name before the beginning of an ID, as in Docker; a beginning that fits several images is an error.
    pub fn find_image(&self, text: &str) -> Result<Option<ImageRecord>, Error> {
        let (algorithms, hex): (&[Algorithm], &str) = match text.split_once(':') {
            Some(("sha256", hex)) => (&[Algorithm::Sha256], hex),
            Some(("sha512", hex)) => (&[Algorithm::Sha512], hex),
            _ => (&[Algorithm::Sha256, Algorithm::Sha512], text),
        };
        let is_hex = !hex.is_empty() && hex.len() <= 128 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // Whoever wrote such a name into the store: it is not believed.
        if let Ok(digest) = text.parse::<Digest>() {
            return self.image(&ImageId::new(digest));
        }
        if let Ok(name) = text.parse::<Reference>()
            && let Some(image) = self.resolve(&name)?
        {
            return Ok(Some(image));
        }
        if !is_hex {
            return Ok(None);
        }
        let mut found = self.database().read("look an image up", |db| {
            let sql = format!("SELECT {COLUMNS} FROM images WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 5");
            let mut query = db.prepare_cached(&sql)?;
            let mut found = Vec::new();
            for algorithm in algorithms {
                let prefix = format!("{}:{hex}", algorithm.name());
                for image in query.query_map([&prefix], image_from_row)? {
                    found.push(image?);
                }
            }
            Ok(found)
        })?;
        if found.len() > 1 {
            let candidates = found.iter().map(|image| image.id.digest().short()).collect();
            return Err(Error::Ambiguous { prefix: text.to_owned(), candidates });
        }
        Ok(found.pop())
    }

    /// All images with their names (sorted), newest first.
    pub fn images(&self) -> Result<Vec<(Vec<Reference>, ImageRecord)>, Error> {
        self.database().read_together("list the images", |db| {
            let mut names: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
            let mut query = db.prepare_cached("SELECT image, name FROM names ORDER BY name")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                names.entry(row.get(0)?).or_default().push(parsed(row, 1)?);
            }
            let sql = format!("SELECT {COLUMNS} FROM images ORDER BY created_at DESC, id");
            let mut query = db.prepare_cached(&sql)?;
            let images = query.query_map([], image_from_row)?;
            images.map(|image| image.map(|image| (names.remove(&image.id.to_string()).unwrap_or_default(), image))).collect()
        })
    }

    /// The manifest (or index) that each name was tagged with, by the name's text.
    pub fn tagged_manifests(&self) -> Result<HashMap<String, Digest>, Error> {
        self.database().read("list the names", |db| {
            let mut query = db.prepare_cached("SELECT name, manifest FROM names WHERE manifest IS NOT NULL")?;
            query.query_map([], |row| Ok((row.get(0)?, parsed(row, 1)?)))?.collect()
        })
    }

    /// When images were made, as their configs say; of those that were asked for before.
    pub fn image_dates(&self) -> Result<HashMap<ImageId, String>, Error> {
        self.database().read("look dates up", |db| {
            if !db.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'image_dates'")?.exists([])? {
                return Ok(HashMap::new());
            }
            let mut query = db.prepare_cached("SELECT image, created FROM image_dates")?;
            query.query_map([], |row| Ok((parsed(row, 0)?, row.get(1)?)))?.collect()
        })
    }

    /// Remembers when images were made. The table is no part of the store's format: what is in it can be found out again, and a store that cannot be written goes without.
    pub fn remember_image_dates(&self, dates: &[(ImageId, String)]) -> Result<(), Error> {
        if dates.is_empty() || self.is_read_only() {
            return Ok(());
        }
        let remembered = self.database().write("remember dates", |tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS image_dates (image TEXT PRIMARY KEY, created TEXT NOT NULL) STRICT, WITHOUT ROWID",
            )?;
            tx.execute("DELETE FROM image_dates WHERE image NOT IN (SELECT id FROM images)", [])?;
            let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO image_dates (image, created) VALUES (?, ?)")?;
            for (image, created) in dates {
                insert.execute([&image.to_string(), created])?;
            }
            Ok(())
        });
        match remembered {
            Err(error) if error.is_disk_full() => Ok(()),
            other => other,
        }
    }

    /// The names of one image, sorted.
    pub fn names_of(&self, id: &ImageId) -> Result<Vec<Reference>, Error> {
        self.database().read("list an image's names", |db| {
            let mut query = db.prepare_cached("SELECT name FROM names WHERE image = ? ORDER BY name")?;
            query.query_map([id.to_string()], |row| parsed(row, 0))?.collect()
        })
    }

    /// When an image got the latest of its names.
    pub fn last_tagged(&self, id: &ImageId) -> Result<Option<SystemTime>, Error> {
        self.database().read("look when an image was named", |db| {
            let sql = "SELECT max(tagged_at) FROM names WHERE image = ?";
            let time: Option<i64> = db.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0))?;
            Ok(time.map(from_micros))
        })
    }

    /// Takes a name away, and tells the image that it pointed at. The image stays.
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        let name = name.to_string();
        self.make_room();
        self.database().write("remove a name", |tx| {
            let sql = "DELETE FROM names WHERE name = ? RETURNING image";
            Ok(tx.prepare_cached(sql)?.query_row([&name], |row| parsed(row, 0)).optional()?)
        })
    }

    /// Forgets an image and all its names; tells the names, or `None` where there is no such image. Prune frees what it was made of.
    pub fn remove_image(&self, id: &ImageId) -> Result<Option<Vec<Reference>>, Error> {
        let id = id.to_string();
        self.make_room();
        self.database().write("remove an image", |tx| {
            let sql = "DELETE FROM names WHERE image = ? RETURNING name";
            let names = tx.prepare_cached(sql)?.query_map([&id], |row| parsed(row, 0))?.collect::<rusqlite::Result<Vec<_>>>()?;
            // A name that would fall back to this image after a power cut has nowhere to fall back to any more.
            tx.execute("UPDATE names SET settled_image = NULL, settled_manifest = NULL WHERE settled_image = ?", [&id])?;
            let removed = tx.execute("DELETE FROM images WHERE id = ?", [&id])?;
            Ok((removed > 0).then_some(names))
        })
    }

    /// Takes manifests away that an index may still name, so that prune frees what they named; `false`, and nothing is done, where a running command holds one of them. No image may
    /// have them as its own.
    pub fn remove_manifests(&self, digests: &[Digest]) -> Result<bool, Error> {
        self.make_room();
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        let leased = self.leased()?;
        if digests.iter().any(|digest| leased.blobs.contains(digest)) {
            return Ok(false);
        }
        for digest in digests {
            fault_point("manifest:removing");
            self.discard_blob(digest)?;
        }
        Ok(true)
    }

    /// What a registry last said that `name` means.
    pub fn remote_manifest(&self, name: &Reference) -> Result<Option<RemoteManifest>, Error> {
        self.database().read("read what a registry said", |db| {
            let sql = "SELECT digest, media_type, checked_at FROM remote_manifests WHERE name = ?";
            let from_row = |row: &Row<'_>| {
                let media_type = MediaType::parse(row.get_ref(1)?.as_str()?);
                Ok(RemoteManifest { digest: parsed(row, 0)?, media_type, checked_at: from_micros(row.get(2)?) })
            };
            db.prepare_cached(sql)?.query_row([name.to_string()], from_row).optional()
        })
    }

    /// Records that a registry said just now that `name` means `digest`.
    pub fn record_remote_manifest(&self, name: &Reference, digest: &Digest, media_type: &MediaType) -> Result<(), Error> {
        self.database().write("record what a registry said", |tx| {
            let sql = "INSERT OR REPLACE INTO remote_manifests (name, digest, media_type, checked_at) VALUES (?, ?, ?, ?)";
            tx.prepare_cached(sql)?.execute(params![name.to_string(), digest.to_string(), media_type.as_str(), now()])?;
            Ok(())
        })
    }
}

fn target_of(db: &Connection, name: &str) -> rusqlite::Result<Option<(ImageId, Option<String>)>> {
    let mut query = db.prepare_cached("SELECT image, manifest FROM names WHERE name = ?")?;
    query.query_row([name], |row| Ok((parsed(row, 0)?, row.get(1)?))).optional()
}

fn image_from_row(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let bad = |column, error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error);
    let platform = serde_json::from_str(row.get_ref(2)?.as_str()?).map_err(|error| bad(2, Box::new(error)))?;
    let diff_ids = row.get_ref(5)?.as_str()?.split_whitespace().map(str::parse).collect::<Result<_, _>>();
    Ok(ImageRecord {
        id: parsed(row, 0)?,
        manifest: parsed_option(row, 1)?,
        platform,
        created_at: from_micros(row.get(3)?),
        size: row.get::<_, i64>(4)?.cast_unsigned(),
        diff_ids: diff_ids.map_err(|error| bad(5, Box::new(error)))?,
        snapshots: unpack(row, 6)?,
    })
}

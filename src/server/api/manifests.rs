//! Manifests (distribution-spec 1.1, "Pulling manifests", "Pushing Manifests", "Deleting Manifests", "Deleting tags").
//!
//! A manifest is kept byte for byte; what is read of it is what it names. An image whose blobs are not in the repository is refused. An index may name manifests that are
//! not there (a sparse copy for one platform): each of those is a thing of its own.

use hyper::StatusCode;
use hyper::header::{ETAG, IF_NONE_MATCH, LOCATION};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::oci::{Algorithm, Descriptor, Digest, ManifestError, ManifestOrIndex, MediaType, Reference};

use super::super::Error;
use super::super::reply::{CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, Refusal, Reply};
use super::super::request::{Head, RequestBody};
use super::super::route::Target;
use super::super::storage::{NewManifest, Put, Storage, StoredManifest};
use super::{Service, blobs};

/// The largest manifest that is taken. The specification asks for 4 MiB at least.
const LIMIT: usize = 8 << 20;

/// `GET` and `HEAD` of `/v2/NAME/manifests/REFERENCE`.
pub(super) async fn get(service: &Service, name: &str, target: &Target, head: &Head) -> Result<Reply, Refusal> {
    let found = match &service.mirror {
        Some(mirror) => mirror.manifest(name, target).await?,
        None => {
            let (name, target) = (name.to_owned(), target.clone());
            service.with_storage(move |storage| find(storage, &name, &target)).await?
        }
    };
    let manifest = found.ok_or_else(|| Refusal::unknown_manifest(name, &target.to_string()))?;
    let (digest, etag) = (manifest.digest.to_string(), format!("\"{}\"", manifest.digest));
    if blobs::matches(head.header(IF_NONE_MATCH), &etag) {
        return Ok(Reply::empty(StatusCode::NOT_MODIFIED).with(CONTENT_DIGEST, &digest).with(ETAG, &etag));
    }
    let reply = Reply::document(StatusCode::OK, &manifest.media_type, manifest.bytes);
    Ok(reply.with(CONTENT_DIGEST, &digest).with(ETAG, &etag))
}

/// The manifest that is kept under a name.
pub(in crate::server) fn find(storage: &Storage, name: &str, target: &Target) -> Result<Option<StoredManifest>, Error> {
    match target {
        Target::Digest(digest) => storage.manifest(name, digest),
        Target::Tag(tag) => match storage.tag(name, tag)? {
            Some(digest) => storage.manifest(name, &digest),
            None => Ok(None),
        },
    }
}

/// `PUT /v2/NAME/manifests/REFERENCE`; with a digest, any number of `tag` parameters.
pub(super) async fn put(service: &Service, name: &str, target: &Target, head: &Head, body: &mut RequestBody) -> Result<Reply, Refusal> {
    let mut tags: Vec<String> = head.query.all("tag").map(str::to_owned).collect();
    let announced = match target {
        Target::Digest(digest) => Some(digest),
        Target::Tag(tag) => {
            tags.insert(0, tag.clone());
            None
        }
    };
    if let Some(tag) = tags.iter().find(|tag| !Reference::is_tag(tag)) {
        let message = format!("`{tag}` is no tag: use up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message));
    }
    let bytes = body.whole(head, LIMIT).await?;
    let digest = Digest::of(announced.map_or(Algorithm::Sha256, Digest::algorithm), &bytes);
    if let Some(announced) = announced.filter(|announced| **announced != digest) {
        return Err(Refusal::bad_digest(format!(
            "the manifest does not match its digest: {announced} was announced, {digest} has arrived"
        )));
    }
    let manifest = read(digest, bytes, head.content_type()).map_err(invalid)?;
    let digest = manifest.digest.to_string();
    let subject = manifest.referrer.as_ref().map(|(subject, _)| subject.to_string());
    let (repository, names) = (name.to_owned(), tags.clone());
    if let Put::Missing(missing) = service.with_storage(move |storage| storage.put_manifest(&repository, &manifest, &names)).await? {
        let list = missing.iter().map(Digest::to_string).collect::<Vec<_>>();
        let message = format!("the manifest names blobs that `{name}` does not have: {}", list.join(", "));
        let detail = list.iter().map(|digest| json!({ "digest": digest })).collect();
        return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message).detail(detail));
    }
    let mut reply =
        Reply::empty(StatusCode::CREATED).with(LOCATION, &format!("/v2/{name}/manifests/{digest}")).with(CONTENT_DIGEST, &digest);
    if let Some(subject) = subject {
        reply = reply.with(OCI_SUBJECT, &subject);
    }
    for tag in head.query.all("tag") {
        reply = reply.with(OCI_TAG, tag);
    }
    Ok(reply)
}

/// `DELETE /v2/NAME/manifests/REFERENCE`: a digest takes the manifest with its tags away, a tag only itself.
pub(super) async fn delete(service: &Service, name: &str, target: &Target) -> Result<Reply, Refusal> {
    let (repository, wanted) = (name.to_owned(), target.clone());
    let deleted = service
        .with_storage(move |storage| match &wanted {
            Target::Tag(tag) => storage.delete_tag(&repository, tag),
            Target::Digest(digest) => storage.delete_manifest(&repository, digest),
        })
        .await?;
    if deleted { Ok(Reply::empty(StatusCode::ACCEPTED)) } else { Err(Refusal::unknown_manifest(name, &target.to_string())) }
}

/// Why a document is not taken as a manifest.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum Invalid {
    /// It is no manifest that we know.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The request says one thing and the document another.
    #[error("the manifest says that it is `{document}`, and the request `{request}`")]
    OtherType {
        /// `mediaType` in the document.
        document: MediaType,
        /// `Content-Type` of the request.
        request: MediaType,
    },
    /// The fields are those of the other kind.
    #[error("the manifest is sent as `{0}`, and has the fields of something else")]
    OtherKind(MediaType),
}

fn invalid(reason: Invalid) -> Refusal {
    let text = match &reason {
        Invalid::Manifest(ManifestError::Json(error)) => format!("{reason}: {error}"),
        _ => reason.to_string(),
    };
    Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", text)
}

/// What tells the two kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<MediaType>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

/// Reads what a manifest names. `bytes` have the digest `digest`.
pub(in crate::server) fn read(digest: Digest, bytes: Vec<u8>, content_type: Option<&str>) -> Result<NewManifest, Invalid> {
    let request = content_type.map(MediaType::parse);
    // Old tools call everything `application/json`; the document knows better.
    let request = request.filter(|kind| kind.is_manifest() || kind.is_index() || *kind == MediaType::DockerSchema1);
    let parsed = ManifestOrIndex::parse(&bytes, request.as_ref())?;
    let shape: Shape = serde_json::from_slice(&bytes).map_err(ManifestError::Json)?;
    if let (Some(document), Some(request)) = (&shape.media_type, &request)
        && document != request
    {
        return Err(Invalid::OtherType { document: document.clone(), request: request.clone() });
    }
    let media_type = shape.media_type.or(request).unwrap_or_else(|| parsed.media_type());
    let wrong = match &parsed {
        ManifestOrIndex::Manifest(_) => shape.manifests.is_some(),
        ManifestOrIndex::Index(_) => shape.config.is_some() || shape.layers.is_some(),
    };
    if wrong {
        return Err(Invalid::OtherKind(media_type));
    }
    let mut entry = Descriptor::new(media_type.clone(), digest.clone(), bytes.len() as u64);
    let name = |descriptor: &Descriptor| (descriptor.digest.clone(), descriptor.size);
    let (contents, required, subject) = match parsed {
        ManifestOrIndex::Manifest(manifest) => {
            let blobs = || std::iter::once(&manifest.config).chain(&manifest.layers);
            entry.artifact_type = manifest.artifact_type.clone().filter(|kind| !kind.is_empty());
            entry.artifact_type.get_or_insert_with(|| manifest.config.media_type.to_string());
            entry.annotations.clone_from(&manifest.annotations);
            let required = blobs().filter(|blob| !is_foreign(&blob.media_type)).map(|blob| blob.digest.clone()).collect();
            (blobs().map(name).collect(), required, manifest.subject)
        }
        ManifestOrIndex::Index(index) => {
            entry.artifact_type.clone_from(&index.artifact_type);
            entry.annotations.clone_from(&index.annotations);
            (index.manifests.iter().map(name).collect(), Vec::new(), index.subject)
        }
    };
    let referrer = subject.map(|subject| (subject.digest, entry));
    Ok(NewManifest { digest, media_type: media_type.to_string(), bytes, required, contents, referrer })
}

/// Whether a layer is kept elsewhere and must not be pushed.
fn is_foreign(kind: &MediaType) -> bool {
    let text = kind.as_str();
    text.contains(".nondistributable.") || text.contains(".foreign.")
}

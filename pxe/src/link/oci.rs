//! OCI images for hosts: the read part of the distribution API over OCI image layouts.
//!
//! ```text
//!  GET|HEAD /v2/                            {oci_dir}/
//!  GET|HEAD /v2/{name}/manifests/{tag}      {oci_dir}/{name}/index.json, then blobs/
//!  GET|HEAD /v2/{name}/manifests/{digest}   {oci_dir}/{name}/blobs/sha256/{hex}, when the index lists it
//!  GET|HEAD /v2/{name}/blobs/{digest}       {oci_dir}/{name}/blobs/sha256/{hex}
//! ```
//!
//! Names and digests are checked by character before a path is made of them. Clients check digests
//! themselves; nothing served here is trusted for being served here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path as UrlPath, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, RequestPartsExt as _, Router};
use bulkhead_api::id::SiteName;
use bulkhead_api::time::Timestamp;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::peer::{Peer, PeerError};
use crate::service::Service;

/// Annotation that tags a manifest in `index.json` (image-spec, annotations).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `index.json` and manifests are small.
const LONGEST_JSON: u64 = 4 << 20;
/// Bytes a read of a blob.
const PIECE: usize = 64 << 10;

/// An error of the distribution API: its code, and for people what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OciError {
    Unauthorized(PeerError),
    NameInvalid(String),
    NameUnknown(String),
    DigestInvalid(String),
    BlobUnknown(String),
    ManifestInvalid(String),
    ManifestUnknown(String),
    Unreadable(String),
}

impl OciError {
    /// Status, code and sentence.
    pub(super) fn parts(self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Unauthorized(why) => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why.to_string()),
            Self::NameInvalid(name) => (
                StatusCode::BAD_REQUEST,
                "NAME_INVALID",
                format!("name {name:?}: expected a-z, 0-9 and single separators '.', '_' and '-'"),
            ),
            Self::NameUnknown(name) => {
                (StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("image {name:?} is not here"))
            }
            Self::DigestInvalid(text) => (
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                format!("digest {text:?}: expected sha256: and 64 of 0-9 and a-f"),
            ),
            Self::BlobUnknown(digest) => {
                (StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("blob {digest} is not here"))
            }
            Self::ManifestInvalid(text) => (
                StatusCode::BAD_REQUEST,
                "MANIFEST_INVALID",
                format!("reference {text:?}: expected a tag or a digest"),
            ),
            Self::ManifestUnknown(text) => {
                (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("manifest {text} is not here"))
            }
            Self::Unreadable(text) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", text),
        }
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> axum::response::Response {
        let (status, code, message) = self.parts();
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        (status, axum::Json(body)).into_response()
    }
}

/// Where layouts are, and whose hosts may read them.
#[derive(Debug)]
struct Images {
    dir: PathBuf,
    site: SiteName,
    service: Arc<Service>,
}

/// The routes below `/v2/`.
pub(super) fn routes(dir: &Path, site: &SiteName, service: &Arc<Service>) -> Router {
    let service = Arc::clone(service);
    let images = Arc::new(Images { dir: dir.to_owned(), site: site.clone(), service });
    Router::new()
        .route("/v2/", get(version))
        .route("/v2/{name}/manifests/{reference}", get(manifest))
        .route("/v2/{name}/blobs/{digest}", get(blob))
        .with_state(images)
}

/// Proof that a host of this site asks.
struct OfThisSite;

impl FromRequestParts<Arc<Images>> for OfThisSite {
    type Rejection = OciError;

    async fn from_request_parts(parts: &mut Parts, images: &Arc<Images>) -> Result<Self, OciError> {
        let peer = parts.extract::<Extension<Peer>>().await;
        let Ok(Extension(peer)) = peer else {
            return Err(OciError::Unauthorized(PeerError::NoCertificate));
        };
        match peer.trusted_host(&images.site, &images.service, Timestamp::now()) {
            Ok(_) => Ok(Self),
            Err(why) => Err(OciError::Unauthorized(why)),
        }
    }
}

async fn version(_: OfThisSite) -> impl IntoResponse {
    ([("docker-distribution-api-version", "registry/2.0")], axum::Json(serde_json::json!({})))
}

async fn manifest(
    _: OfThisSite,
    State(images): State<Arc<Images>>,
    UrlPath((name, reference)): UrlPath<(String, String)>,
) -> Result<axum::response::Response, OciError> {
    let layout = layout(&images.dir, &name)?;
    let found = find_manifest(&layout, &reference).await?;
    let path = blob_path(&layout, &found.digest)?;
    let bytes = read_small(&path, || OciError::ManifestUnknown(found.digest.clone())).await?;
    let headers = [
        (header::CONTENT_TYPE, found.media_type),
        (header::HeaderName::from_static("docker-content-digest"), found.digest.clone()),
    ];
    Ok((headers, bytes).into_response())
}

async fn blob(
    _: OfThisSite,
    State(images): State<Arc<Images>>,
    UrlPath((name, digest)): UrlPath<(String, String)>,
) -> Result<axum::response::Response, OciError> {
    let path = blob_path(&layout(&images.dir, &name)?, &digest)?;
    let file = match File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OciError::BlobUnknown(digest));
        }
        Err(error) => return Err(OciError::Unreadable(format!("open blob {digest}: {error}"))),
    };
    let size = match file.metadata().await {
        Ok(data) if data.is_file() => data.len(),
        Ok(_) => return Err(OciError::BlobUnknown(digest)),
        Err(error) => return Err(OciError::Unreadable(format!("size of blob {digest}: {error}"))),
    };
    Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, size)
        .header("docker-content-digest", &digest)
        .body(Body::from_stream(pieces(file)))
        .map_err(|error| OciError::Unreadable(error.to_string()))
}

fn pieces(file: File) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let count = file.read_buf(&mut piece).await?;
        Ok((count > 0).then(|| (Bytes::from(piece), file)))
    })
}

/// The folder of an image below `dir`.
pub(super) fn layout(dir: &Path, name: &str) -> Result<PathBuf, OciError> {
    if !is_name(name) {
        return Err(OciError::NameInvalid(name.to_owned()));
    }
    let layout = dir.join(name);
    if !layout.join("index.json").is_file() {
        return Err(OciError::NameUnknown(name.to_owned()));
    }
    Ok(layout)
}

/// One component of a name (distribution-spec, "Pulling manifests"): alphanumerics separated by one of
/// `.`, `_`, `__` or any number of `-`.
fn is_name(text: &str) -> bool {
    let alphanumeric = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let separator =
        |part: &str| matches!(part, "" | "." | "_" | "__") || part.bytes().all(|byte| byte == b'-');
    ends && bytes.len() <= 128 && separators.into_iter().all(separator)
}

fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= 128 && text.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

pub(super) fn blob_path(layout: &Path, digest: &str) -> Result<PathBuf, OciError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    });
    let hex = hex.ok_or_else(|| OciError::DigestInvalid(digest.to_owned()))?;
    Ok(layout.join("blobs/sha256").join(hex))
}

/// A descriptor (image-spec, descriptor), as far as it is looked at here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
}

/// What an entry of an image index is for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The descriptor of a tag, or of a digest that the layout lists as a manifest.
pub(super) async fn find_manifest(layout: &Path, reference: &str) -> Result<Descriptor, OciError> {
    let unknown = || OciError::ManifestUnknown(reference.to_owned());
    let listed = index(&layout.join("index.json"), unknown).await?;
    if is_tag(reference) {
        let tagged = |entry: &&Descriptor| {
            entry.annotations.get(REF_NAME).is_some_and(|tag| tag == reference)
        };
        return listed.iter().find(tagged).cloned().ok_or_else(unknown);
    }
    if blob_path(layout, reference).is_err() {
        return Err(OciError::ManifestInvalid(reference.to_owned()));
    }
    if let Some(entry) = listed.iter().find(|entry| entry.digest == reference) {
        return Ok(entry.clone());
    }
    // A manifest of one platform, listed by an image index that is listed itself.
    for entry in listed.iter().filter(|entry| entry.media_type.contains("index")) {
        let nested = index(&blob_path(layout, &entry.digest)?, unknown).await?;
        if let Some(entry) = nested.into_iter().find(|entry| entry.digest == reference) {
            return Ok(entry);
        }
    }
    Err(unknown())
}

pub(super) async fn index(
    path: &Path,
    unknown: impl Fn() -> OciError,
) -> Result<Vec<Descriptor>, OciError> {
    let bytes = read_small(path, unknown).await?;
    let index: Result<Index, _> = serde_json::from_slice(&bytes);
    index
        .map(|index| index.manifests)
        .map_err(|error| OciError::Unreadable(format!("index of the layout: {error}")))
}

pub(super) async fn read_small(
    path: &Path,
    unknown: impl Fn() -> OciError,
) -> Result<Vec<u8>, OciError> {
    let read = async || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(path).await?;
        file.take(LONGEST_JSON + 1).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    match read().await {
        Ok(bytes) if bytes.len() as u64 > LONGEST_JSON => {
            Err(OciError::Unreadable(format!("document is longer than {LONGEST_JSON} bytes")))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
        Err(error) => Err(OciError::Unreadable(format!("read document: {error}"))),
    }
}

#[cfg(test)]
mod tests;

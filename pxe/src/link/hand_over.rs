//! A host asks for its machine to be handed over: the spec that the site verified says what is booted, the UKI comes
//! out of the site's images, and the answer leaves when all of it is on disk.

use std::sync::Arc;

use bulkhead_api::boot::SITE_IMAGES;
use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::link::{HandOverAnswer, HandOverRefusal};
use serde::Deserialize;
use tracing::{info, warn};

use super::Shared;
use super::enrol::blocking;
use super::oci::{Descriptor, OciError, blob_path, find_manifest, index, layout, read_small};
use super::peer::HostPeer;
use crate::service::Service;
use crate::site::Departure;
use crate::tenancy::{HostKey, wanted};
use crate::tenant_uki::{Layer, UkiError};

/// Decides and remembers.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    service: &Arc<Service>,
    peer: &HostPeer,
    lease: LeaseId,
) -> HandOverAnswer {
    let refusal = decide(shared, service, peer, &lease).await.err();
    match &refusal {
        None => info!(host = %peer.host, %lease, "machine is handed over at its next boot"),
        Some(why) => {
            let (reason, message) = (&why.reason, &why.message);
            warn!(host = %peer.host, %lease, reason, message, "machine is not handed over");
        }
    }
    HandOverAnswer { lease, refusal }
}

fn no(reason: &str, message: String, owner: &str) -> HandOverRefusal {
    HandOverRefusal { reason: reason.to_owned(), message, owner: owner.to_owned() }
}

async fn decide(
    shared: &Arc<Shared>,
    service: &Arc<Service>,
    peer: &HostPeer,
    lease: &LeaseId,
) -> Result<(), HandOverRefusal> {
    let broken = |status: tonic::Status| no("Internal", status.message().to_owned(), "site");
    let (cache, whose) = (Arc::clone(shared), peer.host.clone());
    let spec = match blocking(move || cache.specs.get(&whose)).await.map_err(broken)? {
        Ok(Some(kept)) => kept.spec,
        Ok(None) => {
            let message = "the site has no spec of the host that it could verify".to_owned();
            return Err(no("NoSpec", message, "registry"));
        }
        Err(error) => return Err(no("NoSpec", Chain(&error).to_string(), "registry")),
    };
    let (image, boot) = wanted(&spec, lease)?;
    let layers = layers(shared, image).await.map_err(|error| {
        let (_, _, message) = error.parts();
        no("NoImage", format!("{image}: {message}"), "operator")
    })?;
    let taking = Arc::clone(service);
    let taken = blocking(move || taking.tenant_ukis.take(&layers)).await.map_err(broken)?;
    let uki_sha256 = taken.map_err(|error| {
        let owner = match error {
            UkiError::Keep { .. } | UkiError::Read { .. } | UkiError::Digest { .. } => "operator",
            UkiError::MediaType(_)
            | UkiError::Absent
            | UkiError::TooLarge { .. }
            | UkiError::NotPe { .. } => "tenant",
        };
        no("NoUki", format!("{image}: {}", Chain(&error)), owner)
    })?;
    let (service, lease) = (Arc::clone(service), lease.clone());
    let (host, key) = (peer.host.clone(), HostKey { key: peer.key, until: peer.expires });
    let remember = move || {
        service.ask("hand-over", |site, now| {
            let (host, lease, spec) = (&host, &lease, &spec);
            let uki_sha256 = uki_sha256.as_str();
            site.hand_over(&Departure { host, lease, spec, boot, uki_sha256, key }, now)
        })
    };
    match blocking(remember).await.map_err(broken)? {
        Ok(outcome) => outcome.reply.map_or(Ok(()), Err),
        Err(error) => Err(no("NotSaved", Chain(&error).to_string(), "operator")),
    }
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

/// The layers of an image of this site, lowest first.
async fn layers(shared: &Shared, image: &str) -> Result<Vec<Layer>, OciError> {
    let rest = image.strip_prefix(SITE_IMAGES).unwrap_or(image);
    let (name, reference) = match rest.split_once('@') {
        Some(both) => both,
        None => rest.split_once(':').unwrap_or((rest, "latest")),
    };
    let layout = layout(&shared.oci_dir, name)?;
    let unknown = || OciError::ManifestUnknown(reference.to_owned());
    let mut found = find_manifest(&layout, reference).await?;
    if found.media_type.contains("index") || found.media_type.contains("manifest.list") {
        let listed = index(&blob_path(&layout, &found.digest)?, unknown).await?;
        let ours = |entry: &Descriptor| {
            entry.platform.as_ref().is_some_and(|platform| platform.architecture == "amd64")
        };
        found = listed.into_iter().find(ours).ok_or_else(unknown)?;
    }
    let bytes = read_small(&blob_path(&layout, &found.digest)?, unknown).await?;
    let digest = format!("sha256:{}", crate::store::sha256_hex(&bytes));
    if digest != found.digest {
        return Err(OciError::Unreadable(format!("manifest {} has digest {digest}", found.digest)));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| OciError::Unreadable(format!("manifest {digest}: {error}")))?;
    let layer = |found: Descriptor| {
        let path = blob_path(&layout, &found.digest)?;
        Ok(Layer { path, digest: found.digest, media_type: found.media_type })
    };
    manifest.layers.into_iter().map(layer).collect()
}

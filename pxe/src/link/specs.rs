//! The last good spec of each host, in `{state}/specs/{host}.json`: what a host is given when the
//! registry is away.
//!
//! Only a spec that the host would take is kept: signed with a trusted key, for that host, of no older
//! generation. Others are relayed too (the host says why it refuses them) but do not replace a good one.

use std::path::{Path, PathBuf};

use bulkhead_api::id::HostId;
use bulkhead_api::spec::{HostSpec, SignedSpec, SpecKeys, SpecRefusal, verify};
use bytes::Bytes;

use crate::store::{StoreError, private_dir, read_if_there, replace};

/// Why a spec is not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    #[error("signed spec is not JSON of its form")]
    Json(#[source] serde_json::Error),
    #[error(transparent)]
    Refused(SpecRefusal),
    #[error("generation {offered} is older than generation {kept}, which is kept")]
    Old { offered: u64, kept: u64 },
    #[error(transparent)]
    Store(StoreError),
}

/// The cache.
#[derive(Debug)]
pub(super) struct SpecCache {
    dir: PathBuf,
    trusted: SpecKeys,
}

/// A kept spec as it travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptSpec {
    pub(super) spec: HostSpec,
    pub(super) signed_json: Bytes,
}

impl SpecCache {
    /// The cache in `dir`, which is made when missing.
    pub(super) fn open(dir: &Path, trusted: SpecKeys) -> Result<Self, StoreError> {
        private_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), trusted })
    }

    /// Keeps `signed_json` for `host`; gives what it says.
    pub(super) fn keep(&self, host: &HostId, signed_json: &[u8]) -> Result<HostSpec, SpecError> {
        let spec = self.judge(host, signed_json)?;
        if let Ok(Some(kept)) = self.get(host)
            && kept.spec.generation > spec.generation
        {
            let (offered, kept) = (spec.generation, kept.spec.generation);
            return Err(SpecError::Old { offered, kept });
        }
        replace(&self.path(host), signed_json).map_err(SpecError::Store)?;
        Ok(spec)
    }

    /// The spec kept for `host`; `None` when there is none.
    pub(super) fn get(&self, host: &HostId) -> Result<Option<KeptSpec>, SpecError> {
        let Some(bytes) = read_if_there(&self.path(host)).map_err(SpecError::Store)? else {
            return Ok(None);
        };
        let spec = self.judge(host, &bytes)?;
        Ok(Some(KeptSpec { spec, signed_json: bytes.into() }))
    }

    fn judge(&self, host: &HostId, signed_json: &[u8]) -> Result<HostSpec, SpecError> {
        let signed: SignedSpec = serde_json::from_slice(signed_json).map_err(SpecError::Json)?;
        let spec = verify(&signed, &self.trusted).map_err(SpecError::Refused)?;
        if spec.host != *host {
            let refusal = SpecRefusal::WrongHost { theirs: spec.host, ours: host.clone() };
            return Err(SpecError::Refused(refusal));
        }
        Ok(spec)
    }

    /// A host id is a DNS label: no path.
    fn path(&self, host: &HostId) -> PathBuf {
        self.dir.join(format!("{host}.json"))
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_api::spec::{SpecKey, sign};
    use bulkhead_api::time::Timestamp;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn signed(host: &str, generation: u64, seed: u8) -> Vec<u8> {
        let spec = HostSpec {
            api_version: "bulkhead.io/v1".into(),
            host: host.parse().unwrap(),
            generation,
            not_before: Timestamp::UNIX_EPOCH,
            expiry: Timestamp::MAX,
            leases: Vec::new(),
            weaker_erase: std::collections::BTreeSet::new(),
            returning: None,
        };
        serde_json::to_vec(&sign(&spec, &key(seed)).unwrap()).unwrap()
    }

    #[test]
    fn only_what_the_host_would_take_replaces_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let trusted = SpecKeys { keys: vec![SpecKey::new(key(1).public_key().as_ref())] };
        let cache = SpecCache::open(dir.path(), trusted).unwrap();
        let host: HostId = "lab-000001".parse().unwrap();
        assert_eq!(cache.get(&host).unwrap(), None);
        let good = signed("lab-000001", 5, 1);
        assert_eq!(cache.keep(&host, &good).unwrap().generation, 5);
        let old = cache.keep(&host, &signed("lab-000001", 4, 1)).unwrap_err();
        assert!(matches!(old, SpecError::Old { offered: 4, kept: 5 }), "{old}");
        let other = cache.keep(&host, &signed("lab-000002", 6, 1)).unwrap_err();
        assert!(matches!(other, SpecError::Refused(SpecRefusal::WrongHost { .. })), "{other}");
        let forged = cache.keep(&host, &signed("lab-000001", 6, 2)).unwrap_err();
        assert!(matches!(forged, SpecError::Refused(SpecRefusal::UnknownKey { .. })), "{forged}");
        assert!(matches!(cache.keep(&host, b"{").unwrap_err(), SpecError::Json(_)));
        let kept = cache.get(&host).unwrap().unwrap();
        assert_eq!((kept.spec.generation, kept.signed_json.to_vec()), (5, good));
        // The same generation again is no news, and no fault.
        assert_eq!(cache.keep(&host, &signed("lab-000001", 5, 1)).unwrap().generation, 5);
    }

    #[test]
    fn a_damaged_file_is_not_handed_out_and_is_replaced_by_the_next_good_spec() {
        let dir = tempfile::tempdir().unwrap();
        let trusted = SpecKeys { keys: vec![SpecKey::new(key(1).public_key().as_ref())] };
        let cache = SpecCache::open(dir.path(), trusted).unwrap();
        let host: HostId = "lab-000001".parse().unwrap();
        cache.keep(&host, &signed("lab-000001", 5, 1)).unwrap();
        std::fs::write(dir.path().join("lab-000001.json"), b"{\"keyId\":").unwrap();
        assert!(cache.get(&host).is_err());
        assert_eq!(cache.keep(&host, &signed("lab-000001", 2, 1)).unwrap().generation, 2);
    }
}

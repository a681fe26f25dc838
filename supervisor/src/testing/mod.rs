//! What tests of several modules need: a fleet's authority, a site that speaks real gRPC over real TLS, and
//! the files that stage 1 leaves.

mod authority;
mod site;

use std::path::Path;
use std::time::Duration;

use bulkhead_api::boot::{BootFacts, SiteBoot};
use bulkhead_api::id::{HostId, TicketSecret};
use bulkhead_api::spec::{HostSpec, SignedSpec, SpecKey, SpecKeys, sign};
use bulkhead_api::time::Timestamp;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

pub(crate) use self::authority::{Authority, DayRange};
pub(crate) use self::site::{Attached, Enrolment, Site, Verdict};
use crate::paths::Paths;

/// The ticket in [`boot_files`].
pub(crate) const TICKET: &str = "one-time";

/// Nothing here takes so long unless it is broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn host_id() -> HostId {
    "s1-000001".parse().unwrap()
}

/// The key that the image trusts.
pub(crate) fn spec_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

pub(crate) fn spec_keys() -> SpecKeys {
    SpecKeys { keys: vec![SpecKey::new(spec_key().public_key().as_ref())] }
}

/// A spec for [`host_id`] without leases, valid for an hour around now.
pub(crate) fn spec(generation: u64) -> HostSpec {
    let now = Timestamp::now();
    HostSpec {
        api_version: "bulkhead.io/v1".to_owned(),
        host: host_id(),
        generation,
        not_before: now - Duration::from_secs(1800),
        expiry: now + Duration::from_secs(1800),
        leases: Vec::new(),
        weaker_erase: std::collections::BTreeSet::new(),
        returning: None,
    }
}

pub(crate) fn signed(spec: &HostSpec) -> SignedSpec {
    sign(spec, &spec_key()).unwrap()
}

pub(crate) fn json(spec: &HostSpec) -> Vec<u8> {
    serde_json::to_vec(&signed(spec)).unwrap()
}

/// What stage 1 leaves on a host that was booted by the site at `link`.
pub(crate) fn boot_files(root: &Path, authority: &Authority, link: &str) -> Paths {
    let paths = Paths::below(root);
    std::fs::create_dir_all(paths.run.join("trust")).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    std::fs::write(root.join("dev/console"), "").unwrap();
    std::fs::write(paths.fleet_ca(), authority.ca_pem()).unwrap();
    std::fs::write(paths.spec_keys(), serde_json::to_vec(&spec_keys()).unwrap()).unwrap();
    let facts = BootFacts {
        site: SiteBoot {
            site: "s1".parse().unwrap(),
            ticket: TicketSecret::new(TICKET.to_owned()),
            link: link.to_owned(),
            extensions: Vec::new(),
            boot: 3,
            returning: None,
        },
        image_version: "1.2.3".to_owned(),
        nic: "eth0".to_owned(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        uuid: None,
        address: [10, 9, 0, 5].into(),
        prefix: 24,
        gateway: None,
        marks: Vec::new(),
    };
    std::fs::write(paths.boot_facts(), serde_json::to_vec(&facts).unwrap()).unwrap();
    paths
}

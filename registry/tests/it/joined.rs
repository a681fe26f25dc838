//! A site with a host, as most tests begin.

use bulkhead_api::id::HostId;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::site::{Attached, FakeHost, Member, attach, enrol_host, join};

pub(crate) const SITE: &str = "sjc-01";
pub(crate) const MAC: &str = "52:54:00:00:00:01";
pub(crate) const MAC_2: &str = "52:54:00:00:00:02";
pub(crate) const UUID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const UUID_2: &str = "11111111-2222-3333-4444-666666666666";
pub(crate) const LEASE: &str = "/v1/tenants/acme/leases/llm";

/// A site with one host that has reported.
pub(crate) struct Joined {
    pub(crate) site: Member,
    pub(crate) stream: Attached,
    pub(crate) host: FakeHost,
}

pub(crate) async fn joined(fleet: &Fleet) -> Joined {
    let ticket = fleet.rest().prepare(SITE);
    let site = join(fleet, &ticket).await;
    let mut stream = attach(fleet, &site).await;
    let id = enrol_host(fleet, &site, MAC, UUID).await.unwrap();
    let mut host = FakeHost::new(fleet, &id);
    host.take(&stream.signed_spec(&id).await);
    host.settle();
    host.hello(&stream).await;
    host.report(&stream).await;
    is_phase(fleet, &id, "Ready");
    Joined { site, stream, host }
}

pub(crate) fn is_phase(fleet: &Fleet, host: &HostId, phase: &str) -> Value {
    let path = format!("/v1/hosts/{host}");
    fleet.rest().until(&path, |_, body| body["status"]["phase"] == phase)
}

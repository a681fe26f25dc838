use bulkhead_api::spec::WantedLease;
use proptest::prelude::*;

use super::super::{Artefact, EnrolmentResult, State};
use super::*;
use crate::client::ClientKind;
use crate::policy::Door;
use crate::samples::{
    FIRST, SERVER, at, auto, http_boot, key, list, mac, pxe, secret, site, stage1,
};
use crate::wire::dhcp4::{ClientMessage, Reply, Request};

const SHA: &str = "abababababababababababababababababababababababababababababababab";

fn host() -> HostId {
    "lab-1".parse().unwrap()
}

fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

fn spec(generation: u64, wanted: Option<&str>, returning: Option<&str>) -> HostSpec {
    let metal = |name: &str| {
        let spec = serde_json::json!({
            "instance": "bareMetal", "cpus": 1, "memory": "1Gi",
            "workload": { "image": "oci://bulkhead.site/os:1" },
        });
        WantedLease { id: lease(name), spec: serde_json::from_value(spec).unwrap() }
    };
    HostSpec {
        api_version: "bulkhead.io/v1".to_owned(),
        host: host(),
        generation,
        not_before: Timestamp::UNIX_EPOCH,
        expiry: Timestamp::MAX,
        leases: wanted.map(metal).into_iter().collect(),
        weaker_erase: std::collections::BTreeSet::new(),
        returning: returning.map(lease),
    }
}

/// DISCOVER, then REQUEST of what was offered: the ACK.
fn dhcp(site: &mut Site, request: &Request, random: u8, now: Timestamp) -> Reply {
    let discover = Request { message: ClientMessage::Discover, ..request.clone() };
    let offered = site.dhcp(&discover, Door::Server, secret(random), now).reply.unwrap().0;
    let asks = Request {
        message: ClientMessage::Request,
        requested_ip: Some(offered.yiaddr),
        server_id: Some(SERVER),
        ..request.clone()
    };
    let acked = site.dhcp(&asks, Door::Server, secret(random), now).reply.unwrap().0;
    assert_eq!(acked.boot_file, offered.boot_file, "offer and acknowledgement name one file");
    acked
}

fn ticket(reply: &Reply) -> Option<String> {
    reply.boot_file.split('/').find(|part| part.len() == 32).map(str::to_owned)
}

fn enrol(site: &mut Site, ticket: &str, number: u8, now: Timestamp) -> bool {
    let uuid = site.state.machines.get(mac(1)).and_then(|known| known.uuid);
    let begun = site.begin_enrolment(ticket, mac(1), uuid, key(number), now);
    let Some(pass) = begun.reply else { return false };
    site.finish_enrolment(&pass, mac(1), &EnrolmentResult::Granted(host()), now);
    true
}

/// A machine that booted our image and enrolled as `host()`, with the ticket of that boot.
fn joined(site: &mut Site) -> String {
    let firmware = Request { machine_id: None, ..http_boot(1, ClientMessage::Discover) };
    let secret = ticket(&dhcp(site, &firmware, 1, at(0))).unwrap();
    assert!(enrol(site, &secret, 1, at(1)));
    secret
}

fn ask(site: &mut Site, name: &str, spec: &HostSpec, now: Timestamp) -> Option<HandOverRefusal> {
    let departure = Departure {
        host: &host(),
        lease: &lease(name),
        spec,
        boot: MetalBoot::Always,
        uki_sha256: SHA,
        key: HostKey { key: key(1), until: at(10_000) },
    };
    let outcome = site.hand_over(&departure, now);
    assert_eq!(outcome.save, outcome.reply.is_none(), "a yes is on disk before it is said");
    outcome.reply
}

#[test]
fn a_machine_that_is_handed_over_boots_the_tenants_uki_and_nothing_of_ours() {
    let mut site = site(auto());
    let old = joined(&mut site);
    assert!(ask(&mut site, "metal", &spec(2, Some("metal"), None), at(2)).is_none());
    assert!(site.tenant_uki(SHA, FIRST, at(3)).reply.is_some());
    assert!(site.artefact(&old, &Artefact::BootJson, FIRST, at(3)).reply.is_none());
    assert!(!enrol(&mut site, &old, 1, at(3)), "not even by the key that has the certificate");
    // Firmware: the tenant's, by HTTP and by TFTP; a stage 1 that says it is ours gets an address.
    let http = dhcp(&mut site, &http_boot(1, ClientMessage::Discover), 2, at(4));
    assert_eq!(http.boot_file, format!("http://10.9.0.1/t/{SHA}/uki.efi"));
    let tftp = dhcp(&mut site, &pxe(1, ClientMessage::Discover), 3, at(5));
    assert_eq!(tftp.boot_file, format!("t/{SHA}/uki.efi"));
    assert_eq!(dhcp(&mut site, &stage1(1, ClientMessage::Discover), 4, at(6)).boot_file, "");
    assert!(site.is_void(key(1)), "it left our image");
    // Nobody else is given it, and nothing else is given to it.
    assert!(site.tenant_uki(SHA, [10, 9, 0, 101].into(), at(7)).reply.is_none());
    assert!(site.tenant_uki(&"0".repeat(64), FIRST, at(7)).reply.is_none());
    let renewal = site.begin_renewal(&host(), mac(1), None, at(7));
    assert!(renewal.reply.is_none(), "{renewal:?}");
    // What a tenant tries is no word against the machine.
    let shown = site.machines().remove(0);
    assert_eq!(shown.reason, "");
    assert_eq!(shown.tenancy.unwrap().stage, TenancyStage::Given);
    // The signed spec takes it back: our image, told whom it comes from.
    assert!(site.spec_verified(&spec(3, None, Some("metal")), at(8)));
    assert!(site.tenant_uki(SHA, FIRST, at(9)).reply.is_none());
    let back = ticket(&dhcp(&mut site, &http_boot(1, ClientMessage::Discover), 5, at(10))).unwrap();
    let opened = site.artefact(&back, &Artefact::BootJson, FIRST, at(11)).reply.unwrap();
    assert_eq!(opened.returning, Some(lease("metal")));
    assert!(enrol(&mut site, &back, 2, at(12)));
    assert!(site.is_void(key(1)) && !site.is_void(key(2)));
    let early = ask(&mut site, "next", &spec(4, Some("next"), Some("metal")), at(13)).unwrap();
    assert_eq!(early.reason, "OtherTenant");
    assert!(site.spec_verified(&spec(5, None, None), at(14)));
    assert!(site.machines().remove(0).tenancy.is_none());
    assert!(ask(&mut site, "next", &spec(6, Some("next"), None), at(15)).is_none());
}

#[test]
fn a_machine_that_may_not_boot_is_not_handed_over_and_one_that_may_not_any_more_boots_nothing() {
    let mut site = site(auto());
    joined(&mut site);
    let wanted = spec(2, Some("metal"), None);
    site.set_admission(list(&[(mac(2), None)]));
    assert_eq!(ask(&mut site, "metal", &wanted, at(2)).unwrap().reason, "NotAdmitted");
    site.set_admission(auto());
    assert!(ask(&mut site, "metal", &wanted, at(3)).is_none());
    assert!(ask(&mut site, "metal", &wanted, at(4)).is_none(), "the answer may have been lost");
    assert_eq!(ask(&mut site, "other", &wanted, at(4)).unwrap().reason, "OtherTenant");
    site.set_admission(list(&[(mac(2), None)]));
    let firmware = Request { machine_id: None, ..http_boot(1, ClientMessage::Discover) };
    assert_eq!(dhcp(&mut site, &firmware, 2, at(5)).boot_file, "");
    assert!(site.tenant_uki(SHA, FIRST, at(6)).reply.is_none());
}

/// What can happen to a site, in any order.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody asks by DHCP.
    Boot(ClientKind),
    /// An old or new ticket is shown for our image and for an enrolment.
    Tickets,
    HandOver,
    /// A spec that the site verified: with the lease, or without it.
    Spec(bool),
    /// The site is killed and starts from its disk.
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Boot(ClientKind::HttpBoot)),
        Just(Event::Boot(ClientKind::Pxe)),
        Just(Event::Boot(ClientKind::Stage1)),
        Just(Event::Tickets),
        Just(Event::HandOver),
        any::<bool>().prop_map(Event::Spec),
        Just(Event::Restart),
    ]
}

proptest! {
    /// The oracle knows three words: the site said yes, and no newer verified spec was without the lease since.
    #[test]
    fn nothing_of_ours_is_for_a_machine_that_a_tenant_has(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut site = site(auto());
        let mut tickets = vec![joined(&mut site)];
        let (mut held, mut generation, mut wanted) = (false, 2_u64, true);
        let mut disk = serde_json::to_vec(&site.state).unwrap();
        for (step, event) in (1_u8..).zip(events) {
            let now = at(10 + i64::from(step) * 60);
            match event {
                Event::Boot(client) => {
                    let request = match client {
                        ClientKind::HttpBoot => http_boot(1, ClientMessage::Discover),
                        ClientKind::Pxe => pxe(1, ClientMessage::Discover),
                        ClientKind::Stage1 => stage1(1, ClientMessage::Discover),
                    };
                    let request = Request { xid: u32::from(step) << 8, ..request };
                    let reply = dhcp(&mut site, &request, step, now);
                    prop_assert!(!held || ticket(&reply).is_none(), "{:?}", reply.boot_file);
                    prop_assert_eq!(reply.boot_file.contains(SHA), held && client != ClientKind::Stage1);
                    prop_assert!(!held || site.is_void(key(1)));
                    tickets.extend(ticket(&reply));
                }
                Event::Tickets => {
                    for secret in &tickets {
                        let ours = [Artefact::Uki, Artefact::BootJson].iter().any(|artefact| {
                            site.artefact(secret, artefact, FIRST, now).reply.is_some()
                        });
                        let enrolled = enrol(&mut site, secret, 2, now);
                        prop_assert!(!held || !(ours || enrolled));
                    }
                }
                Event::HandOver => {
                    let name = wanted.then_some("metal");
                    let returning = (!wanted).then_some("metal");
                    let spec = spec(generation, name, returning);
                    // The edge asks `tenancy::wanted` first.
                    if wanted && ask(&mut site, "metal", &spec, now).is_none() {
                        held = true;
                    }
                }
                Event::Spec(with) => {
                    (generation, wanted) = (generation + 1, with);
                    let returning = (!with).then_some("metal");
                    site.spec_verified(&spec(generation, with.then_some("metal"), returning), now);
                    held &= with;
                }
                Event::Restart => {
                    site.state = serde_json::from_slice::<State>(&disk).unwrap();
                    site.state.tickets.forget_forwarded();
                }
            }
            disk = serde_json::to_vec(&site.state).unwrap();
        }
    }
}

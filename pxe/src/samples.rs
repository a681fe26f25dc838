//! Machines and messages that tests speak of.

use std::net::Ipv4Addr;

use bulkhead_api::id::{MacAddr, SystemUuid};
use bulkhead_api::site::{Admission, AdmissionMode, AdmittedMachine};
use bulkhead_api::time::Timestamp;

use crate::bindings::Pool;
use crate::machines::LoopLimits;
use crate::policy::{Rules, Subnet};
use crate::site::{Site, State};
use crate::tickets::{KeyDigest, Secret};
use crate::wire::dhcp4::{ClientMessage, Request};

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);

pub(crate) fn mac(number: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, number])
}

pub(crate) fn uuid(number: u8) -> SystemUuid {
    SystemUuid::new([number; 16])
}

pub(crate) fn key(number: u8) -> KeyDigest {
    KeyDigest::of(&[number])
}

/// Seconds since the tests began.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

pub(crate) fn secret(number: u8) -> Secret {
    Secret::new([number; 16])
}

pub(crate) fn pool() -> Pool {
    Pool { first: FIRST, last: Ipv4Addr::new(10, 9, 0, 199) }
}

pub(crate) fn auto() -> Admission {
    Admission { mode: AdmissionMode::Auto, machines: Vec::new() }
}

pub(crate) fn list(machines: &[(MacAddr, Option<SystemUuid>)]) -> Admission {
    let machines = machines.iter().map(|&(mac, uuid)| AdmittedMachine { mac, uuid }).collect();
    Admission { mode: AdmissionMode::List, machines }
}

pub(crate) fn rules(admission: Admission) -> Rules {
    let subnet = Subnet { address: SERVER, prefix: 24 };
    Rules { server: SERVER, subnet, admission, authoritative: true }
}

pub(crate) fn site(admission: Admission) -> Site {
    Site {
        state: State::default(),
        rules: rules(admission),
        pool: pool(),
        loops: LoopLimits::default(),
        http_base: "http://10.9.0.1".to_owned(),
    }
}

/// A message of a client that boots nothing.
pub(crate) fn os(number: u8, message: ClientMessage) -> Request {
    Request {
        message,
        xid: u32::from(number) << 16,
        secs: 0,
        flags: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: Ipv4Addr::UNSPECIFIED,
        hops: 0,
        mac: mac(number),
        requested_ip: None,
        server_id: None,
        max_size: Some(1472),
        vendor_class: Vec::new(),
        user_class: Vec::new(),
        client_id: None,
        archs: Vec::new(),
        machine_id: None,
        relay: None,
        has_ipxe_options: false,
    }
}

fn with_uuid(mut request: Request, number: u8) -> Request {
    request.machine_id = Some([vec![0], uuid(number).to_smbios().to_vec()].concat());
    request
}

/// UEFI HTTP boot as EDK2 does it.
pub(crate) fn http_boot(number: u8, message: ClientMessage) -> Request {
    let vendor_class = b"HTTPClient:Arch:00016:UNDI:003001".to_vec();
    with_uuid(Request { vendor_class, archs: vec![16], ..os(number, message) }, number)
}

/// UEFI PXE as EDK2 does it.
pub(crate) fn pxe(number: u8, message: ClientMessage) -> Request {
    let vendor_class = b"PXEClient:Arch:00007:UNDI:003001".to_vec();
    with_uuid(Request { vendor_class, archs: vec![7], ..os(number, message) }, number)
}

/// Our own stage 1.
pub(crate) fn stage1(number: u8, message: ClientMessage) -> Request {
    let vendor_class = b"bulkhead-stage1".to_vec();
    let xid = 0x5157_0000 | u32::from(number);
    with_uuid(Request { vendor_class, xid, ..os(number, message) }, number)
}

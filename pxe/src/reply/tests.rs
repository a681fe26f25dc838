use super::*;
use crate::policy::Boot;
use crate::samples::{FIRST, SERVER, auto, http_boot, os, pxe, rules, secret, stage1};
use crate::wire::dhcp4::ClientMessage;

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);

fn offer(kind: Option<ClientKind>) -> Answer {
    let boot = kind.map(Boot::Ours);
    Answer::Offer { address: FIRST, boot }
}

fn built(request: &Request, answer: Answer, kind: Option<ClientKind>) -> Reply {
    let offer = kind.map(|kind| BootOffer {
        kind,
        file: BootFile::Ours(secret(0xab)),
        http_base: "http://10.9.0.1",
    });
    build(request, answer, offer, &rules(auto())).unwrap()
}

fn option(reply: &Reply, number: u8) -> Option<&[u8]> {
    let found = reply.options.iter().find(|(code, _)| *code == number);
    found.map(|(_, value)| value.as_slice())
}

#[test]
fn http_boot_gets_a_url_and_nothing_of_tftp() {
    let request = http_boot(1, ClientMessage::Discover);
    let reply = built(&request, offer(Some(ClientKind::HttpBoot)), Some(ClientKind::HttpBoot));
    let ticket = secret(0xab).expose();
    assert_eq!(reply.boot_file, format!("http://10.9.0.1/b/{ticket}/uki.efi"));
    assert!(reply.boot_file.len() < 128, "fits the field file as well");
    assert_eq!(
        option(&reply, code::VENDOR_CLASS),
        Some(&b"HTTPClient"[..]),
        "the class word alone"
    );
    assert_eq!(option(&reply, code::VENDOR), None);
    assert_eq!(option(&reply, code::TFTP_SERVER), None);
    assert_eq!(reply.sname, "");
    assert!(reply.terminate_boot_file);
}

#[test]
fn pxe_finds_the_server_wherever_it_looks_and_does_no_discovery() {
    let request = pxe(1, ClientMessage::Discover);
    let reply = built(&request, offer(Some(ClientKind::Pxe)), Some(ClientKind::Pxe));
    assert_eq!(reply.boot_file, format!("b/{}/uki.efi", secret(0xab).expose()));
    assert_eq!(option(&reply, code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
    assert_eq!(option(&reply, code::VENDOR), Some(&[6, 1, 8, 255][..]));
    assert_eq!(option(&reply, code::TFTP_SERVER), Some(&b"10.9.0.1"[..]));
    assert_eq!((reply.siaddr, reply.server_id), (SERVER, SERVER));
    assert_eq!(reply.sname, "10.9.0.1");
}

#[test]
fn stage_1_gets_the_folder_of_its_boot() {
    let request = stage1(1, ClientMessage::Discover);
    let reply = built(&request, offer(Some(ClientKind::Stage1)), Some(ClientKind::Stage1));
    assert_eq!(reply.boot_file, format!("http://10.9.0.1/b/{}/", secret(0xab).expose()));
    assert!(!reply.terminate_boot_file);
}

#[test]
fn ipxe_is_told_not_to_wait_for_proxies() {
    let mut request = pxe(1, ClientMessage::Discover);
    request.has_ipxe_options = true;
    let reply = built(&request, offer(Some(ClientKind::Pxe)), Some(ClientKind::Pxe));
    assert_eq!(option(&reply, code::IPXE), Some(&[176, 1, 1][..]));
}

#[test]
fn a_client_that_does_not_boot_gets_an_address_and_no_boot_file() {
    for request in [os(1, ClientMessage::Discover), http_boot(1, ClientMessage::Discover)] {
        let reply = built(&request, offer(None), None);
        assert_eq!((reply.yiaddr, reply.boot_file.as_str()), (FIRST, ""));
        assert_eq!(reply.siaddr, Ipv4Addr::UNSPECIFIED);
        assert_eq!(option(&reply, code::VENDOR_CLASS), None, "else firmware takes it for a boot");
        let seconds = option(&reply, code::LEASE_TIME).unwrap();
        assert_eq!(seconds, STRANGER_SECONDS.to_be_bytes(), "a later admission is noticed");
        assert_eq!(option(&reply, code::SUBNET_MASK), Some(&[255, 255, 255, 0][..]));
    }
}

#[test]
fn what_the_client_sent_is_mirrored_byte_for_byte() {
    let mut request = pxe(1, ClientMessage::Discover);
    let id = vec![0, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6];
    request.machine_id = Some(id.clone());
    request.client_id = Some(vec![1, 2, 3]);
    let reply = built(&request, offer(Some(ClientKind::Pxe)), Some(ClientKind::Pxe));
    assert_eq!(option(&reply, code::MACHINE_ID), Some(&id[..]));
    assert_eq!(option(&reply, code::CLIENT_ID), Some(&[1, 2, 3][..]));
    assert_eq!(
        (reply.xid, reply.flags, reply.mac),
        (request.xid, request.flags, request.mac.octets())
    );
    // ROMs that leave the identifier out get none; an empty one stays empty.
    request.machine_id = None;
    let reply = built(&request, offer(Some(ClientKind::Pxe)), Some(ClientKind::Pxe));
    assert_eq!(option(&reply, code::MACHINE_ID), None);
    request.machine_id = Some(Vec::new());
    let reply = built(&request, offer(Some(ClientKind::Pxe)), Some(ClientKind::Pxe));
    assert_eq!(option(&reply, code::MACHINE_ID), Some(&[][..]));
}

#[test]
fn relay_information_is_the_relays_alone() {
    let mut request = os(1, ClientMessage::Discover);
    request.relay = Some(vec![1, 2, 0xff, 0xfe]);
    assert_eq!(
        built(&request, offer(None), None).relay,
        None,
        "forged by a client without a relay"
    );
    request.giaddr = RELAY;
    let reply = built(&request, offer(None), None);
    assert_eq!(reply.relay, Some(vec![1, 2, 0xff, 0xfe]));
    assert_eq!(reply.giaddr, RELAY);
}

#[test]
fn a_refusal_carries_a_reason_and_no_address() {
    let mut request = os(1, ClientMessage::Request);
    request.ciaddr = FIRST;
    let reply = built(&request, Answer::Nak, None);
    assert_eq!((reply.yiaddr, reply.ciaddr), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
    assert_eq!(reply.message, ServerMessage::Nak);
    assert!(option(&reply, code::MESSAGE).is_some());
    assert_eq!(option(&reply, code::LEASE_TIME), None);
    assert_eq!(reply.flags & 0x8000, 0);
    request.giaddr = RELAY;
    assert_eq!(built(&request, Answer::Nak, None).flags & 0x8000, 0x8000, "the relay broadcasts");
}

#[test]
fn an_answer_to_inform_carries_no_lease() {
    let mut request = os(1, ClientMessage::Inform);
    request.ciaddr = FIRST;
    let reply = built(&request, Answer::AckWithoutAddress { boot: None }, None);
    assert_eq!((reply.yiaddr, reply.ciaddr), (Ipv4Addr::UNSPECIFIED, FIRST));
    assert_eq!(option(&reply, code::LEASE_TIME), None);
}

#[test]
fn each_reply_goes_where_its_client_hears_it() {
    let plain = os(1, ClientMessage::Discover);
    let renewing = Request { ciaddr: FIRST, ..plain.clone() };
    let relayed = Request { giaddr: RELAY, ciaddr: FIRST, ..plain.clone() };
    let rows = [
        (&plain, offer(None), Door::Server, Destination::Broadcast),
        (&renewing, offer(None), Door::Server, Destination::Client(FIRST)),
        (&renewing, Answer::Nak, Door::Server, Destination::Broadcast),
        (&relayed, offer(None), Door::Server, Destination::Relay(RELAY)),
        (&relayed, Answer::Nak, Door::Server, Destination::Relay(RELAY)),
        (&renewing, offer(None), Door::BootServer, Destination::Sender),
    ];
    for (request, answer, door, expected) in rows {
        assert_eq!(destination(request, answer, door), expected, "{answer:?} {door:?}");
    }
}

use bulkhead_api::site::AdmittedMachine;
use proptest::prelude::*;

use super::*;
use crate::machines::{Barred, Machines};
use crate::samples::{FIRST, SERVER, at, auto, http_boot, list, mac, os, pxe, rules, stage1, uuid};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 7);

/// A machine that was never seen, with an address free for it.
fn stranger(number: u8) -> Host<'static> {
    Host {
        mac: Some(mac(number)),
        uuid: Some(uuid(number)),
        known: None,
        twin: None,
        bound: None,
        candidate: Some(FIRST),
        tenancy: None,
    }
}

fn bound(number: u8) -> Host<'static> {
    Host { bound: Some(FIRST), ..stranger(number) }
}

fn offer(boot: Option<Boot>) -> Decision {
    Decision::Reply(Answer::Offer { address: FIRST, boot })
}

fn ack(boot: Option<Boot>) -> Decision {
    Decision::Reply(Answer::Ack { address: FIRST, boot })
}

fn requesting(mut request: Request, server: Option<Ipv4Addr>, wanted: Ipv4Addr) -> Request {
    request.message = ClientMessage::Request;
    request.server_id = server;
    request.requested_ip = Some(wanted);
    request
}

#[test]
fn each_kind_of_client_gets_its_own_boot() {
    use ClientMessage::{Discover, Inform, Request as Asking};
    let rules = rules(auto());
    let renewing = Request { ciaddr: FIRST, ..os(1, Asking) };
    let rows = [
        (
            "HTTP boot",
            http_boot(1, Discover),
            stranger(1),
            offer(Some(Boot::Ours(ClientKind::HttpBoot))),
        ),
        ("PXE", pxe(1, Discover), stranger(1), offer(Some(Boot::Ours(ClientKind::Pxe)))),
        ("stage 1", stage1(1, Discover), stranger(1), offer(Some(Boot::Ours(ClientKind::Stage1)))),
        ("system", os(1, Discover), stranger(1), offer(None)),
        (
            "selecting",
            requesting(http_boot(1, Asking), Some(SERVER), FIRST),
            bound(1),
            ack(Some(Boot::Ours(ClientKind::HttpBoot))),
        ),
        ("init-reboot", requesting(os(1, Asking), None, FIRST), bound(1), ack(None)),
        ("renewing", renewing, bound(1), ack(None)),
        (
            "inform",
            os(1, Inform),
            bound(1),
            Decision::Reply(Answer::AckWithoutAddress { boot: None }),
        ),
        (
            "inform of firmware",
            pxe(1, Inform),
            bound(1),
            Decision::Reply(Answer::AckWithoutAddress { boot: None }),
        ),
    ];
    for (name, request, host, expected) in rows {
        let decision = decide(&Ask::Dhcp(&request, Door::Server), &host, &rules, at(0));
        assert_eq!(decision, expected, "{name}");
    }
}

#[test]
fn each_dhcp_message_that_is_not_ours_has_its_reason() {
    use ClientMessage::{Decline, Discover, Release, Request as Asking};
    let rules = rules(auto());
    let silent = Decision::Silence;
    let full = Host { candidate: None, ..stranger(1) };
    let relayed = |giaddr| Request { giaddr, ..os(1, Discover) };
    let nak = Decision::Reply(Answer::Nak);
    let rows = [
        (
            "chose another",
            requesting(os(1, Asking), Some(OTHER), FIRST),
            bound(1),
            silent(Silence::OtherServer(OTHER)),
        ),
        (
            "chose us, wrong address",
            requesting(os(1, Asking), Some(SERVER), OTHER),
            bound(1),
            nak.clone(),
        ),
        (
            "reboot into our network",
            requesting(os(1, Asking), None, OTHER),
            bound(1),
            silent(Silence::NotOurs(OTHER)),
        ),
        ("reboot from elsewhere", requesting(os(1, Asking), None, FOREIGN), bound(1), nak),
        ("no address named", os(1, Asking), bound(1), silent(Silence::NoAddress)),
        ("pool empty", os(1, Discover), full, silent(Silence::PoolExhausted)),
        ("release", os(1, Release), bound(1), silent(Silence::NoAnswerDefined)),
        ("decline", os(1, Decline), bound(1), silent(Silence::NoAnswerDefined)),
        ("our relay", relayed(OTHER), stranger(1), offer(None)),
        ("foreign relay", relayed(FOREIGN), stranger(1), silent(Silence::ForeignRelay(FOREIGN))),
    ];
    for (name, request, host, expected) in rows {
        let decision = decide(&Ask::Dhcp(&request, Door::Server), &host, &rules, at(0));
        assert_eq!(decision, expected, "{name}");
    }
}

#[test]
fn a_server_that_is_not_the_only_one_refuses_no_foreign_address() {
    let mut rules = rules(auto());
    rules.authoritative = false;
    let request = requesting(os(1, ClientMessage::Request), None, FOREIGN);
    let decision = decide(&Ask::Dhcp(&request, Door::Server), &bound(1), &rules, at(0));
    assert_eq!(decision, Decision::Silence(Silence::NotOurs(FOREIGN)));
}

#[test]
fn the_boot_server_answers_pxe_firmware_that_has_an_address() {
    use ClientMessage::{Discover, Request as Asking};
    let rules = rules(auto());
    let refused = Decision::Silence(Silence::NotForBootServer);
    let answer =
        Decision::Reply(Answer::AckWithoutAddress { boot: Some(Boot::Ours(ClientKind::Pxe)) });
    let rows = [
        ("PXE", pxe(1, Asking), bound(1), answer),
        ("no address yet", pxe(1, Asking), stranger(1), refused.clone()),
        ("discover", pxe(1, Discover), bound(1), refused.clone()),
        ("HTTP boot", http_boot(1, Asking), bound(1), refused.clone()),
        ("system", os(1, Asking), bound(1), refused),
    ];
    for (name, request, host, expected) in rows {
        let decision = decide(&Ask::Dhcp(&request, Door::BootServer), &host, &rules, at(0));
        assert_eq!(decision, expected, "{name}");
    }
}

#[test]
fn each_reason_not_to_boot_names_what_it_is_about() {
    let mut machines = Machines::default();
    machines.see(mac(1), at(0)).uuid = Some(uuid(1));
    let mut held = machines.clone();
    let barred = Barred { reason: "boots in a circle".into(), until: at(100), by_registry: false };
    held.see(mac(1), at(0)).barred = Some(barred);
    let known = |machines: &'static Machines| machines.get(mac(1));
    let (machines, held) = (Box::leak(Box::new(machines)), Box::leak(Box::new(held)));
    let host = Host { known: known(machines), ..stranger(1) };
    let rows = [
        ("auto", auto(), host, 0, None),
        ("listed", list(&[(mac(1), None)]), host, 0, None),
        ("listed with its UUID", list(&[(mac(1), Some(uuid(1)))]), host, 0, None),
        ("not listed", list(&[(mac(2), None)]), host, 0, Some("52:54:00:00:00:01 is not on")),
        ("default", Admission::default(), host, 0, Some("is not on")),
        ("other UUID listed", list(&[(mac(1), Some(uuid(2)))]), host, 0, Some("02020202-0202")),
        (
            "no UUID shown",
            list(&[(mac(1), Some(uuid(2)))]),
            Host { uuid: None, ..host },
            0,
            Some("says none"),
        ),
        ("twin", auto(), Host { twin: Some(mac(9)), ..host }, 0, Some("52:54:00:00:00:09")),
        ("UUID changed", auto(), Host { uuid: Some(uuid(3)), ..host }, 0, Some("03030303")),
        ("UUID not shown", auto(), Host { uuid: None, ..host }, 0, None),
        ("held", auto(), Host { known: known(held), ..host }, 99, Some("circle")),
        ("held until now", auto(), Host { known: known(held), ..host }, 100, None),
    ];
    for (name, policy, host, seconds, expected) in rows {
        let verdict = admission(&host, &rules(policy), at(seconds));
        match (verdict, expected) {
            (Ok(()), None) => {}
            (Err(why), Some(text)) => assert!(why.to_string().contains(text), "{name}: {why}"),
            (verdict, _) => panic!("{name}: {verdict:?}"),
        }
    }
}

#[test]
fn an_artefact_goes_to_the_address_of_its_tickets_machine_alone() {
    let rules = rules(auto());
    let ask = |ticket: Result<(), TicketRefusal>, from| Ask::Artefact { ticket, from };
    let refuse = Decision::Refuse;
    let rows = [
        (ask(Ok(()), FIRST), bound(1), Decision::Reply(Answer::Artefact)),
        (ask(Ok(()), OTHER), bound(1), refuse(Refusal::WrongAddress { from: OTHER, bound: FIRST })),
        (ask(Ok(()), FIRST), stranger(1), refuse(Refusal::NoBinding(FIRST))),
        (
            ask(Err(TicketRefusal::Unknown), FIRST),
            bound(1),
            refuse(Refusal::Ticket(TicketRefusal::Unknown)),
        ),
    ];
    for (ask, host, expected) in rows {
        assert_eq!(decide(&ask, &host, &rules, at(0)), expected, "{ask:?}");
    }
}

#[test]
fn an_enrolment_needs_its_ticket_or_its_own_certificate_and_admission() {
    let (open, closed) = (rules(auto()), rules(Admission::default()));
    let not_listed = Decision::Quarantine(Quarantine::NotListed(mac(1)), None);
    let used = Decision::Refuse(Refusal::Ticket(TicketRefusal::Used));
    let rows = [
        (Ask::Enrol { ticket: Ok(()) }, &open, Decision::Reply(Answer::Enrol)),
        (Ask::Enrol { ticket: Err(TicketRefusal::Used) }, &open, used),
        (Ask::Enrol { ticket: Ok(()) }, &closed, not_listed.clone()),
        (Ask::Renew { is_its_own: true }, &open, Decision::Reply(Answer::Enrol)),
        (Ask::Renew { is_its_own: false }, &open, Decision::Refuse(Refusal::OtherHost)),
        (Ask::Renew { is_its_own: true }, &closed, not_listed),
    ];
    for (ask, rules, expected) in rows {
        assert_eq!(decide(&ask, &bound(1), rules, at(0)), expected, "{ask:?}");
    }
}

fn any_message() -> impl Strategy<Value = ClientMessage> {
    prop_oneof![
        Just(ClientMessage::Discover),
        Just(ClientMessage::Request),
        Just(ClientMessage::Decline),
        Just(ClientMessage::Release),
        Just(ClientMessage::Inform),
    ]
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![Just(Ipv4Addr::UNSPECIFIED), Just(FIRST), Just(OTHER), Just(SERVER), Just(FOREIGN),]
}

fn any_class() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"HTTPClient:Arch:00016".to_vec()),
        Just(b"PXEClient:Arch:00007".to_vec()),
        Just(b"bulkhead-stage1".to_vec()),
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

prop_compose! {
    fn any_request()(
        message in any_message(),
        (ciaddr, giaddr) in (any_address(), any_address()),
        requested_ip in proptest::option::of(any_address()),
        server_id in proptest::option::of(any_address()),
        vendor_class in any_class(),
        archs in proptest::collection::vec(prop_oneof![Just(7_u16), Just(16), any::<u16>()], 0..3),
    ) -> Request {
        let plain = os(1, message);
        Request { ciaddr, giaddr, requested_ip, server_id, vendor_class, archs, ..plain }
    }
}

/// What a decision lets its machine boot.
fn boots(decision: &Decision) -> bool {
    match decision {
        Decision::Reply(Answer::Artefact | Answer::TenantUki | Answer::Enrol) => true,
        Decision::Reply(answer) | Decision::Quarantine(_, Some(answer)) => match answer {
            Answer::Offer { boot, .. }
            | Answer::Ack { boot, .. }
            | Answer::AckWithoutAddress { boot } => boot.is_some(),
            Answer::Nak | Answer::Artefact | Answer::TenantUki | Answer::Enrol => false,
        },
        Decision::Quarantine(_, None) | Decision::Silence(_) | Decision::Refuse(_) => false,
    }
}

proptest! {
    /// One decision for every door: whatever is asked, with whatever ticket.
    #[test]
    fn a_machine_that_is_not_listed_boots_by_no_door(
        request in any_request(),
        from in any_address(),
        bound in proptest::option::of(any_address()),
    ) {
        let rules = rules(list(&[(mac(2), None)]));
        let host = Host { bound, ..stranger(1) };
        let asks = [
            Ask::Dhcp(&request, Door::Server),
            Ask::Dhcp(&request, Door::BootServer),
            Ask::Artefact { ticket: Ok(()), from },
            Ask::Enrol { ticket: Ok(()) },
            Ask::Renew { is_its_own: true },
        ];
        for ask in asks {
            let decision = decide(&ask, &host, &rules, at(0));
            prop_assert!(!boots(&decision), "{:?} -> {:?}", ask, decision);
        }
    }

    /// The reverse: no decision turns an admitted machine's DISCOVER away from its address.
    #[test]
    fn whoever_asks_gets_an_address_while_there_are_any(class in any_class(), listed: bool) {
        let machine = AdmittedMachine { mac: mac(if listed { 1 } else { 2 }), uuid: None };
        let rules = rules(list(&[(machine.mac, None)]));
        let request =
            Request { vendor_class: class, archs: vec![7], ..os(1, ClientMessage::Discover) };
        let decision = decide(&Ask::Dhcp(&request, Door::Server), &stranger(1), &rules, at(0));
        let (Decision::Reply(answer) | Decision::Quarantine(_, Some(answer))) = decision else {
            return Err(TestCaseError::fail(format!("{decision:?}")));
        };
        prop_assert!(matches!(answer, Answer::Offer { address: FIRST, .. }), "{:?}", answer);
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others(address: u32, prefix in 1..=30_u8, other: u32) {
        let subnet = Subnet { address: Ipv4Addr::from_bits(address), prefix };
        let same = (address ^ other).leading_zeros() >= u32::from(prefix);
        prop_assert_eq!(subnet.contains(Ipv4Addr::from_bits(other)), same);
    }
}

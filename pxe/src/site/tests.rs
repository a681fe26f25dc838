use bulkhead_api::machine::MachineAdmission;

use super::enrolment::REFUSED_SECONDS;
use super::*;
use crate::samples::{
    FIRST, SERVER, at, auto, http_boot, key, list, mac, os, pxe, secret, site, stage1, uuid,
};
use crate::wire::dhcp4::ServerMessage;
use ClientMessage::{Discover, Request as Ask4};

const UKI: Artefact = Artefact::Uki;

/// DISCOVER, then REQUEST of what was offered: the ACK.
fn dhcp(site: &mut Site, request: &Request, random: u8, now: Timestamp) -> Reply {
    let discover = Request { message: Discover, ..request.clone() };
    let offered = site.dhcp(&discover, Door::Server, secret(random), now).reply.unwrap().0;
    assert_eq!(offered.message, ServerMessage::Offer);
    let asks = Request {
        message: Ask4,
        requested_ip: Some(offered.yiaddr),
        server_id: Some(SERVER),
        ..request.clone()
    };
    let acked = site.dhcp(&asks, Door::Server, secret(random.wrapping_add(100)), now);
    assert!(acked.save || !acked.report, "news is saved");
    let acked = acked.reply.unwrap().0;
    assert_eq!((acked.message, acked.yiaddr), (ServerMessage::Ack, offered.yiaddr));
    assert_eq!(acked.boot_file, offered.boot_file, "offer and acknowledgement name one file");
    acked
}

/// The ticket in a boot file name.
fn ticket(reply: &Reply) -> String {
    let part = reply.boot_file.split('/').find(|part| part.len() == 32);
    part.unwrap_or_else(|| panic!("no ticket in {:?}", reply.boot_file)).to_owned()
}

fn fetch(site: &mut Site, ticket: &str, artefact: &Artefact, now: Timestamp) -> Option<Opened> {
    site.artefact(ticket, artefact, FIRST, now).reply
}

fn machine(site: &Site, number: u8) -> Machine {
    site.machines().into_iter().find(|machine| machine.mac == mac(number)).unwrap()
}

fn grant(site: &mut Site, ticket: &str, number: u8, now: Timestamp) {
    let begun = site.begin_enrolment(ticket, mac(number), Some(uuid(number)), key(1), now);
    let pass = begun.reply.unwrap();
    let host = format!("lab-{number}").parse().unwrap();
    site.finish_enrolment(&pass, mac(number), &EnrolmentResult::Granted(host), now);
}

#[test]
fn a_machine_goes_from_power_on_to_enrolled_with_one_ticket() {
    let mut site = site(auto());
    let firmware = dhcp(&mut site, &http_boot(1, Discover), 1, at(0));
    let secret = ticket(&firmware);
    assert!(fetch(&mut site, &secret, &UKI, at(1)).is_some());
    assert!(site.delivered(mac(1), &UKI));
    assert_eq!(machine(&site, 1).stage, BootStage::Kernel);
    let stage1 = dhcp(&mut site, &stage1(1, Discover), 2, at(20));
    assert_eq!(ticket(&stage1), secret, "stage 1 takes the ticket of its firmware over");
    let opened = fetch(&mut site, &secret, &Artefact::BootJson, at(21)).unwrap();
    assert_eq!((opened.boot, opened.mac), (1, mac(1)));
    grant(&mut site, &secret, 1, at(40));
    let shown = machine(&site, 1);
    assert_eq!((shown.stage, shown.boots), (BootStage::Enrolled, 1));
    assert_eq!((shown.admission, shown.uuid), (MachineAdmission::Admitted, Some(uuid(1))));
    assert_eq!(shown.address, Some(FIRST));
    assert_eq!(shown.host.unwrap().as_str(), "lab-1");
}

#[test]
fn twenty_power_cycles_are_twenty_boots_and_no_hold() {
    let mut site = site(auto());
    for cycle in 0..20_u8 {
        let now = at(i64::from(cycle) * 60);
        let xid = 0x100 * u32::from(cycle);
        let firmware = Request { xid, ..http_boot(1, Discover) };
        let secret = ticket(&dhcp(&mut site, &firmware, 2 * cycle, now));
        assert!(fetch(&mut site, &secret, &UKI, now).is_some(), "cycle {cycle}");
        let inner = Request { xid: xid + 1, ..stage1(1, Discover) };
        assert_eq!(ticket(&dhcp(&mut site, &inner, 2 * cycle + 1, now)), secret);
        let opened = fetch(&mut site, &secret, &Artefact::BootJson, now).unwrap();
        assert_eq!(opened.boot, u64::from(cycle) + 1);
        grant(&mut site, &secret, 1, now);
        assert_eq!(machine(&site, 1).address, Some(FIRST));
    }
}

/// Nothing of what an unknown machine asks brings it a boot file; each time it gets its address.
#[test]
fn an_unknown_machine_gets_an_address_and_no_boot_file_by_any_door() {
    let mut site = site(list(&[(mac(9), None)]));
    for (round, request) in
        [http_boot(1, Discover), pxe(1, Discover), stage1(1, Discover)].iter().enumerate()
    {
        let reply = dhcp(&mut site, request, 1, at(i64::try_from(round).unwrap()));
        assert_eq!((reply.yiaddr, reply.boot_file.as_str()), (FIRST, ""));
        assert!(!reply.options.iter().any(|(number, _)| *number == 60 || *number == 43));
    }
    let asked = Request { ciaddr: FIRST, ..pxe(1, Ask4) };
    let boot_server = site.dhcp(&asked, Door::BootServer, secret(3), at(4));
    assert_eq!(boot_server.reply, None);
    assert_eq!(site.state.tickets, Tickets::default(), "no ticket was ever made");
    // Nor does a ticket help that it had while it was admitted, or that it guessed or overheard.
    site.state.tickets.mint(secret(7), mac(1), Some(uuid(1)), at(4));
    for artefact in [UKI, Artefact::BootJson] {
        let outcome = site.artefact(&secret(7).expose(), &artefact, FIRST, at(5));
        assert_eq!(outcome.reply, None);
        assert!(matches!(outcome.decision, Decision::Quarantine(Quarantine::NotListed(_), None)));
    }
    let enrolment = site.begin_enrolment(&secret(7).expose(), mac(1), Some(uuid(1)), key(1), at(5));
    assert_eq!(enrolment.reply, None);
    let shown = machine(&site, 1);
    assert_eq!(shown.admission, MachineAdmission::Quarantined);
    assert!(shown.reason.contains("52:54:00:00:00:01 is not on the site's admission list"));
}

#[test]
fn a_machine_admitted_later_boots_at_its_next_try() {
    let mut site = site(list(&[]));
    assert_eq!(dhcp(&mut site, &http_boot(1, Discover), 1, at(0)).boot_file, "");
    assert!(site.set_admission(list(&[(mac(1), None)])));
    assert!(!site.set_admission(list(&[(mac(1), None)])), "no news");
    let again = Request { xid: 99, ..http_boot(1, Discover) };
    assert_ne!(dhcp(&mut site, &again, 2, at(60)).boot_file, "");
    assert_eq!(machine(&site, 1).admission, MachineAdmission::Admitted);
}

#[test]
fn a_second_machine_with_the_same_uuid_is_quarantined_and_the_first_boots_on() {
    let mut site = site(auto());
    dhcp(&mut site, &http_boot(1, Discover), 1, at(0));
    let clone = Request { machine_id: http_boot(1, Discover).machine_id, ..http_boot(2, Discover) };
    let reply = dhcp(&mut site, &clone, 2, at(1));
    assert_eq!(reply.boot_file, "");
    let shown = machine(&site, 2);
    assert_eq!(shown.admission, MachineAdmission::Quarantined);
    assert!(shown.reason.contains("belongs to machine 52:54:00:00:00:01"), "{}", shown.reason);
    let again = Request { xid: 77, ..http_boot(1, Discover) };
    assert_ne!(dhcp(&mut site, &again, 3, at(2)).boot_file, "");
    assert_eq!(machine(&site, 1).admission, MachineAdmission::Admitted);
}

#[test]
fn a_machine_that_changes_its_uuid_is_quarantined_until_it_has_the_old_one_again() {
    let mut site = site(auto());
    dhcp(&mut site, &http_boot(1, Discover), 1, at(0));
    let changed =
        Request { xid: 5, machine_id: http_boot(3, Discover).machine_id, ..http_boot(1, Discover) };
    assert_eq!(dhcp(&mut site, &changed, 2, at(1)).boot_file, "");
    assert_eq!(machine(&site, 1).uuid, Some(uuid(1)), "the first one counts");
    let back = Request { xid: 6, ..http_boot(1, Discover) };
    assert_ne!(dhcp(&mut site, &back, 3, at(2)).boot_file, "");
}

#[test]
fn a_boot_that_goes_in_a_circle_is_held_for_a_while() {
    let mut site = site(auto());
    for boot in 0..3_u8 {
        let request = Request { xid: boot.into(), ..pxe(1, Discover) };
        assert_ne!(dhcp(&mut site, &request, boot, at(boot.into())).boot_file, "");
    }
    let fourth = Request { xid: 10, ..pxe(1, Discover) };
    assert_eq!(dhcp(&mut site, &fourth, 10, at(10)).boot_file, "");
    assert!(machine(&site, 1).reason.contains("UEFI PXE was reached 3 times"));
    let later = Request { xid: 11, ..pxe(1, Discover) };
    assert_ne!(dhcp(&mut site, &later, 11, at(400)).boot_file, "");
}

#[test]
fn the_boot_server_names_the_same_file_as_the_offer() {
    let mut site = site(auto());
    let acked = dhcp(&mut site, &pxe(1, Discover), 1, at(0));
    let asks = Request { xid: 4711, ciaddr: FIRST, ..pxe(1, Ask4) };
    let (reply, to) = site.dhcp(&asks, Door::BootServer, secret(9), at(1)).reply.unwrap();
    assert_eq!(reply.boot_file, acked.boot_file);
    assert_eq!((reply.yiaddr, to), (Ipv4Addr::UNSPECIFIED, Destination::Sender));
}

#[test]
fn a_ticket_opens_nothing_from_another_address() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    let elsewhere = Ipv4Addr::new(10, 9, 0, 150);
    let outcome = site.artefact(&secret, &UKI, elsewhere, at(1));
    assert!(outcome.reply.is_none());
    assert!(matches!(outcome.decision, Decision::Refuse(Refusal::WrongAddress { .. })));
    let guessed = site.artefact(&"0".repeat(32), &UKI, FIRST, at(1));
    assert_eq!(guessed.decision, Decision::Refuse(Refusal::Ticket(TicketRefusal::Unknown)));
    assert!(fetch(&mut site, &secret, &UKI, at(2)).is_some(), "its owner is not hurt");
}

#[test]
fn a_used_ticket_enrols_nobody_again_and_the_list_shows_who_tried() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    grant(&mut site, &secret, 1, at(10));
    let again = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(2), at(11));
    assert_eq!(again.decision, Decision::Refuse(Refusal::Ticket(TicketRefusal::Used)));
    assert_eq!(machine(&site, 1).admission, MachineAdmission::Refused);
    assert!(machine(&site, 1).reason.contains("used for an enrolment before"));
    let thief = site.begin_enrolment(&secret, mac(7), Some(uuid(7)), key(1), at(12));
    assert!(thief.reply.is_none() && thief.report);
    assert!(machine(&site, 7).reason.contains("belongs to the machine 52:54:00:00:00:01"));
}

#[test]
fn a_host_that_lost_the_answer_is_enrolled_again_by_the_same_key() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    grant(&mut site, &secret, 1, at(10));
    grant(&mut site, &secret, 1, at(20));
    assert_eq!(machine(&site, 1).admission, MachineAdmission::Admitted);
    let away = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(30)).reply.unwrap();
    site.finish_enrolment(&away, mac(1), &EnrolmentResult::Away, at(31));
    let thief = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(2), at(32));
    assert_eq!(thief.decision, Decision::Refuse(Refusal::Ticket(TicketRefusal::Used)));
}

#[test]
fn a_made_up_ticket_blames_no_host_and_costs_no_write() {
    let mut site = site(auto());
    let own = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    grant(&mut site, &own, 1, at(10));
    let before = site.state.clone();
    for number in 0..3 {
        let forged = secret(200 + number).expose();
        let asked = site.begin_enrolment(&forged, mac(1), Some(uuid(1)), key(9), at(11));
        assert_eq!(asked.decision, Decision::Refuse(Refusal::Ticket(TicketRefusal::Unknown)));
        assert_eq!((asked.save, asked.report), (false, false));
    }
    assert_eq!(site.state, before);
}

#[test]
fn an_expired_ticket_enrols_nobody() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    let late = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(LIFE_SECONDS + 5));
    let expired = TicketRefusal::Expired { seconds: 5 };
    assert_eq!(late.decision, Decision::Refuse(Refusal::Ticket(expired)));
    let more = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(LIFE_SECONDS + 6));
    assert!(!more.report, "the growing number of seconds is no news");
}

#[test]
fn a_ticket_is_open_again_when_the_registry_was_away() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    let pass = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(500)).reply.unwrap();
    let meanwhile = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(501));
    assert_eq!(meanwhile.decision, Decision::Refuse(Refusal::Ticket(TicketRefusal::UnderWay)));
    assert_eq!(
        machine(&site, 1).admission,
        MachineAdmission::Admitted,
        "no blame for asking twice"
    );
    assert!(!site.finish_enrolment(&pass, mac(1), &EnrolmentResult::Away, at(520)));
    grant(&mut site, &secret, 1, at(1000));
}

#[test]
fn a_wrong_request_leaves_the_ticket_open_but_makes_it_no_younger() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    for seconds in [10, 20, 599] {
        let begun = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(seconds));
        site.finish_enrolment(&begun.reply.unwrap(), mac(1), &EnrolmentResult::Unfit, at(seconds));
    }
    let late = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(600));
    assert!(late.reply.is_none());
}

#[test]
fn a_machine_that_the_registry_refuses_is_barred_and_says_why() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    let pass = site.begin_enrolment(&secret, mac(1), Some(uuid(1)), key(1), at(10)).reply.unwrap();
    let refused = EnrolmentResult::Refused("UUID belongs to host sjc-1".to_owned());
    assert!(site.finish_enrolment(&pass, mac(1), &refused, at(11)));
    let shown = machine(&site, 1);
    assert_eq!(shown.admission, MachineAdmission::Refused);
    assert!(shown.reason.contains("by the registry: UUID belongs to host sjc-1"));
    let again = Request { xid: 5, ..http_boot(1, Discover) };
    assert_eq!(dhcp(&mut site, &again, 2, at(60)).boot_file, "");
    let later = Request { xid: 6, ..http_boot(1, Discover) };
    let reply = dhcp(&mut site, &later, 3, at(11 + REFUSED_SECONDS));
    assert_ne!(reply.boot_file, "", "it may try again after a while");
}

#[test]
fn a_host_renews_for_its_own_machine_alone_while_that_machine_is_admitted() {
    let mut site = site(auto());
    let secret = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    grant(&mut site, &secret, 1, at(10));
    dhcp(&mut site, &http_boot(2, Discover), 2, at(11));
    let (own, other) = ("lab-1".parse().unwrap(), "lab-2".parse().unwrap());
    let renewal = site.begin_renewal(&own, mac(1), Some(uuid(1)), at(20));
    let pass = renewal.reply.unwrap();
    assert_eq!(pass, Pass::Certificate);
    assert!(site.finish_enrolment(&pass, mac(1), &EnrolmentResult::Granted(own.clone()), at(21)));
    for (host, number) in [(&own, 2), (&other, 1), (&own, 9)] {
        let refused = site.begin_renewal(host, mac(number), None, at(22));
        assert_eq!(refused.decision, Decision::Refuse(Refusal::OtherHost), "{host} for {number}");
        assert!(!refused.report, "nobody is blamed for what a stranger asks");
    }
    site.set_admission(list(&[]));
    assert!(site.begin_renewal(&own, mac(1), Some(uuid(1)), at(23)).reply.is_none());
    assert_eq!(machine(&site, 1).admission, MachineAdmission::Quarantined);
}

#[test]
fn leaving_and_declining_change_the_bindings() {
    let mut site = site(auto());
    dhcp(&mut site, &os(1, Discover), 1, at(0));
    let to = |message, server_id| Request {
        ciaddr: FIRST,
        requested_ip: Some(FIRST),
        server_id: Some(server_id),
        ..os(1, message)
    };
    let other = Ipv4Addr::new(10, 9, 0, 2);
    let ask = |site: &mut Site, request: &Request| {
        site.dhcp(request, Door::Server, secret(1), at(1)).save
    };
    assert!(!ask(&mut site, &to(ClientMessage::Release, other)), "said to another server");
    assert!(ask(&mut site, &to(ClientMessage::Release, SERVER)));
    dhcp(&mut site, &os(1, Discover), 1, at(2));
    assert!(ask(&mut site, &to(ClientMessage::Decline, SERVER)));
    let next = dhcp(&mut site, &os(1, Discover), 1, at(3));
    assert_eq!(next.yiaddr, Ipv4Addr::new(10, 9, 0, 101), "the declined address rests");
}

#[test]
fn strangers_close_the_pool_for_a_while_and_no_host_loses_its_address() {
    let mut site = site(auto());
    site.pool.last = Ipv4Addr::new(10, 9, 0, 102);
    let own = ticket(&dhcp(&mut site, &http_boot(1, Discover), 1, at(0)));
    grant(&mut site, &own, 1, at(1));
    for number in [2, 3] {
        dhcp(&mut site, &os(number, Discover), number, at(i64::from(number)));
    }
    let new = |site: &mut Site, number, now| {
        let asked = site.dhcp(&os(number, Discover), Door::Server, secret(9), now);
        asked.reply.map(|(reply, _)| reply.yiaddr)
    };
    assert_eq!(new(&mut site, 4, at(10)), None, "both strangers may still use theirs");
    let renewal = Request { ciaddr: Ipv4Addr::new(10, 9, 0, 101), ..os(2, Ask4) };
    let renewed = site.dhcp(&renewal, Door::Server, secret(9), at(1000));
    assert!(renewed.save, "a restart must not forget that it is in use");
    let lapsed = at(3 + i64::from(STRANGER_SECONDS));
    assert_eq!(new(&mut site, 4, lapsed), Some(Ipv4Addr::new(10, 9, 0, 102)), "of the silent one");
    let years = at(10 * 365 * 24 * 3600);
    let mut seen = std::collections::BTreeSet::new();
    for number in 10..20 {
        seen.insert(new(&mut site, number, years));
    }
    assert!(!seen.contains(&Some(FIRST)), "{seen:?}");
    assert!(seen.contains(&Some(Ipv4Addr::new(10, 9, 0, 101))), "{seen:?}");
}

#[test]
fn choosing_another_server_frees_the_offer() {
    let mut site = site(auto());
    site.dhcp(&os(1, Discover), Door::Server, secret(1), at(0));
    assert_eq!(site.state.bindings.holder(FIRST), Some(mac(1)));
    let other = Some(Ipv4Addr::new(10, 9, 0, 2));
    let chose = Request { server_id: other, requested_ip: Some(FIRST), ..os(1, Ask4) };
    site.dhcp(&chose, Door::Server, secret(1), at(1));
    assert_eq!(site.state.bindings.holder(FIRST), None);
}

#[test]
fn firmware_and_system_of_one_machine_share_one_address() {
    let mut site = site(auto());
    let with = |request: Request, id: &[u8]| Request { client_id: Some(id.to_vec()), ..request };
    let requests = [
        with(http_boot(1, Discover), &[0, 1, 2, 3]),
        with(stage1(1, Discover), &[1, 0x52, 0x54, 0, 0, 0, 1]),
        with(os(1, Discover), &[255, 9, 9, 9]),
    ];
    for request in requests {
        assert_eq!(dhcp(&mut site, &request, 1, at(0)).yiaddr, FIRST);
    }
}

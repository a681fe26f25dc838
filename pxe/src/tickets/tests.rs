use proptest::prelude::*;

use super::*;
use crate::samples::{at, key, mac, secret, uuid};

fn one() -> Tickets {
    let mut tickets = Tickets::default();
    tickets.mint(secret(1), mac(1), Some(uuid(1)), at(0));
    tickets
}

#[test]
fn a_ticket_opens_each_artefact_eight_times_in_ten_minutes() {
    let mut tickets = one();
    for _ in 0..USES {
        assert!(tickets.check_artefact(&secret(1), "uki.efi", at(LIFE_SECONDS - 1)).is_ok());
        tickets.count_use(&secret(1), "uki.efi");
    }
    let refusal = tickets.check_artefact(&secret(1), "uki.efi", at(1)).unwrap_err();
    assert_eq!(refusal, TicketRefusal::Exhausted { artefact: "uki.efi".to_owned() });
    assert!(tickets.check_artefact(&secret(1), "boot.json", at(1)).is_ok(), "counted apart");
    let late = tickets.check_artefact(&secret(1), "boot.json", at(LIFE_SECONDS)).unwrap_err();
    assert_eq!(late, TicketRefusal::Expired { seconds: 0 });
    let unknown = tickets.check_artefact(&secret(2), "uki.efi", at(1)).unwrap_err();
    assert_eq!(unknown, TicketRefusal::Unknown);
}

#[test]
fn each_reason_against_an_enrolment_is_told_apart() {
    let refusal = |state, secret: Secret, mac, uuid, seconds| {
        let mut tickets = one();
        tickets.0[0].enrolment = state;
        tickets.check_enrolment(&secret, mac, uuid, key(1), at(seconds)).map(|_| ()).unwrap_err()
    };
    let own = Some(uuid(1));
    let rows = [
        (Enrolment::Open, secret(2), mac(1), own, 1, "TicketUnknown", "unknown"),
        (Enrolment::Open, secret(1), mac(2), own, 1, "TicketOfOtherMachine", "52:54:00:00:00:01"),
        (Enrolment::Open, secret(1), mac(1), Some(uuid(2)), 1, "TicketOfOtherMachine", "0101"),
        (Enrolment::Open, secret(1), mac(1), None, 1, "TicketOfOtherMachine", "without UUID"),
        (Enrolment::Open, secret(1), mac(1), own, LIFE_SECONDS + 60, "TicketExpired", "60 s ago"),
        (Enrolment::Used, secret(1), mac(1), own, 1, "TicketUsed", "used"),
        (Enrolment::Used, secret(1), mac(1), own, 9999, "TicketUsed", "used"),
        (Enrolment::Forwarded, secret(1), mac(1), own, 1, "TicketUnderWay", "under way"),
        // A stranger learns nothing about a ticket's state.
        (Enrolment::Used, secret(1), mac(2), own, 1, "TicketOfOtherMachine", "not to"),
    ];
    for (state, secret, mac, uuid, seconds, label, text) in rows {
        let refusal = refusal(state, secret, mac, uuid, seconds);
        assert_eq!(refusal.label(), label, "{refusal}");
        assert!(refusal.to_string().contains(text), "{refusal}");
    }
    assert!(one().check_enrolment(&secret(1), mac(1), own, key(1), at(1)).is_ok());
}

#[test]
fn a_ticket_without_uuid_takes_the_machine_by_its_mac_alone() {
    let mut tickets = Tickets::default();
    tickets.mint(secret(1), mac(1), None, at(0));
    assert!(tickets.check_enrolment(&secret(1), mac(1), Some(uuid(7)), key(1), at(1)).is_ok());
    assert!(tickets.check_enrolment(&secret(1), mac(1), None, key(1), at(1)).is_ok());
}

#[test]
fn a_machine_has_two_living_tickets_at_most() {
    let mut tickets = Tickets::default();
    for number in 1..=3 {
        tickets.mint(secret(number), mac(1), None, at(number.into()));
    }
    let refusal = tickets.check_artefact(&secret(1), "uki.efi", at(10)).unwrap_err();
    assert_eq!(refusal.label(), "TicketExpired", "remembered, so that the reason is right");
    for number in 2..=3 {
        assert!(tickets.check_artefact(&secret(number), "uki.efi", at(10)).is_ok());
    }
    assert_eq!(tickets.current(mac(1), at(10)).map(Ticket::secret), Some(secret(3)));
    assert_eq!(tickets.current(mac(2), at(10)), None);
}

#[test]
fn a_flapping_machine_fills_no_memory_and_old_tickets_are_forgotten() {
    let mut tickets = Tickets::default();
    for number in 0..=255 {
        tickets.mint(secret(number), mac(1), None, at(number.into()));
    }
    assert!(tickets.0.len() <= 36, "{}", tickets.0.len());
    tickets.mint(secret(9), mac(2), None, at(2 * MEMORY_SECONDS));
    assert_eq!(tickets.0.len(), 1);
}

#[test]
fn after_a_restart_nothing_is_under_way() {
    let mut tickets = one();
    tickets.find_mut(&secret(1)).unwrap().enrolment = Enrolment::Forwarded;
    assert_eq!(tickets.current(mac(1), at(1)), None);
    tickets.forget_forwarded();
    assert!(tickets.check_enrolment(&secret(1), mac(1), Some(uuid(1)), key(1), at(1)).is_ok());
}

#[test]
fn the_key_that_was_granted_asks_again_while_the_ticket_lives_and_no_other_key_does() {
    let mut tickets = one();
    tickets.find_mut(&secret(1)).unwrap().grant(key(1));
    let check = |tickets: &Tickets, by, seconds| {
        let checked = tickets.check_enrolment(&secret(1), mac(1), Some(uuid(1)), by, at(seconds));
        checked.map(|_| ()).map_err(|refusal| refusal.label())
    };
    let as_granted = |tickets: &Tickets| {
        assert_eq!(check(tickets, key(1), 2), Ok(()));
        assert_eq!(check(tickets, key(2), 2), Err("TicketUsed"));
        assert_eq!(check(tickets, key(1), LIFE_SECONDS), Err("TicketExpired"));
        assert_eq!(tickets.current(mac(1), at(2)), None, "it boots nothing more");
    };
    as_granted(&tickets);
    // Undecided the second time, or cut off by a restart of the site: still this key's alone.
    tickets.find_mut(&secret(1)).unwrap().enrolment = Enrolment::Forwarded;
    let kept = serde_json::to_string(&tickets).unwrap();
    let mut restarted: Tickets = serde_json::from_str(&kept).unwrap();
    restarted.forget_forwarded();
    as_granted(&restarted);
    tickets.find_mut(&secret(1)).unwrap().reopen();
    as_granted(&tickets);
    tickets.find_mut(&secret(1)).unwrap().refuse();
    assert_eq!(check(&tickets, key(1), 2), Err("TicketUsed"));
}

#[test]
fn a_secret_is_32_digits_and_never_shown_by_debug() {
    let text = "00ff".repeat(8);
    assert_eq!(Secret::parse(&text).unwrap().expose(), text);
    for bad in ["", "00", &"00FF".repeat(8), &"0".repeat(33), &"+".repeat(32), &"é".repeat(16)] {
        assert_eq!(Secret::parse(bad), None, "{bad}");
    }
    let tickets = one();
    let shown = format!("{tickets:?}");
    assert!(!shown.contains(&secret(1).expose()) && shown.contains("Secret(…)"), "{shown}");
}

proptest! {
    #[test]
    fn any_text_parses_to_itself_or_not_at_all(text in ".{0,40}") {
        if let Some(secret) = Secret::parse(&text) {
            prop_assert_eq!(secret.expose(), text);
        }
    }

    #[test]
    fn only_the_very_secret_finds_its_ticket(octets: [u8; 16], bit in 0..128_usize) {
        let mut tickets = Tickets::default();
        tickets.mint(Secret::new(octets), mac(1), None, at(0));
        prop_assert!(tickets.find(&Secret::new(octets)).is_some());
        let mut near = octets;
        near[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(tickets.find(&Secret::new(near)).is_none());
    }
}

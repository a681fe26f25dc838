use std::net::Ipv4Addr;

use dhcproto::v4::{Decodable as _, Decoder, DhcpOption, Message, OptionCode};
use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// A client's frame with these options and an end mark.
fn frame(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; 236];
    out[..4].copy_from_slice(&[1, 1, 6, 0]);
    out[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    out[28..34].copy_from_slice(&MAC);
    out.extend_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    for (number, value) in options {
        out.extend_from_slice(&[*number, u8::try_from(value.len()).unwrap()]);
        out.extend_from_slice(value);
    }
    out.push(255);
    out
}

fn discover(options: &[(u8, &[u8])]) -> Result<Request, DecodeError> {
    decode(&frame(&[&[(53, &[1][..])], options].concat()))
}

#[test]
fn a_discover_of_edk2_http_boot_is_read_whole() {
    let mut uuid = vec![0];
    uuid.extend(1..=16_u8);
    let wanted: Vec<u8> = (1..=6).chain([12, 13, 15, 17, 18, 22, 23, 28]).chain(40..=43).collect();
    let request = discover(&[
        (57, &1472_u16.to_be_bytes()),
        (55, &wanted),
        (97, &uuid),
        (94, &[1, 3, 1]),
        (93, &[0, 16]),
        (60, b"HTTPClient:Arch:00016:UNDI:003001"),
    ])
    .unwrap();
    assert_eq!(request.message, ClientMessage::Discover);
    assert_eq!((request.xid, request.mac.octets()), (0x1234_5678, MAC));
    assert_eq!((request.max_size, request.archs.as_slice()), (Some(1472), &[16][..]));
    assert_eq!(request.machine_id, Some(uuid));
    let text = request.uuid().unwrap().to_string();
    assert_eq!(text, "04030201-0605-0807-090a-0b0c0d0e0f10", "the first three fields are swapped");
    assert!(!request.has_ipxe_options);
}

#[test]
fn each_fault_of_a_frame_is_refused_with_its_reason() {
    let good = frame(&[(53, &[1])]);
    let change = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        decode(&bad).unwrap_err()
    };
    assert!(decode(&good).is_ok());
    assert_eq!(decode(&good[..239]).unwrap_err(), DecodeError::Size(239));
    assert_eq!(decode(&vec![0; 9001]).unwrap_err(), DecodeError::Size(9001));
    assert_eq!(change(0, 2), DecodeError::NotRequest(2));
    assert_eq!(change(1, 6), DecodeError::Hardware { htype: 6, hlen: 6 });
    assert_eq!(change(2, 16), DecodeError::Hardware { htype: 1, hlen: 16 });
    assert_eq!(change(3, 17), DecodeError::Hops(17));
    assert_eq!(change(236, 0), DecodeError::Cookie([0, 0x82, 0x53, 0x63]));
    assert!(matches!(change(28, 0x01), DecodeError::Station(_)), "multicast");
    let cut = decode(&good[..good.len() - 1]).unwrap_err();
    assert_eq!(cut, DecodeError::NoEnd);
}

#[test]
fn each_option_of_the_wrong_length_or_value_is_refused() {
    let rows: [(u8, &[u8]); 12] = [
        (50, &[10, 9, 0]),
        (54, &[10, 9, 0, 1, 1]),
        (51, &[1]),
        (57, &[1]),
        (61, &[]),
        (60, &[]),
        (82, &[1]),
        (93, &[7]),
        (93, &[]),
        (97, &[0; 16]),
        (97, &[0; 18]),
        (52, &[1, 2]),
    ];
    for (number, value) in rows {
        let options: &[(u8, &[u8])] = &[(number, value)];
        let error = decode(&frame(&[options, &[(53, &[1])]].concat()));
        let named = matches!(error, Err(DecodeError::Length { code, .. }) if code == number);
        assert!(named, "{number} {value:?}: {error:?}");
    }
    let no_kind = decode(&frame(&[(53, &[])]));
    assert!(matches!(no_kind, Err(DecodeError::Length { code: 53, length: 0, .. })));
    let wrong_kind = [vec![1], vec![7; 16]].concat();
    let refused = discover(&[(97, &wrong_kind)]);
    assert_eq!(refused, Err(DecodeError::Value { code: 97, value: 1 }));
    assert_eq!(discover(&[(52, &[4])]), Err(DecodeError::Value { code: 52, value: 4 }));
    assert_eq!(decode(&frame(&[])), Err(DecodeError::NoMessageType));
    for server in [2, 5, 6, 9, 200] {
        assert_eq!(decode(&frame(&[(53, &[server])])), Err(DecodeError::MessageType(server)));
    }
}

#[test]
fn an_option_longer_than_what_is_left_is_refused() {
    let mut bad = frame(&[(53, &[1])]);
    bad.pop();
    bad.extend_from_slice(&[60, 40, b'P']);
    assert_eq!(decode(&bad), Err(DecodeError::Cut { code: 60, want: 40, left: 1 }));
    bad.truncate(bad.len() - 2);
    assert_eq!(decode(&bad), Err(DecodeError::Cut { code: 60, want: 1, left: 0 }));
}

#[test]
fn an_identifier_that_is_absent_empty_or_unset_is_no_uuid() {
    assert_eq!(discover(&[]).unwrap().machine_id, None);
    assert_eq!(discover(&[(97, &[])]).unwrap().machine_id, Some(Vec::new()));
    for unset in [[0; 16], [0xff; 16]] {
        let request = discover(&[(97, &[&[0], &unset[..]].concat())]).unwrap();
        assert_eq!(request.uuid(), None);
    }
}

#[test]
fn every_architecture_is_kept_and_parts_of_an_option_are_joined() {
    let request = discover(&[(93, &[0, 16, 0, 7]), (60, b"PXE"), (60, b"Client")]).unwrap();
    assert_eq!(request.archs, [16, 7]);
    assert_eq!(request.vendor_class, b"PXEClient");
}

#[test]
fn options_in_file_and_sname_count() {
    let mut bytes = frame(&[(53, &[1]), (52, &[3])]);
    bytes[108..108 + 12].copy_from_slice(b"\x3c\x09PXEClient\xff");
    bytes[44..44 + 5].copy_from_slice(&[93, 2, 0, 7, 255]);
    let request = decode(&bytes).unwrap();
    assert_eq!(
        (request.vendor_class.as_slice(), request.archs.as_slice()),
        (&b"PXEClient"[..], &[7][..])
    );
    bytes[44..44 + 5].copy_from_slice(&[93, 2, 0, 7, 0]);
    assert_eq!(decode(&bytes), Err(DecodeError::NoEnd), "an area without its end mark");
}

fn reply() -> Reply {
    Reply {
        message: ServerMessage::Offer,
        xid: 7,
        flags: 0x8000,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: [10, 9, 0, 100].into(),
        siaddr: [10, 9, 0, 1].into(),
        giaddr: Ipv4Addr::UNSPECIFIED,
        mac: MAC,
        sname: "10.9.0.1".into(),
        boot_file: "b/1/uki.efi".into(),
        terminate_boot_file: true,
        server_id: [10, 9, 0, 1].into(),
        options: vec![(60, b"PXEClient".to_vec()), (1, vec![255, 255, 255, 0])],
        relay: Some(vec![1, 1, 0xff]),
        max_size: Some(1472),
    }
}

/// Codes in the order they are written.
fn order(bytes: &[u8]) -> Vec<u8> {
    let (mut rest, mut codes) = (&bytes[240..], Vec::new());
    while let [number, tail @ ..] = rest {
        codes.push(*number);
        if *number == 255 {
            break;
        }
        rest = &tail[1 + usize::from(tail[0])..];
    }
    codes
}

/// Another decoder reads what was written.
#[test]
fn a_reply_reads_back_with_another_decoder() {
    let bytes = reply().encode().unwrap();
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!((message.xid(), message.yiaddr()), (7, [10, 9, 0, 100].into()));
    assert_eq!(message.chaddr(), MAC);
    assert_eq!(message.sname().unwrap(), b"10.9.0.1\0");
    assert_eq!(message.fname().unwrap(), b"b/1/uki.efi\0");
    let class = message.opts().get(OptionCode::ClassIdentifier);
    assert_eq!(class, Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec())));
    assert!(message.opts().get(OptionCode::RelayAgentInformation).is_some());
}

#[test]
fn options_are_in_the_order_that_clients_and_relays_need() {
    assert_eq!(order(&reply().encode().unwrap()), [53, 54, 60, 1, 67, 82, 255]);
}

#[test]
fn the_boot_file_is_in_both_places_and_its_nul_is_inside_the_option() {
    let bytes = reply().encode().unwrap();
    assert_eq!(&bytes[108..119], b"b/1/uki.efi");
    let option = b"\x43\x0cb/1/uki.efi\0\x52";
    assert!(bytes.windows(option.len()).any(|part| part == option), "{bytes:02x?}");
    let bare = Reply { terminate_boot_file: false, ..reply() }.encode().unwrap();
    let option = b"\x43\x0bb/1/uki.efi\x52";
    assert!(bare.windows(option.len()).any(|part| part == option));
    let none = Reply { boot_file: String::new(), ..reply() }.encode().unwrap();
    assert!(!order(&none).contains(&67));
    assert_eq!(none[108], 0);
}

#[test]
fn a_reply_is_at_least_300_bytes_and_at_most_what_the_client_takes() {
    let short = Reply { options: Vec::new(), relay: None, ..reply() }.encode().unwrap();
    assert_eq!(short.len(), 300);
    let long = |max_size, bytes: usize| {
        let options = vec![(43, vec![7; bytes])];
        Reply { options, max_size, ..reply() }.encode().map(|bytes| bytes.len())
    };
    assert!(long(Some(1472), 1000).is_ok());
    assert!(matches!(long(None, 1000), Err(EncodeError::TooLong { limit: 548, .. })));
    assert!(long(Some(100), 200).is_ok(), "no client may ask for less than 576");
    assert!(matches!(long(Some(1472), 1400), Err(EncodeError::TooLong { limit: 1444, .. })));
}

#[test]
fn a_name_that_does_not_fit_its_field_is_not_cut() {
    let name = |length| Reply { boot_file: "x".repeat(length), ..reply() }.encode();
    assert!(name(127).is_ok());
    let refused = EncodeError::Field { what: "file", length: 128, limit: 127 };
    assert_eq!(name(128), Err(refused));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = decode(&bytes);
    }

    /// Behind a good frame, where random bytes alone would never come.
    #[test]
    fn any_options_never_panic(
        options in proptest::collection::vec(any::<u8>(), 0..300),
        overload in 0..5_u8,
        areas in proptest::collection::vec(any::<u8>(), 192),
    ) {
        let mut bytes = frame(&[(53, &[1]), (52, &[overload])]);
        bytes.pop();
        bytes[44..236].copy_from_slice(&areas);
        bytes.extend_from_slice(&options);
        let _ = decode(&bytes);
        bytes.push(255);
        let _ = decode(&bytes);
    }

    /// Options with plausible codes and lengths of every kind.
    #[test]
    fn any_well_framed_option_is_read_or_refused(
        number in prop_oneof![1..=254_u8, Just(50), Just(57), Just(93), Just(97), Just(82)],
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Ok(request) = discover(&[(number, &value)]) {
            match number {
                60 => prop_assert_eq!(request.vendor_class, value),
                61 => prop_assert_eq!(request.client_id, Some(value)),
                82 => prop_assert_eq!(request.relay, Some(value)),
                97 => prop_assert_eq!(request.machine_id, Some(value)),
                93 => prop_assert_eq!(request.archs.len() * 2, value.len()),
                _ => {}
            }
        }
    }

    #[test]
    fn any_reply_that_fits_reads_back_with_another_decoder(
        options in proptest::collection::vec(
            (prop_oneof![Just(43_u8), Just(61), Just(97), Just(224)],
             proptest::collection::vec(any::<u8>(), 1..300)), 0..4),
        xid: u32, flags: u16, address: u32, boot_file in "[a-z/]{0,127}",
    ) {
        let reply = Reply {
            options, xid, flags, yiaddr: Ipv4Addr::from_bits(address), boot_file,
            max_size: Some(9000), ..reply()
        };
        let bytes = reply.encode().unwrap();
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        prop_assert_eq!((message.xid(), message.yiaddr()), (xid, reply.yiaddr));
        let kind = message.opts().get(OptionCode::MessageType).cloned();
        prop_assert_eq!(kind, Some(DhcpOption::MessageType(dhcproto::v4::MessageType::Offer)));
    }
}

use proptest::prelude::*;

use super::*;

fn rrq(parts: &[&str]) -> Vec<u8> {
    let mut out = vec![0, 1];
    for part in parts {
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
    out
}

fn options(parts: &[&str]) -> Asked {
    let request = [&["f", "octet"], parts].concat();
    let Ok(ClientPacket::Read(request)) = decode(&rrq(&request)) else {
        panic!("no read request");
    };
    request.options
}

#[test]
fn a_request_of_edk2_is_read_whole() {
    let parts = ["b/1/uki.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"];
    let expected = Asked { blksize: Some(1468), tsize: true, timeout: None, windowsize: Some(4) };
    let name = b"b/1/uki.efi".to_vec();
    let request = ClientPacket::Read(ReadRequest { name, options: expected });
    assert_eq!(decode(&rrq(&parts)), Ok(request));
}

#[test]
fn option_names_have_no_case_and_nonsense_counts_as_not_asked() {
    let none = Asked::default();
    let rows: [(&[&str], Asked); 13] = [
        (&["BLKSIZE", "512"], Asked { blksize: Some(512), ..none }),
        (&["blksize", "7"], none),
        (&["blksize", "65464"], Asked { blksize: Some(65464), ..none }),
        (&["blksize", "65535"], Asked { blksize: Some(65464), ..none }),
        (&["blksize", "65536"], none),
        (&["blksize", "-1"], none),
        (&["windowsize", "0"], none),
        (&["timeout", "0"], none),
        (&["timeout", "255"], Asked { timeout: Some(255), ..none }),
        (&["timeout", "256"], none),
        (&["tsize", "x"], none),
        (&["multicast", ""], none),
        (&["multicast", "", "TSize", "0"], Asked { tsize: true, ..none }),
    ];
    for (parts, expected) in rows {
        assert_eq!(options(parts), expected, "{parts:?}");
    }
}

#[test]
fn every_other_packet_is_refused_with_its_reason() {
    let rows: [(&[u8], DecodeError); 14] = [
        (b"", DecodeError::Cut(0)),
        (b"\0", DecodeError::Cut(1)),
        (b"\0\x01", DecodeError::Unterminated("file name")),
        (b"\0\x01f", DecodeError::Unterminated("file name")),
        (b"\0\x01\0octet\0", DecodeError::Name(0)),
        (b"\0\x01f\0octet", DecodeError::Unterminated("mode")),
        (b"\0\x01f\0netascii\0", DecodeError::Mode("netascii".into())),
        (b"\0\x01f\0octet\0tsize", DecodeError::Unterminated("option name")),
        (b"\0\x01f\0octet\0tsize\0", DecodeError::NoValue("tsize".into())),
        (b"\0\x02f\0octet\0", DecodeError::Write),
        (b"\0\x03\0\x01data", DecodeError::Opcode(3)),
        (b"\0\x04\0", DecodeError::Cut(3)),
        (b"\0\x05\0", DecodeError::Cut(3)),
        (b"\0\x06", DecodeError::Opcode(6)),
    ];
    for (datagram, expected) in rows {
        assert_eq!(decode(datagram), Err(expected), "{datagram:02x?}");
    }
    let long = "x".repeat(256);
    assert_eq!(decode(&rrq(&[&long, "octet"])), Err(DecodeError::Name(256)));
}

#[test]
fn acks_and_errors_are_read() {
    assert_eq!(decode(&[0, 4, 0xff, 0xfe]), Ok(ClientPacket::Ack(0xfffe)));
    let error = ClientPacket::Error { code: 8, message: "User aborted?".into() };
    assert_eq!(decode(b"\0\x05\0\x08User aborted\x07\0rest"), Ok(error));
    let bare = ClientPacket::Error { code: 0, message: String::new() };
    assert_eq!(decode(&[0, 5, 0, 0]), Ok(bare));
}

#[test]
fn names_are_compared_as_roms_write_them() {
    let rows: [(&[u8], Option<&str>); 10] = [
        (b"b/1/uki.efi", Some("b/1/uki.efi")),
        (b"/b/1/uki.efi", Some("b/1/uki.efi")),
        (b"\\b\\1\\uki.efi", Some("b/1/uki.efi")),
        (b"//b//1/uki.efi", Some("b/1/uki.efi")),
        (b"b/1/uki.efi\xff", Some("b/1/uki.efi")),
        (b"b/1/uki.efi\xff\0", Some("b/1/uki.efi")),
        (b"../etc/passwd", Some("../etc/passwd")),
        (b"b/\xc3\xa9", None),
        (b"b /x", None),
        (b"\xff\xff", None),
    ];
    for (raw, expected) in rows {
        assert_eq!(normal_name(raw).as_deref(), expected, "{raw:02x?}");
    }
}

#[test]
fn packets_of_the_server_have_their_form() {
    assert_eq!(data(0x0102, b"xy"), [0, 3, 1, 2, b'x', b'y']);
    assert_eq!(oack(&[("tsize", 14)]), b"\0\x06tsize\x0014\0");
    assert_eq!(error(ErrorCode::AccessViolation, "no"), b"\0\x05\0\x02no\0");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        opcode in 0..8_u8,
    ) {
        let _ = decode(&bytes);
        let _ = normal_name(&bytes);
        let _ = decode(&[&[0, opcode], bytes.as_slice()].concat());
    }

    #[test]
    fn options_are_read_back_in_any_order_and_case(
        blksize in 8..=65464_u16, timeout in 1..=255_u8, windowsize in 1..=65535_u16, upper: bool,
    ) {
        let name = |text: &str| if upper { text.to_uppercase() } else { text.to_owned() };
        let (b, t, w) = (blksize.to_string(), timeout.to_string(), windowsize.to_string());
        let asked = options(&[&name("windowsize"), &w, &name("timeout"), &t, &name("blksize"), &b]);
        let expected = Asked {
            blksize: Some(blksize), tsize: false, timeout: Some(timeout), windowsize: Some(windowsize),
        };
        prop_assert_eq!(asked, expected);
    }
}

//! Ids and units: what is read, what is refused with which words, and that text reads back to the value.

use bulkhead_api::id::{HostId, MacAddr, SystemUuid, TenantName, TicketSecret};
use bulkhead_api::lease::LeaseSpec;
use bulkhead_api::units::Bytes;
use proptest::prelude::*;

#[test]
fn a_name_is_a_dns_label() {
    for good in ["a", "acme", "lab-000901", "0x"] {
        assert_eq!(good.parse::<HostId>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"x".repeat(64)] {
        assert!(bad.parse::<HostId>().is_err(), "{bad:?} was read");
    }
}

#[test]
fn a_refused_name_says_what_was_expected() {
    let error = "Acme".parse::<TenantName>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "tenant name \"Acme\": expected 1 to 40 of a-z, 0-9 and '-', beginning and ending with a \
         letter or digit"
    );
}

#[test]
fn a_mac_address_needs_six_pairs_of_digits() {
    let mac: MacAddr = "52:54:00:AB:cd:01".parse().unwrap();
    assert_eq!(mac.octets(), [0x52, 0x54, 0, 0xab, 0xcd, 1]);
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
    for bad in
        ["", "52:54:00:ab:cd", "52:54:00:ab:cd:01:02", "5:54:00:ab:cd:01", "52:54:00:ab:cd:+1"]
    {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was read");
    }
}

#[test]
fn the_smbios_form_of_a_uuid_has_three_fields_swapped() {
    let uuid: SystemUuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
    let smbios = [
        0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0,
    ];
    assert_eq!(uuid.to_smbios(), smbios);
    assert_eq!(SystemUuid::from_smbios(smbios), uuid);
    assert!(!uuid.is_unset());
    assert!(SystemUuid::new([0; 16]).is_unset());
    assert!(SystemUuid::new([0xff; 16]).is_unset());
}

#[test]
fn a_size_has_a_binary_unit_or_none() {
    assert_eq!("64Gi".parse::<Bytes>().unwrap().get(), 64 << 30);
    assert_eq!("17".parse::<Bytes>().unwrap().get(), 17);
    for bad in ["", "Gi", "1.5Gi", "-1", "64GB", "64 Gi", "١"] {
        assert!(bad.parse::<Bytes>().is_err(), "{bad:?} was read");
    }
    assert_eq!(
        "99999999999Ti".parse::<Bytes>().unwrap_err().to_string(),
        "size \"99999999999Ti\": larger than 16 EiB"
    );
}

#[test]
fn a_ticket_is_not_shown_by_debug() {
    assert!(!format!("{:?}", TicketSecret::new("secret".to_owned())).contains("secret"));
}

#[test]
fn a_virtual_machine_is_counted_with_its_tables() {
    let overhead = |mib: u64| LeaseSpec::vm_overhead(Bytes::new(mib << 20)).get() >> 20;
    assert_eq!([overhead(0), overhead(64), overhead(256), overhead(257)], [160, 161, 161, 162]);
    assert_eq!(overhead(1 << 20), 160 + 4096, "a guest of a tebibyte");
    assert!(LeaseSpec::vm_overhead(Bytes::new(u64::MAX)) > Bytes::new(1 << 55));
}

proptest! {
    #[test]
    fn every_size_reads_back_to_itself(bytes: u64) {
        let size = Bytes::new(bytes);
        prop_assert_eq!(size.to_string().parse::<Bytes>().unwrap(), size);
    }

    #[test]
    fn every_uuid_reads_back_to_itself(octets: [u8; 16]) {
        let uuid = SystemUuid::new(octets);
        prop_assert_eq!(uuid.to_string().parse::<SystemUuid>().unwrap(), uuid);
        prop_assert_eq!(SystemUuid::from_smbios(uuid.to_smbios()), uuid);
    }

    #[test]
    fn any_text_is_read_or_refused(text: String) {
        for result in [
            text.parse::<HostId>().map(|id| id.to_string()).map_err(|e| e.to_string()),
            text.parse::<MacAddr>().map(|mac| mac.to_string()).map_err(|e| e.to_string()),
            text.parse::<SystemUuid>().map(|uuid| uuid.to_string()).map_err(|e| e.to_string()),
            text.parse::<Bytes>().map(|size| size.to_string()).map_err(|e| e.to_string()),
        ] {
            prop_assert!(result.is_ok() || !result.expect_err("is an error").is_empty());
        }
    }
}

use proptest::prelude::*;

use super::*;

/// Config space of a bridge: PCI Express capability at 0x40 behind another one, then extended ones.
fn bridge(
    port: u16,
    multifunction: bool,
    extended: &[(usize, u16, usize)],
    control: u16,
) -> Vec<u8> {
    let mut config = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x06, &0x10_u16.to_le_bytes());
    put(0x0e, &[1 | if multifunction { 0x80 } else { 0 }]);
    put(0x34, &[0x50]);
    // Power management, then PCI Express.
    put(0x50, &[0x01, 0x40]);
    put(0x40, &[0x10, 0x00]);
    put(0x42, &(port << 4 | 2).to_le_bytes());
    for &(at, id, next) in extended {
        let header = u32::from(id) | 1 << 16 | u32::try_from(next).unwrap() << 20;
        put(at, &header.to_le_bytes());
        if id == 0x0d {
            put(at + 4, &0x5f_u16.to_le_bytes());
            put(at + 6, &control.to_le_bytes());
        }
    }
    config
}

const AER_THEN_ACS: [(usize, u16, usize); 2] = [(0x100, 0x01, 0x148), (0x148, 0x0d, 0)];
const ROOT: u16 = 4;
const UPSTREAM: u16 = 5;
const DOWNSTREAM: u16 = 6;
const TO_PCI: u16 = 7;

#[test]
fn a_port_keeps_apart_only_with_all_four_services_on() {
    for port in [ROOT, DOWNSTREAM] {
        let judge = |control| keeps_apart(&bridge(port, false, &AER_THEN_ACS, control));
        assert_eq!(judge(0x1d), Some(true));
        assert_eq!(judge(0x5f), Some(true), "other services do no harm");
        for missing in [0x01, 0x04, 0x08, 0x10] {
            assert_eq!(judge(0x5f & !missing), Some(false), "without {missing:#x}");
        }
    }
}

#[test]
fn a_port_without_the_capability_keeps_nothing_apart() {
    assert_eq!(keeps_apart(&bridge(ROOT, false, &[(0x100, 0x01, 0)], 0x1d)), Some(false));
    assert_eq!(keeps_apart(&bridge(ROOT, false, &[], 0x1d)), Some(false));
}

#[test]
fn an_upstream_port_alone_has_no_peers() {
    assert_eq!(keeps_apart(&bridge(UPSTREAM, false, &[], 0)), Some(true));
    assert_eq!(keeps_apart(&bridge(UPSTREAM, true, &[], 0)), Some(false));
    assert_eq!(keeps_apart(&bridge(UPSTREAM, true, &AER_THEN_ACS, 0x1d)), Some(true));
}

#[test]
fn a_shared_bus_keeps_nothing_apart() {
    assert_eq!(keeps_apart(&bridge(TO_PCI, false, &AER_THEN_ACS, 0x1d)), Some(false));
    let mut without_list = bridge(ROOT, false, &AER_THEN_ACS, 0x1d);
    without_list[6] = 0;
    assert_eq!(keeps_apart(&without_list), Some(false));
}

#[test]
fn bytes_that_end_early_or_go_in_a_circle_tell_nothing() {
    let whole = bridge(ROOT, false, &AER_THEN_ACS, 0x1d);
    for length in [0, 6, 0x34, 0x41, 64, 256, 0x148, 0x14f] {
        assert_eq!(keeps_apart(&whole[..length]), None, "{length} bytes");
    }
    let circle = bridge(ROOT, false, &[(0x100, 0x01, 0x100)], 0x1d);
    assert_eq!(keeps_apart(&circle), None);
    let mut short_circle = whole;
    (short_circle[0x40], short_circle[0x41]) = (0x05, 0x50);
    assert_eq!(keeps_apart(&short_circle), None);
    let gone = vec![0xff; 4096];
    assert_eq!(keeps_apart(&gone), None);
}

#[test]
fn a_name_is_an_address_or_it_is_not() {
    for good in ["0000:c1:00.0", "10000:e1:00.7"] {
        assert!(is_bdf(good), "{good}");
    }
    for bad in ["pci0000:00", "0000:c1:00", "000:c1:00.0", "0000:c1:00.0.1", "0000.c1.00:g", ""] {
        assert!(!is_bdf(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(config in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = keeps_apart(&config);
    }

    /// Whatever else is broken, a bridge is never said to keep apart while a service of its port is off.
    #[test]
    fn broken_bytes_never_turn_a_service_on(
        port in prop::sample::select(vec![ROOT, DOWNSTREAM]),
        missing in prop::sample::select(vec![0x01_u16, 0x04, 0x08, 0x10]),
        length in 0_usize..4097,
    ) {
        let config = bridge(port, false, &AER_THEN_ACS, 0x5f & !missing);
        prop_assert_ne!(keeps_apart(&config[..length]), Some(true));
    }
}

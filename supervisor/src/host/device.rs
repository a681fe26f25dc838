//! NICs, disks, clocks, TPM and firmware from sysfs.

use bulkhead_api::id::SystemUuid;
use bulkhead_api::inventory::{Disk, DiskClaim, Firmware, Nic, PtpClock, Tpm};
use bulkhead_api::units::Bytes;

use super::pci::{bdf_of, node_of};
use super::tree::{Tree, numbers};

const DMI: &str = "sys/class/dmi/id";
/// GUID of the variables of the UEFI specification (`EFI_GLOBAL_VARIABLE`).
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

pub(super) fn system_uuid(tree: &mut Tree<'_>) -> Option<SystemUuid> {
    let uuid: SystemUuid = tree.parse(&format!("{DMI}/product_uuid"))?;
    (!uuid.is_unset()).then_some(uuid)
}

pub(super) fn firmware(tree: &mut Tree<'_>) -> Firmware {
    let mut dmi = |name: &str| tree.text(&format!("{DMI}/{name}")).unwrap_or_default();
    let (vendor, product) = (dmi("sys_vendor"), dmi("product_name"));
    let (serial, bios_version) = (dmi("product_serial"), dmi("bios_version"));
    // Four bytes of attributes before the value (`Documentation/filesystems/efivarfs.rst`).
    let variable = std::fs::read(tree.path(SECURE_BOOT)).unwrap_or_default();
    let secure_boot = variable.get(4) == Some(&1);
    Firmware {
        vendor,
        product,
        serial,
        bios_version,
        uefi: tree.exists("sys/firmware/efi"),
        secure_boot,
    }
}

pub(super) fn nics(tree: &mut Tree<'_>) -> Vec<Nic> {
    let mut nics = Vec::new();
    for name in tree.names("sys/class/net") {
        let below = format!("sys/class/net/{name}");
        if !tree.exists(&format!("{below}/device")) {
            continue;
        }
        let Some(mac) = tree.parse(&format!("{below}/address")) else { continue };
        let device = tree.real(&format!("{below}/device"));
        let speed = tree.quiet_text(&format!("{below}/speed")).and_then(|text| text.parse().ok());
        let carrier = tree.quiet_text(&format!("{below}/carrier"));
        let mut vfs: Vec<String> = tree
            .names(&format!("{below}/device"))
            .iter()
            .filter(|name| name.starts_with("virtfn"))
            .filter_map(|name| tree.link(&format!("{below}/device/{name}")))
            .collect();
        vfs.sort();
        nics.push(Nic {
            mac,
            driver: tree.link(&format!("{below}/device/driver")).unwrap_or_default(),
            bdf: device.as_deref().and_then(bdf_of),
            speed_mbps: speed.filter(|&mbps: &u32| mbps != 0 && mbps != u32::MAX),
            up: carrier.as_deref() == Some("1"),
            total_vfs: tree.parse(&format!("{below}/device/sriov_totalvfs")).unwrap_or(0),
            vfs,
            name,
        });
    }
    nics
}

pub(super) fn disks(tree: &mut Tree<'_>) -> Vec<Disk> {
    let mut disks = Vec::new();
    for name in tree.names("sys/block") {
        let below = format!("sys/block/{name}");
        // Loop, device-mapper and RAM disks have no device; `hidden` ones are paths of a multipath disk.
        let hidden = tree.text(&format!("{below}/hidden")).as_deref() == Some("1");
        if hidden || name.starts_with("sr") || !tree.exists(&format!("{below}/device")) {
            continue;
        }
        let sectors: u64 = tree.parse(&format!("{below}/size")).unwrap_or(0);
        let model = tree.text(&format!("{below}/device/model"));
        let serial = tree
            .text(&format!("{below}/device/serial"))
            .or_else(|| tree.text(&format!("{below}/serial")));
        let bdf = controller(tree, &format!("{below}/device"));
        disks.push(Disk {
            transport: transport(tree.link(&format!("{below}/device/subsystem"))),
            model: model.unwrap_or_default(),
            serial: serial.unwrap_or_default(),
            size: Bytes::new(sectors.saturating_mul(512)),
            rotational: tree.text(&format!("{below}/queue/rotational")).as_deref() == Some("1"),
            node: bdf.as_deref().and_then(|bdf| node_of(tree, bdf)),
            bdf,
            claim: DiskClaim::Unknown,
            name,
        });
    }
    disks
}

/// PCI address of a disk's controller; of several paths to a namespace the first.
fn controller(tree: &mut Tree<'_>, device: &str) -> Option<String> {
    let own = tree.real(device).as_deref().and_then(bdf_of);
    own.or_else(|| {
        let names = tree.names(device);
        let number = numbers(&names, "nvme").first().copied()?;
        tree.real(&format!("{device}/nvme{number}")).as_deref().and_then(bdf_of)
    })
}

/// With several paths to a namespace the kernel shows it below the NVM subsystem instead of the controller.
fn transport(subsystem: Option<String>) -> String {
    match subsystem.as_deref() {
        Some("nvme-subsystem") => "nvme".to_owned(),
        _ => subsystem.unwrap_or_default(),
    }
}

pub(super) fn ptp_clocks(tree: &mut Tree<'_>) -> Vec<PtpClock> {
    let names = tree.names("sys/class/ptp");
    let mut clocks = Vec::new();
    for number in numbers(&names, "ptp") {
        let name = format!("ptp{number}");
        let below = format!("sys/class/ptp/{name}");
        clocks.push(PtpClock {
            clock_name: tree.text(&format!("{below}/clock_name")).unwrap_or_default(),
            max_adjustment_ppb: tree.parse(&format!("{below}/max_adjustment")).unwrap_or(0),
            name,
        });
    }
    clocks
}

pub(super) fn tpm(tree: &mut Tree<'_>) -> Option<Tpm> {
    let names = tree.names("sys/class/tpm");
    let number = numbers(&names, "tpm").first().copied()?;
    let name = format!("tpm{number}");
    let version_major = tree.parse(&format!("sys/class/tpm/{name}/tpm_version_major")).unwrap_or(0);
    Some(Tpm { name, version_major })
}

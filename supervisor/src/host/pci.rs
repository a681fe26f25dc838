//! PCI functions and where they hang, and whether a bridge keeps apart what is below it.

use std::path::Path;

use bulkhead_api::inventory::PciFunction;

use super::tree::Tree;

const DEVICES: &str = "sys/bus/pci/devices";

/// Class of a PCI-to-PCI bridge, without its programming interface.
const BRIDGE: u32 = 0x0604;

pub(super) fn pci(tree: &mut Tree<'_>) -> Vec<PciFunction> {
    let mut functions = Vec::new();
    for bdf in tree.names(DEVICES) {
        let below = format!("{DEVICES}/{bdf}");
        let (Some(vendor), Some(device), Some(class)) = (
            tree.hex(&format!("{below}/vendor")),
            tree.hex(&format!("{below}/device")),
            tree.hex::<u32>(&format!("{below}/class")),
        ) else {
            continue;
        };
        let acs = if class >> 8 == BRIDGE { acs_of(tree, &below) } else { None };
        functions.push(PciFunction {
            vendor,
            device,
            class,
            driver: tree.link(&format!("{below}/driver")),
            iommu_group: tree.link(&format!("{below}/iommu_group")).and_then(|g| g.parse().ok()),
            node: node_of(tree, &bdf),
            parent: tree.real(&below).as_deref().and_then(parent_of),
            acs,
            bdf,
        });
    }
    functions
}

/// NUMA node of a function. The kernel says -1 where the platform does not say.
pub(super) fn node_of(tree: &Tree<'_>, bdf: &str) -> Option<u32> {
    tree.quiet_text(&format!("{DEVICES}/{bdf}/numa_node"))?.parse().ok()
}

fn acs_of(tree: &mut Tree<'_>, below: &str) -> Option<bool> {
    let config = tree.bytes(&format!("{below}/config"))?;
    let kept = keeps_apart(&config);
    if kept.is_none() {
        let length = config.len();
        tree.problems.push(format!(
            "read {below}/config: {length} bytes do not tell whether the bridge has access control services"
        ));
    }
    kept
}

/// The innermost PCI function on a device's path: a virtio device is a child of one.
pub(super) fn bdf_of(device: &Path) -> Option<String> {
    device
        .components()
        .rev()
        .filter_map(|part| part.as_os_str().to_str())
        .find(|name| is_bdf(name))
        .map(str::to_owned)
}

/// The bridge above a function.
fn parent_of(function: &Path) -> Option<String> {
    let name = function.parent()?.file_name()?.to_str()?;
    is_bdf(name).then(|| name.to_owned())
}

/// `0000:c1:00.0`; a domain made by a driver has more digits.
fn is_bdf(name: &str) -> bool {
    let mut parts = name.split([':', '.']);
    let domain = parts.next().is_some_and(|part| (4..=8).contains(&part.len()) && is_hex(part));
    let widths_fit = [2, 2, 1]
        .iter()
        .all(|&width| parts.next().is_some_and(|part| part.len() == width && is_hex(part)));
    domain && widths_fit && parts.next().is_none() && name.contains('.')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Whether the config space of a bridge says that it sends nothing of what is below to its neighbours past the
/// IOMMU. Absent where the bytes end before they tell.
///
/// As the kernel judges it (`drivers/pci/pci.c`, `pci_acs_enabled`): root and downstream ports by their access
/// control services, of which Source Validation, P2P Request Redirect, P2P Completion Redirect and Upstream
/// Forwarding must all be on; bridges to conventional PCI never; an upstream port that is the only function of
/// its device has no peers. Other than the kernel, a service that a port does not have counts as off.
fn keeps_apart(config: &[u8]) -> Option<bool> {
    match port_type(config)? {
        Port::Root | Port::Downstream => acs_is_on(config),
        Port::Upstream if !is_multifunction(config)? => Some(true),
        Port::Upstream => acs_is_on(config),
        Port::Conventional => Some(false),
    }
}

/// Kind of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Root,
    Upstream,
    Downstream,
    /// One of its sides is a shared bus, or it is none of the above.
    Conventional,
}

/// Offsets and bits of `include/uapi/linux/pci_regs.h`.
mod regs {
    pub(super) const STATUS: usize = 0x06;
    pub(super) const STATUS_CAP_LIST: u16 = 0x10;
    pub(super) const HEADER_TYPE: usize = 0x0e;
    pub(super) const HEADER_MULTIFUNCTION: u8 = 0x80;
    pub(super) const CAPABILITY_LIST: usize = 0x34;
    pub(super) const CAP_ID_EXP: u8 = 0x10;
    /// From the capability's start: flags, with the port type in bits 4 to 7.
    pub(super) const EXP_FLAGS: usize = 2;
    pub(super) const EXT_START: usize = 0x100;
    pub(super) const EXT_CAP_ID_ACS: u32 = 0x0d;
    pub(super) const ACS_CTRL: usize = 6;
    /// Source Validation, P2P Request Redirect, P2P Completion Redirect, Upstream Forwarding.
    pub(super) const ACS_APART: u16 = 0x01 | 0x04 | 0x08 | 0x10;
    /// Capabilities of four bytes and more in the 4096 bytes there are: a longer list is a circle.
    pub(super) const EXT_MOST: usize = (4096 - EXT_START) / 8;
    pub(super) const MOST: usize = 48;
}

fn byte(config: &[u8], at: usize) -> Option<u8> {
    config.get(at).copied()
}

fn word(config: &[u8], at: usize) -> Option<u16> {
    let bytes = config.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn long(config: &[u8], at: usize) -> Option<u32> {
    let bytes = config.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn is_multifunction(config: &[u8]) -> Option<bool> {
    Some(byte(config, regs::HEADER_TYPE)? & regs::HEADER_MULTIFUNCTION != 0)
}

fn port_type(config: &[u8]) -> Option<Port> {
    if word(config, regs::STATUS)? & regs::STATUS_CAP_LIST == 0 {
        return Some(Port::Conventional);
    }
    let mut at = usize::from(byte(config, regs::CAPABILITY_LIST)? & !3);
    for _ in 0..regs::MOST {
        if at < 0x40 {
            return Some(Port::Conventional);
        }
        if byte(config, at)? == regs::CAP_ID_EXP {
            return Some(match word(config, at + regs::EXP_FLAGS)? >> 4 & 0xf {
                4 => Port::Root,
                5 => Port::Upstream,
                6 => Port::Downstream,
                _ => Port::Conventional,
            });
        }
        at = usize::from(byte(config, at + 1)? & !3);
    }
    None
}

fn acs_is_on(config: &[u8]) -> Option<bool> {
    let mut at = regs::EXT_START;
    for _ in 0..regs::EXT_MOST {
        let header = long(config, at)?;
        // Reads of a function that is gone, or of one without extended space, are all ones or all zeros.
        if header == u32::MAX {
            return None;
        }
        if header == 0 {
            return Some(false);
        }
        if header & 0xffff == regs::EXT_CAP_ID_ACS {
            let control = word(config, at + regs::ACS_CTRL)?;
            return Some(control & regs::ACS_APART == regs::ACS_APART);
        }
        at = usize::try_from(header >> 20 & 0xffc).ok()?;
        if at < regs::EXT_START {
            return Some(false);
        }
    }
    None
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;

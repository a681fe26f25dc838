//! Lines of the kernel log: `NVRM: Xid (PCI:0000:c1:00): 79, pid=…`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Domain, bus and device of a GPU, as the driver's log has it; a GPU is its function 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// PCI domain.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device.
    pub device: u8,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

/// An XID that the driver logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Which GPU.
    pub slot: Slot,
    /// Number of the XID.
    pub xid: u32,
}

const LEAD: &[u8] = b"NVRM: Xid (PCI:";

/// The XID of a line of the kernel log; absent where the line is about something else, or cut short.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Logged> {
    let at = line.windows(LEAD.len()).position(|window| window == LEAD)?;
    let rest = line.get(at + LEAD.len()..)?;
    let end = rest.iter().take(32).position(|&c| c == b')')?;
    let (address, behind) = rest.split_at_checked(end)?;
    let behind = behind.strip_prefix(b"): ")?;
    let digits = behind.iter().take_while(|c| c.is_ascii_digit()).count();
    // A number that the end of the line cuts is no number: one more character shows that it is whole.
    behind.get(digits)?;
    let xid = std::str::from_utf8(behind.get(..digits)?).ok()?.parse().ok()?;
    Some(Logged { slot: slot(std::str::from_utf8(address).ok()?)?, xid })
}

fn slot(text: &str) -> Option<Slot> {
    let hex = |part: &str, most: usize| {
        let good = (1..=most).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_hexdigit());
        good.then(|| u32::from_str_radix(part, 16).ok()).flatten()
    };
    let mut parts = text.split(':');
    let (domain, bus) = (hex(parts.next()?, 8)?, hex(parts.next()?, 2)?);
    let device = hex(parts.next()?, 2).filter(|&device| device < 32)?;
    let (bus, device) = (u8::try_from(bus).ok()?, u8::try_from(device).ok()?);
    parts.next().is_none().then_some(Slot { domain, bus, device })
}

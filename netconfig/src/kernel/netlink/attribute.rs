//! Attributes of netlink: reading them one by one, and naming the one that the kernel finds fault with.

use netlink_packet_core::NlasIterator;

/// Every attribute of a payload up to the first that is cut short. Numbers are without their flags.
pub(super) fn each(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let well_formed = NlasIterator::new(payload).map_while(Result::ok);
    well_formed.map(|attribute| {
        let kind = attribute.kind();
        // The value lives as long as the payload, not as the view of it.
        let value = attribute.into_inner();
        let length = value.first_chunk::<2>().map_or(0, |l| usize::from(u16::from_ne_bytes(*l)));
        (kind, value.get(4..length).unwrap_or_default())
    })
}

/// A number of one byte.
pub(super) fn byte(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

/// A number of two bytes.
pub(super) fn short(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// A number of two bytes in the order of the network.
pub(super) fn short_be(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A number of four bytes.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A text that ends with a zero byte, or with the attribute.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    value.get(..end).and_then(|text| std::str::from_utf8(text).ok())
}

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// What the kernel says to a no: its words, and where our message is at fault.
pub(super) fn words(payload: &[u8]) -> (Option<String>, Option<usize>) {
    let (mut message, mut offset) = (None, None);
    for (kind, value) in each(payload) {
        match kind {
            NLMSGERR_ATTR_MSG => message = text(value).map(str::to_owned),
            NLMSGERR_ATTR_OFFS => offset = word(value).and_then(|at| usize::try_from(at).ok()),
            _ => {}
        }
    }
    (message, offset)
}

/// Name of the outermost attribute of a message that holds a byte of it.
pub(super) fn at(message: &[u8], offset: usize) -> Option<String> {
    let kind = message.get(4..6).and_then(short)?;
    // linux/rtnetlink.h: links 16.., addresses 20.., routes 24.., neighbours 28.., rules 32..
    let (header, names): (usize, &[(u16, &str)]) = match kind {
        16..20 => (16, LINK),
        20..24 => (8, ADDRESS),
        24..28 => (12, ROUTE),
        28..32 => (12, NEIGHBOUR),
        32..36 => (12, RULE),
        _ => return None,
    };
    let length = message.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length))?;
    let message = message.get(..usize::try_from(length).ok()?)?;
    let mut start = 16 + header;
    for (number, value) in each(message.get(start..)?) {
        let end = start + (4 + value.len()).next_multiple_of(4);
        if (start..end).contains(&offset) {
            let known = names.iter().find(|(known, _)| *known == number);
            return Some(known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned()));
        }
        start = end;
    }
    None
}

const LINK: &[(u16, &str)] = &[
    (1, "IFLA_ADDRESS"),
    (3, "IFLA_IFNAME"),
    (4, "IFLA_MTU"),
    (5, "IFLA_LINK"),
    (10, "IFLA_MASTER"),
    (18, "IFLA_LINKINFO"),
    (22, "IFLA_VFINFO_LIST"),
    (26, "IFLA_AF_SPEC"),
    (27, "IFLA_GROUP"),
];
const ADDRESS: &[(u16, &str)] = &[(1, "IFA_ADDRESS"), (2, "IFA_LOCAL"), (8, "IFA_FLAGS")];
const ROUTE: &[(u16, &str)] =
    &[(1, "RTA_DST"), (4, "RTA_OIF"), (5, "RTA_GATEWAY"), (6, "RTA_PRIORITY"), (15, "RTA_TABLE")];
const NEIGHBOUR: &[(u16, &str)] = &[(1, "NDA_DST"), (2, "NDA_LLADDR")];
const RULE: &[(u16, &str)] = &[
    (3, "FRA_IIFNAME"),
    (6, "FRA_PRIORITY"),
    (10, "FRA_FWMARK"),
    (15, "FRA_TABLE"),
    (16, "FRA_FWMASK"),
    (21, "FRA_PROTOCOL"),
];

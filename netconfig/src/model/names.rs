//! Names and numbers of what is ours: deterministic, short, and recognisable.

use std::fmt;
use std::str::FromStr;

use bulkhead_api::id::MacAddr;
use bulkhead_api::network::NetworkId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::desired::PortId;

/// Group (`IFLA_GROUP`) of links that are ours and no tenant's. Groups of tenants follow it, and the tables of a
/// tenant have the same number.
pub const GROUP_BASE: u32 = 1_000_000;
/// The same as [`GROUP_BASE`], where it means the underlay.
pub const UNDERLAY_GROUP: u32 = GROUP_BASE;
/// The last group that is ours.
pub const GROUP_LAST: u32 = GROUP_BASE + 65_535;
/// Group of links that are about to be deleted together: nobody's, so that no rule of a tenant fits them.
pub const TRASH_GROUP: u32 = GROUP_LAST;

/// `rtm_protocol` and `FRA_PROTOCOL` of our routes and rules: a number that neither the kernel nor a routing daemon
/// of `/etc/iproute2/rt_protos` uses.
pub const PROTOCOL: u8 = 72;

/// Whether a link with this group was made by us.
#[must_use]
pub const fn is_ours(group: u32) -> bool {
    group >= GROUP_BASE && group <= GROUP_LAST
}

/// Why a text is no name of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkNameError {
    /// The kernel keeps 16 bytes with the terminating zero.
    #[error("link name {0:?}: {1} bytes, expected 1 to 15")]
    Length(String, usize),
    /// Narrower than the kernel's own rule: no name means more than itself in a rule set or a path.
    #[error("link name {0:?}: expected letters, digits and \"._+@-\", neither \".\" nor \"..\"")]
    Form(String),
}

/// Name of a network link: 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

/// What a link of ours is for: the second letter of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `bb`: bridge of a network.
    Bridge,
    /// `bx`: its VXLAN.
    Vxlan,
    /// `bl`: its VLAN on the uplink.
    Vlan,
    /// `bv`: a tenant's VRF.
    Vrf,
    /// `bp`: the host's end of a port.
    Port,
    /// `bq`: the tenant's end of a port.
    Peer,
    /// `bo`: the uplink's bond.
    Bond,
    /// `bh`: a VLAN of the host itself.
    HostVlan,
}

impl Role {
    const fn letter(self) -> char {
        match self {
            Self::Bridge => 'b',
            Self::Vxlan => 'x',
            Self::Vlan => 'l',
            Self::Vrf => 'v',
            Self::Port => 'p',
            Self::Peer => 'q',
            Self::Bond => 'o',
            Self::HostVlan => 'h',
        }
    }
}

impl LinkName {
    /// Longest name in bytes (`IFNAMSIZ` less the terminating zero).
    pub const MAX: usize = 15;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `b`, the role's letter, and 13 letters of a hash of what it is for: 65 bits, so that 10 000 links of a host
    /// meet by chance once in 10^11 hosts. Where two do meet, `check` refuses the later.
    fn hashed(role: Role, words: &[&str]) -> Self {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let bits =
            digest(words).iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let mut name = format!("b{}", role.letter());
        for at in 0..13 {
            let letter = usize::try_from(bits >> (at * 5) & 31).unwrap_or_default();
            name.push(LETTERS.get(letter).copied().map_or('a', char::from));
        }
        Self(name)
    }

    /// Of a network's bridge, VXLAN or VLAN.
    #[must_use]
    pub fn of_network(role: Role, network: &NetworkId) -> Self {
        Self::hashed(role, &[network.tenant.as_str(), network.name.as_str()])
    }

    /// Of one end of a port.
    #[must_use]
    pub fn of_port(role: Role, port: &PortId) -> Self {
        let PortId { lease, network } = port;
        Self::hashed(role, &[lease.tenant.as_str(), lease.name.as_str(), network.as_str()])
    }

    /// Of a tenant's VRF.
    #[must_use]
    pub fn of_vrf(tenant: &bulkhead_api::id::TenantName) -> Self {
        Self::hashed(Role::Vrf, &[tenant.as_str()])
    }

    /// Name of the tenant's end of the port whose host's end this is; absent where it is no name of a port.
    #[must_use]
    pub fn peer(&self) -> Option<Self> {
        self.0.strip_prefix("bp").map(|rest| Self(format!("bq{rest}")))
    }

    /// Of the host's own links: `bo0`, `bh100`.
    #[must_use]
    pub fn of_host(role: Role, number: u16) -> Self {
        Self(format!("b{}{number}", role.letter()))
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    fn from_str(text: &str) -> Result<Self, LinkNameError> {
        if text.is_empty() || text.len() > Self::MAX {
            return Err(LinkNameError::Length(text.to_owned(), text.len()));
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._+@-".contains(&c);
        if !text.bytes().all(plain) || text == "." || text == ".." {
            return Err(LinkNameError::Form(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LinkName {
    type Error = LinkNameError;

    fn try_from(text: String) -> Result<Self, LinkNameError> {
        text.parse()
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> String {
        name.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The gateway's hardware address in a network: the same on every host, so that a tenant may move. Locally
/// administered.
#[must_use]
pub fn gateway_mac(network: &NetworkId) -> MacAddr {
    made_mac(&["gateway", network.tenant.as_str(), network.name.as_str()])
}

/// The hardware address of a port whose lease names none. Locally administered.
#[must_use]
pub fn port_mac(port: &PortId) -> MacAddr {
    let PortId { lease, network } = port;
    made_mac(&["port", lease.tenant.as_str(), lease.name.as_str(), network.as_str()])
}

fn made_mac(words: &[&str]) -> MacAddr {
    let [a, b, c, d, e, ..] = digest(words);
    MacAddr::new([0x02, a, b, c, d, e])
}

fn digest(words: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for word in words {
        // No word holds a zero byte: they are DNS labels.
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

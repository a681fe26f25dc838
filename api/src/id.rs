//! Names and hardware identities. Each is checked where it enters, so that code behind it need not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Names are DNS labels (RFC 1123, 2.1).
    #[error(
        "{kind} {text:?}: expected 1 to {max} of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    Label {
        /// What was being read.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// Longest length allowed.
        max: usize,
    },
    /// Not a hardware address.
    #[error("MAC address {0:?}: expected six hexadecimal octets such as 52:54:00:12:34:56")]
    Mac(String),
    /// Not a UUID.
    #[error("system UUID {0:?}: expected 8-4-4-4-12 hexadecimal digits")]
    Uuid(String),
}

fn check_label(kind: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let fits = !bytes.is_empty() && bytes.len() <= max;
    let ends = bytes.first().copied().is_some_and(good) && bytes.last().copied().is_some_and(good);
    if fits && ends && bytes.iter().all(|&c| good(c) || c == b'-') {
        Ok(())
    } else {
        Err(IdError::Label { kind, text: text.to_owned(), max })
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check_label($kind, text, $max)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

label! {
    /// A site of the fleet: a DNS label of at most 32 characters, as host ids begin with it.
    SiteName, "site name", 32
}
label! {
    /// A host of the fleet, given by the registry at enrolment: `{site}-{last three octets of the MAC}`.
    HostId, "host id", 63
}
impl HostId {
    /// Stands in a host's own status until the registry gave it an id; the registry gives it to nobody, as
    /// an id begins with a site's name and a dash.
    #[must_use]
    pub fn unenrolled() -> Self {
        Self("unenrolled".to_owned())
    }
}

label! {
    /// A tenant: a DNS label of at most 40 characters, as unit names of systemd carry it.
    TenantName, "tenant name", 40
}
label! {
    /// A lease, unique within its tenant: a DNS label of at most 40 characters.
    LeaseName, "lease name", 40
}
label! {
    /// A network, unique within its tenant: a DNS label of at most 40 characters.
    NetworkName, "network name", 40
}
label! {
    /// A volume, unique within its lease: a DNS label of at most 40 characters.
    VolumeName, "volume name", 40
}

/// A lease of the fleet: `tenant/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LeaseId {
    /// Who leases.
    pub tenant: TenantName,
    /// Which of the tenant's leases.
    pub name: LeaseName,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// An Ethernet hardware address (EUI-48); text in lower case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// From the six octets in wire order.
    #[must_use]
    pub fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets in wire order.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Mac(text.to_owned());
        let mut octets = [0_u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            if !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A machine's UUID as Linux prints it (`/sys/class/dmi/id/product_uuid`), lower case.
///
/// SMBIOS stores the first three fields little-endian (DSP0134, 7.2.1) and so does DHCP option 97 as
/// firmware sends it; [`SystemUuid::from_smbios`] reads that form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct SystemUuid([u8; 16]);

impl SystemUuid {
    /// From the sixteen octets in the order of the text.
    #[must_use]
    pub fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The sixteen octets in the order of the text.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        self.0
    }

    /// From the SMBIOS form: first three fields little-endian.
    #[must_use]
    pub fn from_smbios(raw: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = raw;
        let [i, j, k, l, m, n, o, p] = rest;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    /// The SMBIOS form: first three fields little-endian.
    #[must_use]
    pub fn to_smbios(self) -> [u8; 16] {
        // Swapping the fields twice gives them back.
        Self::from_smbios(self.0).0
    }

    /// All zeros or all ones: the firmware has no UUID (DSP0134, 7.2.1).
    #[must_use]
    pub fn is_unset(self) -> bool {
        self.0 == [0; 16] || self.0 == [0xff; 16]
    }
}

impl FromStr for SystemUuid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Uuid(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        if !groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]) {
            return Err(bad());
        }
        let digits = groups.concat();
        if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| bad())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for SystemUuid {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<SystemUuid> for String {
    fn from(uuid: SystemUuid) -> String {
        uuid.to_string()
    }
}

impl fmt::Display for SystemUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, octet) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SystemUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A ticket's secret text. `Debug` and `Display` do not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketSecret(String);

impl TicketSecret {
    /// Wraps the text of a ticket.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the wire.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

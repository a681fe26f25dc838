//! DHCPv4 messages (RFC 2131, RFC 2132) as firmware really sends them.
//!
//! ```text
//! datagram ─► scan: frame, magic cookie, every option's code, length and place ─► RawOptions
//!                                      │ header + the options we read by type, lengths checked
//!                                      ▼
//!                              dhcproto::v4::Message ─► Request
//! Reply ─► encode: own writer (53, 54, ..., 67, 82, 255; NUL inside 67; at least 300 bytes)
//! ```
//!
//! `dhcproto` sees only options whose lengths were checked here: alone it accepts a wrong cookie,
//! stops silently at the first bad option, keeps one architecture of several, and has debug panics.

mod decode;
mod encode;
mod scan;

pub use decode::{ClientMessage, Request, decode};
pub use encode::{EncodeError, Reply, ServerMessage};
pub use scan::{DecodeError, RawOptions};

/// Option codes this server reads or writes (RFC 2132 unless said).
pub mod code {
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers on the subnet.
    pub const ROUTER: u8 = 3;
    /// Vendor-specific data; for PXE a list of sub-options (PXE 2.1, 2.2.3).
    pub const VENDOR: u8 = 43;
    /// Address the client asks for.
    pub const REQUESTED_IP: u8 = 50;
    /// Seconds the address may be used.
    pub const LEASE_TIME: u8 = 51;
    /// `file` and `sname` carry options.
    pub const OVERLOAD: u8 = 52;
    /// DHCP message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server's identifier: an address that clients can reach.
    pub const SERVER_ID: u8 = 54;
    /// Options the client wants.
    pub const PARAMETER_LIST: u8 = 55;
    /// Text for a NAK.
    pub const MESSAGE: u8 = 56;
    /// Longest message the client takes.
    pub const MAX_SIZE: u8 = 57;
    /// Renewal time T1.
    pub const RENEWAL: u8 = 58;
    /// Rebinding time T2.
    pub const REBINDING: u8 = 59;
    /// Vendor class: `PXEClient...`, `HTTPClient...`, `bulkhead-stage1`.
    pub const VENDOR_CLASS: u8 = 60;
    /// Client identifier, echoed (RFC 6842).
    pub const CLIENT_ID: u8 = 61;
    /// TFTP server name.
    pub const TFTP_SERVER: u8 = 66;
    /// Boot file name or URL.
    pub const BOOT_FILE: u8 = 67;
    /// User class (RFC 3004; iPXE writes plain text).
    pub const USER_CLASS: u8 = 77;
    /// Relay agent information, echoed verbatim and last (RFC 3046).
    pub const RELAY: u8 = 82;
    /// Client system architectures, list of u16 (RFC 4578).
    pub const ARCH: u8 = 93;
    /// Client machine identifier: type 0 and a UUID in SMBIOS order (RFC 4578).
    pub const MACHINE_ID: u8 = 97;
    /// iPXE's encapsulated options.
    pub const IPXE: u8 = 175;
    /// End of options.
    pub const END: u8 = 255;
}

#[cfg(test)]
mod tests;

//! The reply writer.

use std::net::Ipv4Addr;

use super::code;
use super::scan::COOKIE;

/// Clients that say nothing take a DHCP message in an IP datagram of 576 bytes (RFC 2132, 9.10).
const DEFAULT_DATAGRAM: u16 = 576;
/// IPv4 and UDP headers, which option 57 counts in.
const IP_UDP_HEADERS: usize = 28;
/// BOOTP clients drop shorter messages (RFC 1542, 2.1).
const SHORTEST: usize = 300;

/// Message types that servers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of RFC 2131")]
pub enum ServerMessage {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// Why a reply cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than the client takes.
    #[error("reply of {length} bytes: the client takes {limit}")]
    TooLong {
        /// Bytes of the DHCP message.
        length: usize,
        /// What option 57, or its default, leaves.
        limit: usize,
    },
    /// An option or field longer than its place.
    #[error("{what}: {length} bytes, at most {limit} fit")]
    Field {
        /// Field or option.
        what: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes there are.
        limit: usize,
    },
}

/// A message to a client. Options absent here are not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Kind of answer.
    pub message: ServerMessage,
    /// Mirrored from the request.
    pub xid: u32,
    /// Mirrored from the request.
    pub flags: u16,
    /// Mirrored from the request in an ACK.
    pub ciaddr: Ipv4Addr,
    /// The client's address; 0.0.0.0 in a NAK, to INFORM and on port 4011.
    pub yiaddr: Ipv4Addr,
    /// Where the boot file is fetched; 0.0.0.0 without one.
    pub siaddr: Ipv4Addr,
    /// Mirrored from the request.
    pub giaddr: Ipv4Addr,
    /// Mirrored from the request.
    pub mac: [u8; 6],
    /// Server name; at most 63 bytes.
    pub sname: String,
    /// Boot file name or URL, written into `file` *and* option 67. Empty: no boot file.
    pub boot_file: String,
    /// Whether option 67 ends with a NUL: EDK2 writes one behind an unterminated value, onto the
    /// code of the next option.
    pub terminate_boot_file: bool,
    /// Option 54.
    pub server_id: Ipv4Addr,
    /// Other options in the order to send; 53, 54, 67, 82 and 255 are placed by the writer.
    pub options: Vec<(u8, Vec<u8>)>,
    /// Option 82 of the request, mirrored as bytes and written last.
    pub relay: Option<Vec<u8>>,
    /// Option 57 of the request.
    pub max_size: Option<u16>,
}

impl Reply {
    /// The bytes to send.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when the client's limit is below what must be said;
    /// [`EncodeError::Field`] when a text or option does not fit its place.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&[2, 1, 6, 0]);
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.mac);
        out.extend_from_slice(&[0; 10]);
        fixed(&mut out, "sname", self.sname.as_bytes(), 64)?;
        fixed(&mut out, "file", self.boot_file.as_bytes(), 128)?;
        out.extend_from_slice(&COOKIE);
        option(&mut out, code::MESSAGE_TYPE, "option 53", &[self.message as u8])?;
        option(&mut out, code::SERVER_ID, "option 54", &self.server_id.octets())?;
        for (number, value) in &self.options {
            option(&mut out, *number, "option", value)?;
        }
        if !self.boot_file.is_empty() {
            let mut name = self.boot_file.clone().into_bytes();
            if self.terminate_boot_file {
                name.push(0);
            }
            option(&mut out, code::BOOT_FILE, "option 67", &name)?;
        }
        if let Some(relay) = &self.relay {
            option(&mut out, code::RELAY, "option 82", relay)?;
        }
        out.push(code::END);
        let limit = usize::from(self.max_size.unwrap_or(DEFAULT_DATAGRAM).max(DEFAULT_DATAGRAM))
            .saturating_sub(IP_UDP_HEADERS);
        if out.len() > limit {
            return Err(EncodeError::TooLong { length: out.len(), limit });
        }
        if out.len() < SHORTEST {
            out.resize(SHORTEST, 0);
        }
        Ok(out)
    }
}

/// A NUL-terminated text in a field of `size` bytes.
fn fixed(
    out: &mut Vec<u8>,
    what: &'static str,
    text: &[u8],
    size: usize,
) -> Result<(), EncodeError> {
    let limit = size - 1;
    if text.len() > limit {
        return Err(EncodeError::Field { what, length: text.len(), limit });
    }
    out.extend_from_slice(text);
    out.resize(out.len() + size - text.len(), 0);
    Ok(())
}

/// One option; values above 255 bytes are split (RFC 3396).
fn option(
    out: &mut Vec<u8>,
    number: u8,
    what: &'static str,
    value: &[u8],
) -> Result<(), EncodeError> {
    if value.is_empty() {
        out.extend_from_slice(&[number, 0]);
    }
    for part in value.chunks(255) {
        let length = u8::try_from(part.len()).map_err(|_| EncodeError::Field {
            what,
            length: part.len(),
            limit: 255,
        })?;
        out.extend_from_slice(&[number, length]);
        out.extend_from_slice(part);
    }
    Ok(())
}

//! The strict frame check in front of `dhcproto`.

use std::collections::BTreeMap;

use super::code;

/// Fixed part of a BOOTP frame, before the magic cookie.
pub(super) const HEADER: usize = 236;
/// Marks DHCP options (RFC 2131, 3).
pub(super) const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// No datagram of a boot client is longer than an Ethernet jumbo frame.
const LONGEST: usize = 9000;

/// Why a datagram is not a client message that this server answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than header and cookie, or absurdly long.
    #[error("{0} bytes: expected 240 to {LONGEST}")]
    Size(usize),
    /// Not from a client.
    #[error("op {0}: expected 1, a request")]
    NotRequest(u8),
    /// The bytes before the options are not the DHCP cookie.
    #[error("magic cookie {0:02x?}: expected 63 82 53 63")]
    Cookie([u8; 4]),
    /// Hardware that this server keeps no bindings for.
    #[error("hardware type {htype}, address length {hlen}: expected Ethernet, 1 and 6")]
    Hardware {
        /// ARP hardware type.
        htype: u8,
        /// Length of the hardware address.
        hlen: u8,
    },
    /// All zeros, broadcast or multicast.
    #[error("hardware address {0}: not a single station")]
    Station(bulkhead_api::id::MacAddr),
    /// More relays than RFC 1542 (4.1.1) allows.
    #[error("{0} hops: expected at most 16")]
    Hops(u8),
    /// An option ends behind the area that holds it.
    #[error("option {code}: {want} bytes announced, {left} left")]
    Cut {
        /// Option code.
        code: u8,
        /// Announced length.
        want: usize,
        /// What the area still holds.
        left: usize,
    },
    /// The options do not end with 255.
    #[error("options without an end mark")]
    NoEnd,
    /// A value whose length the option does not have.
    #[error("option {code}: length {length}, expected {expected}")]
    Length {
        /// Option code.
        code: u8,
        /// Length found (sum over its parts).
        length: usize,
        /// What the option's definition asks for.
        expected: &'static str,
    },
    /// A value outside the option's range.
    #[error("option {code}: value {value} is not defined")]
    Value {
        /// Option code.
        code: u8,
        /// The value.
        value: u32,
    },
    /// No message type: BOOTP, which this server does not speak.
    #[error("no message type (option 53)")]
    NoMessageType,
    /// Message types that only servers send, or unknown ones.
    #[error("message type {0}: not one that clients send to a server")]
    MessageType(u8),
    /// `dhcproto` refused what the scan accepted.
    #[error("decode checked message")]
    Inner(String),
}

/// Every option of a message, parts of one code joined in order (RFC 3396).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawOptions(BTreeMap<u8, Vec<u8>>);

impl RawOptions {
    /// The value of `code`, joined; `None` when absent.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn read(&mut self, area: &[u8]) -> Result<(), DecodeError> {
        let mut rest = area;
        loop {
            match rest {
                [] => return Err(DecodeError::NoEnd),
                [0, tail @ ..] => rest = tail,
                [code::END, ..] => return Ok(()),
                [code] => return Err(DecodeError::Cut { code: *code, want: 1, left: 0 }),
                [code, length, tail @ ..] => {
                    let want = usize::from(*length);
                    let Some((value, tail)) = tail.split_at_checked(want) else {
                        return Err(DecodeError::Cut { code: *code, want, left: tail.len() });
                    };
                    self.0.entry(*code).or_default().extend_from_slice(value);
                    rest = tail;
                }
            }
        }
    }

    fn check_lengths(&self) -> Result<(), DecodeError> {
        for (&code, value) in &self.0 {
            let length = value.len();
            let (good, expected) = match code {
                code::MESSAGE_TYPE | code::OVERLOAD => (length == 1, "1"),
                code::REQUESTED_IP | code::SERVER_ID | code::LEASE_TIME => (length == 4, "4"),
                code::MAX_SIZE => (length == 2, "2"),
                code::VENDOR_CLASS | code::CLIENT_ID | code::PARAMETER_LIST => {
                    (length >= 1, "at least 1")
                }
                code::RELAY => (length >= 2, "at least 2"),
                code::ARCH => (length >= 2 && length.is_multiple_of(2), "an even number from 2"),
                code::MACHINE_ID => (length == 0 || length == 17, "0 or 17"),
                _ => (true, ""),
            };
            if !good {
                return Err(DecodeError::Length { code, length, expected });
            }
        }
        Ok(())
    }
}

/// Checks frame and options of `datagram` and gives every option's bytes.
///
/// # Errors
/// Whatever makes the datagram something other than a well-formed message of an Ethernet client.
pub(super) fn scan(datagram: &[u8]) -> Result<RawOptions, DecodeError> {
    let size = DecodeError::Size(datagram.len());
    if datagram.len() > LONGEST {
        return Err(size);
    }
    let Some((header, rest)) = datagram.split_first_chunk::<HEADER>() else { return Err(size) };
    let Some((cookie, options)) = rest.split_first_chunk::<4>() else { return Err(size) };
    let [op, htype, hlen, hops, ..] = *header;
    if op != 1 {
        return Err(DecodeError::NotRequest(op));
    }
    if *cookie != COOKIE {
        return Err(DecodeError::Cookie(*cookie));
    }
    if (htype, hlen) != (1, 6) {
        return Err(DecodeError::Hardware { htype, hlen });
    }
    if hops > 16 {
        return Err(DecodeError::Hops(hops));
    }
    let mut found = RawOptions::default();
    found.read(options)?;
    // RFC 2132, 9.3: 1 = `file`, 2 = `sname`, 3 = both, read in that order.
    if let Some(&[overload]) = found.get(code::OVERLOAD) {
        let (sname, file) = (header.get(44..108), header.get(108..236));
        let areas = match overload {
            1 => [file, None],
            2 => [sname, None],
            3 => [file, sname],
            value => {
                return Err(DecodeError::Value { code: code::OVERLOAD, value: value.into() });
            }
        };
        for area in areas.into_iter().flatten() {
            found.read(area)?;
        }
    }
    found.check_lengths()?;
    Ok(found)
}

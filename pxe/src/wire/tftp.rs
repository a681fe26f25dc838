//! TFTP packets (RFC 1350) with options (RFC 2347, 2348 blksize, 2349 tsize and timeout, 7440
//! windowsize).

/// What a client sends to a server that only gives files out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPacket {
    /// Asks for a file.
    Read(ReadRequest),
    /// Acknowledges blocks up to this number (modulo 65536).
    Ack(u16),
    /// Ends the transfer.
    Error {
        /// RFC 1350 appendix and RFC 2347: 8 = options refused.
        code: u16,
        /// The client's words, control characters replaced.
        message: String,
    },
}

/// A read request as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// File name as sent, without its NUL.
    pub name: Vec<u8>,
    /// What the client asked for; an option absent here was not asked.
    pub options: Asked,
}

/// Options of a read request. Unknown options and values out of range count as not asked, so that
/// they are not acknowledged (RFC 2347).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Bytes a block, 8..=65464.
    pub blksize: Option<u16>,
    /// The client wants to know the size.
    pub tsize: bool,
    /// Seconds until a resend, 1..=255.
    pub timeout: Option<u8>,
    /// Blocks an acknowledgement, 1..=65535.
    pub windowsize: Option<u16>,
}

/// Why a datagram is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No opcode, or a packet cut short.
    #[error("{0} bytes: cut short")]
    Cut(usize),
    /// Uploads do not exist here.
    #[error("write request: this server gives files out and takes none")]
    Write,
    /// DATA and OACK come from servers; others are not defined.
    #[error("opcode {0}: not one that a reading client sends")]
    Opcode(u16),
    /// A text without its NUL.
    #[error("{0} without a terminating NUL")]
    Unterminated(&'static str),
    /// `netascii` would change bytes, `mail` is obsolete.
    #[error("mode {0:?}: expected octet")]
    Mode(String),
    /// An empty name or one longer than any of ours.
    #[error("file name of {0} bytes: expected 1 to 255")]
    Name(usize),
    /// An option name without its value.
    #[error("option {0:?} without a value")]
    NoValue(String),
}

/// Decodes a datagram of a client.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(datagram: &[u8]) -> Result<ClientPacket, DecodeError> {
    let cut = DecodeError::Cut(datagram.len());
    let Some((opcode, body)) = datagram.split_first_chunk::<2>() else { return Err(cut) };
    match u16::from_be_bytes(*opcode) {
        1 => read_request(body).map(ClientPacket::Read),
        2 => Err(DecodeError::Write),
        4 => match body.first_chunk::<2>() {
            Some(block) => Ok(ClientPacket::Ack(u16::from_be_bytes(*block))),
            None => Err(cut),
        },
        5 => match body.split_first_chunk::<2>() {
            Some((code, text)) => {
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                Ok(ClientPacket::Error { code: u16::from_be_bytes(*code), message: plain(text) })
            }
            None => Err(cut),
        },
        other => Err(DecodeError::Opcode(other)),
    }
}

fn read_request(body: &[u8]) -> Result<ReadRequest, DecodeError> {
    let (name, rest) = text(body).ok_or(DecodeError::Unterminated("file name"))?;
    if name.is_empty() || name.len() > 255 {
        return Err(DecodeError::Name(name.len()));
    }
    let (mode, mut rest) = text(rest).ok_or(DecodeError::Unterminated("mode"))?;
    if !mode.eq_ignore_ascii_case(b"octet") {
        return Err(DecodeError::Mode(plain(mode)));
    }
    let mut options = Asked::default();
    // Some ROMs pad the packet with NULs behind the last option.
    while !rest.iter().all(|&byte| byte == 0) {
        let (key, tail) = text(rest).ok_or(DecodeError::Unterminated("option name"))?;
        let (value, tail) = text(tail).ok_or_else(|| DecodeError::NoValue(plain(key)))?;
        rest = tail;
        let number = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok());
        if key.eq_ignore_ascii_case(b"blksize") {
            options.blksize = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 8);
            options.blksize = options.blksize.map(|n| n.min(65464));
        } else if key.eq_ignore_ascii_case(b"tsize") {
            options.tsize = number.is_some();
        } else if key.eq_ignore_ascii_case(b"timeout") {
            options.timeout = number.and_then(|n| u8::try_from(n).ok()).filter(|n| *n >= 1);
        } else if key.eq_ignore_ascii_case(b"windowsize") {
            options.windowsize = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 1);
        }
    }
    Ok(ReadRequest { name: name.to_vec(), options })
}

/// A NUL-terminated text and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn plain(bytes: &[u8]) -> String {
    let short = bytes.get(..120).unwrap_or(bytes);
    let clean = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(short).chars().map(clean).collect()
}

/// A file name as ROMs write it, made comparable: leading `/` and `\` gone, `\` and runs of `/` as
/// one `/`, trailing 0xff and NUL gone. `None` when it is not ASCII text.
#[must_use]
pub fn normal_name(raw: &[u8]) -> Option<String> {
    let end = raw.iter().rposition(|&byte| byte != 0xff && byte != 0)? + 1;
    let text = std::str::from_utf8(raw.get(..end)?).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let parts: Vec<&str> = text.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    Some(parts.join("/"))
}

/// A DATA packet.
#[must_use]
pub fn data(block: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    out.extend_from_slice(&3_u16.to_be_bytes());
    out.extend_from_slice(&block.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// An OACK packet with these options in order.
#[must_use]
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = 6_u16.to_be_bytes().to_vec();
    for (name, value) in options {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(0);
    }
    out
}

/// Error codes of RFC 1350 that this server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 1350")]
pub enum ErrorCode {
    Undefined = 0,
    FileNotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
}

/// An ERROR packet.
#[must_use]
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut out = 5_u16.to_be_bytes().to_vec();
    out.extend_from_slice(&(code as u16).to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out.push(0);
    out
}

#[cfg(test)]
mod tests;

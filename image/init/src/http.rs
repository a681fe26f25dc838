//! What stage 1 needs of HTTP/1.1 (RFC 9112): one GET, an answer of known length. Everything else is refused.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Longest head of an answer.
pub const LONGEST_HEAD: usize = 8192;

/// Folder of a site that boot files are fetched from: `http://10.9.0.1/b/…/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The server.
    pub server: SocketAddrV4,
    /// Path with a slash at both ends.
    path: String,
}

/// Not the URL of a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not `http://ADDRESS[:PORT]/FOLDER/` with an IPv4 address")]
pub struct BadBase(String);

impl Base {
    /// Reads the URL. There is no DNS here: the host must be an address.
    ///
    /// # Errors
    /// [`BadBase`].
    pub fn parse(text: &str) -> Result<Self, BadBase> {
        let bad = || BadBase(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(bad)?;
        let (host, path) =
            rest.find('/').and_then(|at| rest.split_at_checked(at)).ok_or_else(bad)?;
        let good = |c: u8| c.is_ascii_alphanumeric() || b"/-_.~".contains(&c);
        if !path.ends_with('/') || !path.bytes().all(good) {
            return Err(bad());
        }
        let server = match host.parse::<Ipv4Addr>() {
            Ok(address) => SocketAddrV4::new(address, 80),
            Err(_) => host.parse().map_err(|_| bad())?,
        };
        Ok(Self { server, path: path.to_owned() })
    }

    /// The request for a file of the folder.
    #[must_use]
    pub fn request(&self, name: &str) -> String {
        format!(
            "GET {}{name} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bulkhead-stage1\r\nConnection: close\r\n\r\n",
            self.path, self.server
        )
    }
}

/// Head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
}

/// An answer that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No HTTP/1 status line.
    #[error("answer is not HTTP/1")]
    StatusLine,
    /// No or several `Content-Length`.
    #[error("answer has no single Content-Length")]
    Length,
    /// A header line without its colon, or text that is none.
    #[error("answer has a malformed header")]
    Header,
    /// A body in pieces or packed.
    #[error("answer has {0}")]
    Encoding(String),
    /// Longer than [`LONGEST_HEAD`].
    #[error("head of the answer is longer than {LONGEST_HEAD} bytes")]
    TooLong,
}

/// Length of the head with its empty line, once it is whole.
#[must_use]
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head as [`head_length`] cuts it.
///
/// # Errors
/// [`HeadError`].
pub fn parse_head(bytes: &[u8]) -> Result<Head, HeadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeadError::Header)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let code = words.next().filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
    let Some(status) = code.filter(|_| matches!(version, "HTTP/1.1" | "HTTP/1.0")) else {
        return Err(HeadError::StatusLine);
    };
    let mut length = None;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(HeadError::Header)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_some() => return Err(HeadError::Length),
            // digits only: `parse` alone would take a sign
            "content-length" if value.bytes().all(|c| c.is_ascii_digit()) => {
                length = Some(value.parse().map_err(|_| HeadError::Length)?);
            }
            "content-length" => return Err(HeadError::Length),
            "transfer-encoding" | "content-encoding" if value != "identity" => {
                return Err(HeadError::Encoding(format!("{name}: {value}")));
            }
            _ => {}
        }
    }
    Ok(Head { status, length: length.ok_or(HeadError::Length)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_base_is_a_folder_at_an_address() {
        let base = Base::parse("http://10.9.0.1/b/00ff/").unwrap();
        assert_eq!(base.server, "10.9.0.1:80".parse().unwrap());
        assert!(
            base.request("boot.json")
                .starts_with("GET /b/00ff/boot.json HTTP/1.1\r\nHost: 10.9.0.1:80\r\n")
        );
        assert_eq!(Base::parse("http://10.9.0.1:8080/").unwrap().server.port(), 8080);
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "http://",
            "https://10.9.0.1/b/",
            "http://site/b/",
            "http://10.9.0.1",
            "http://10.9.0.1/b",
            "http://10.9.0.1/b /",
            "http://10.9.0.1/b\r\nX: y/",
            "http://[::1]/b/",
            "http://u@10.9.0.1/b/",
            "http://10.9.0.1/b/?x/",
            "http://10.9.0.1:99999/",
        ] {
            assert!(Base::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_plain_answer_is_read() {
        let text = b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\ncontent-length:  12 \r\n\r\nhello";
        let length = head_length(text).unwrap();
        assert_eq!(parse_head(&text[..length]), Ok(Head { status: 200, length: 12 }));
        assert_eq!(head_length(b"HTTP/1.1 200 OK\r\n"), None);
        let redirect =
            parse_head(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(redirect.unwrap().status, 302);
    }

    #[test]
    fn answers_of_unclear_length_are_refused() {
        let head =
            |headers: &str| parse_head(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes());
        assert_eq!(head(""), Err(HeadError::Length));
        assert_eq!(head("Content-Length: 1\r\nContent-Length: 1\r\n"), Err(HeadError::Length));
        assert_eq!(head("Content-Length: +1\r\n"), Err(HeadError::Length));
        assert_eq!(head("Content-Length: 99999999999999999999\r\n"), Err(HeadError::Length));
        assert_eq!(head("Content-Length: 1\r\nnothing\r\n"), Err(HeadError::Header));
        let chunked = head("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n");
        assert_eq!(chunked, Err(HeadError::Encoding("Transfer-Encoding: chunked".into())));
        assert_eq!(
            parse_head(b"HTTP/2 200\r\nContent-Length: 1\r\n\r\n"),
            Err(HeadError::StatusLine)
        );
        assert_eq!(parse_head(b"SSH-2.0\r\n\r\n"), Err(HeadError::StatusLine));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = head_length(&bytes);
            let _ = parse_head(&bytes);
        }

        #[test]
        fn any_headers_are_read_or_refused(headers in "(HTTP/1.1 200 OK\r\n)?([a-zA-Z-]{1,20}:? ?[ -~]{0,20}\r\n){0,5}\r\n") {
            let _ = parse_head(headers.as_bytes());
        }

        #[test]
        fn any_text_as_a_base_makes_one_line_of_request(text in "http://10.9.0.1/[ -~\r\n]{0,20}/") {
            if let Ok(base) = Base::parse(&text) {
                prop_assert_eq!(base.request("x").lines().next().unwrap().split(' ').count(), 3);
            }
        }
    }
}

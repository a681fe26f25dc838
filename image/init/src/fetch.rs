//! One GET, with limits on everything: connection, silence, duration, length.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::{self, Base, Head, HeadError, LONGEST_HEAD};

const CONNECT: Duration = Duration::from_secs(5);
/// A server that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// Slower than this, bytes a second, a transfer is given up.
const SLOWEST: u64 = 100_000;
/// Added to what the slowest transfer may take.
const GRACE: Duration = Duration::from_secs(20);
/// Of a refusal's text, what is shown.
const REASON: u64 = 300;

/// A file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The connection broke or fell silent.
    #[error("fetch {0}")]
    Broken(String, #[source] io::Error),
    /// An answer that is none.
    #[error("fetch {0}")]
    Head(String, #[source] HeadError),
    /// The server has a reason not to serve it; a redirect counts as one.
    #[error("fetch {name}: the site answers {status}: {reason}")]
    Refused {
        /// The file.
        name: String,
        /// HTTP status.
        status: u16,
        /// First line of the answer.
        reason: String,
    },
    /// Longer or shorter than it must be.
    #[error("fetch {name}: the site has {found} bytes of it, {expected}")]
    Length {
        /// The file.
        name: String,
        /// Bytes announced.
        found: u64,
        /// What was expected.
        expected: String,
    },
    /// The connection ended early.
    #[error("fetch {name}: the connection ended {missing} bytes before its end")]
    Short {
        /// The file.
        name: String,
        /// Bytes that did not come.
        missing: u64,
    },
    /// Too slow.
    #[error("fetch {name}: only {received} bytes in {seconds} s")]
    TooSlow {
        /// The file.
        name: String,
        /// Bytes that came.
        received: u64,
        /// In this time.
        seconds: u64,
    },
}

impl FetchError {
    /// Whether the site itself said no: another try under the same ticket is useless.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status: 300..500, .. })
    }
}

/// How long a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Exactly so many bytes.
    Exactly(u64),
    /// At most so many bytes.
    AtMost(u64),
}

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    name: String,
    stream: TcpStream,
    /// What came with the head.
    early: Vec<u8>,
    length: u64,
    received: u64,
    start: Instant,
}

/// Asks for the file `name` of `base`.
///
/// # Errors
/// [`FetchError`].
pub fn open(base: &Base, name: &str, bound: Bound) -> Result<Body, FetchError> {
    let broken = |source| FetchError::Broken(name.to_owned(), source);
    let server = SocketAddr::V4(base.server);
    let mut stream = TcpStream::connect_timeout(&server, CONNECT)
        .map_err(|source| FetchError::Connect(server, source))?;
    stream.set_read_timeout(Some(SILENCE)).map_err(broken)?;
    stream.set_write_timeout(Some(SILENCE)).map_err(broken)?;
    stream.write_all(base.request(name).as_bytes()).map_err(broken)?;
    let (head, early) = read_head(name, &mut stream)?;
    let mut body = Body {
        name: name.to_owned(),
        stream,
        early,
        length: head.length,
        received: 0,
        start: Instant::now(),
    };
    if head.status != 200 {
        body.length = body.length.min(REASON);
        return Err(FetchError::Refused {
            name: name.to_owned(),
            status: head.status,
            reason: body.reason(),
        });
    }
    let expected = match bound {
        Bound::Exactly(length) => {
            (head.length != length).then(|| format!("the image has {length}"))
        }
        Bound::AtMost(length) => {
            (head.length > length).then(|| format!("at most {length} are taken"))
        }
    };
    match expected {
        None => Ok(body),
        Some(expected) => {
            Err(FetchError::Length { name: name.to_owned(), found: head.length, expected })
        }
    }
}

fn read_head(name: &str, stream: &mut TcpStream) -> Result<(Head, Vec<u8>), FetchError> {
    let head = |error| FetchError::Head(name.to_owned(), error);
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        if let Some(length) = http::head_length(&bytes) {
            let early = bytes.split_off(length);
            return Ok((http::parse_head(&bytes).map_err(head)?, early));
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(head(HeadError::TooLong));
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(head(HeadError::StatusLine)),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(FetchError::Broken(name.to_owned(), source)),
        }
    }
}

impl Body {
    /// Bytes announced.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` as far as the body goes; 0 at its end.
    ///
    /// # Errors
    /// The connection broke, ended early, or is too slow.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, FetchError> {
        let mut filled = 0;
        while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.read_some(space)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, space: &mut [u8]) -> Result<usize, FetchError> {
        let left = self.length - self.received;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
        let Some(space) = space.get_mut(..most).filter(|space| !space.is_empty()) else {
            return Ok(0);
        };
        let slowest = GRACE + Duration::from_secs(self.length / SLOWEST);
        if self.start.elapsed() > slowest {
            let (received, seconds) = (self.received, slowest.as_secs());
            return Err(FetchError::TooSlow { name: self.name.clone(), received, seconds });
        }
        let count = if self.early.is_empty() {
            loop {
                match self.stream.read(space) {
                    Ok(0) => {
                        return Err(FetchError::Short { name: self.name.clone(), missing: left });
                    }
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(FetchError::Broken(self.name.clone(), source)),
                }
            }
        } else {
            let count = self.early.len().min(space.len());
            for (to, from) in space.iter_mut().zip(self.early.drain(..count)) {
                *to = from;
            }
            count
        };
        self.received += count as u64;
        Ok(count)
    }

    /// The whole body, which [`open`] bounded.
    ///
    /// # Errors
    /// As [`Body::fill`].
    pub fn whole(&mut self) -> Result<Vec<u8>, FetchError> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        let count = self.fill(&mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// First line of a refusal, printable.
    fn reason(&mut self) -> String {
        // the refusal itself is what counts: a text that breaks off is shown as far as it came
        let text = self.whole().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .next()
            .unwrap_or("no reason given")
            .chars()
            .filter(|c| !c.is_control())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// Answers one request with `answer`; the thread's result is the request.
    fn served(answer: &'static [u8]) -> (Base, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = Base::parse(&format!("http://{}/b/t/", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while http::head_length(&request).is_none() {
                let mut buffer = [0; 100];
                let count = stream.read(&mut buffer).unwrap();
                request.extend(&buffer[..count]);
            }
            // in two parts, so that head and body are cut anywhere
            let (one, two) = answer.split_at(answer.len() / 2);
            stream.write_all(one).unwrap();
            stream.flush().unwrap();
            stream.write_all(two).unwrap();
            String::from_utf8(request).unwrap()
        });
        (base, server)
    }

    fn get(answer: &'static [u8], bound: Bound) -> Result<Vec<u8>, FetchError> {
        let (base, server) = served(answer);
        let result = open(&base, "x", bound).and_then(|mut body| body.whole());
        assert!(server.join().unwrap().starts_with("GET /b/t/x HTTP/1.1\r\n"));
        result
    }

    #[test]
    fn a_body_of_the_announced_length_is_fetched() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(get(answer, Bound::Exactly(5)).unwrap(), b"hello");
        assert_eq!(
            get(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Bound::AtMost(9)).unwrap(),
            b""
        );
    }

    #[test]
    fn bytes_behind_the_announced_length_are_not_taken() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more";
        assert_eq!(get(answer, Bound::Exactly(5)).unwrap(), b"hello");
    }

    #[test]
    fn other_lengths_and_early_ends_are_refused() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert!(matches!(get(answer, Bound::Exactly(6)), Err(FetchError::Length { found: 5, .. })));
        assert!(matches!(get(answer, Bound::AtMost(4)), Err(FetchError::Length { found: 5, .. })));
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
        assert!(matches!(
            get(short, Bound::Exactly(50)),
            Err(FetchError::Short { missing: 45, .. })
        ));
        assert!(matches!(get(b"HTTP/1.1 200 OK\r\n", Bound::AtMost(1)), Err(FetchError::Head(..))));
    }

    #[test]
    fn refusals_and_redirects_tell_the_reason() {
        let error = get(
            b"HTTP/1.1 410 Gone\r\nContent-Length: 24\r\n\r\nticket expired 3 s\x1b ago\n",
            Bound::AtMost(9),
        );
        let error = error.unwrap_err();
        assert!(error.is_refusal());
        assert_eq!(error.to_string(), "fetch x: the site answers 410: ticket expired 3 s ago");
        let redirect = get(
            b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
            Bound::AtMost(9),
        );
        assert!(redirect.unwrap_err().is_refusal());
        let busy =
            get(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", Bound::AtMost(9));
        assert!(!busy.unwrap_err().is_refusal());
    }
}

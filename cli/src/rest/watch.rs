//! A watch: one event a line, blank lines in between to show that the registry lives.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use bulkhead_api::document::{FieldError, WatchEvent, from_json};

use super::error::RestError;

/// The longest line that is read: a host with all its hardware is a hundredth of it.
const MAX_LINE: u64 = 64 << 20;

/// Events as they come. Ends when the registry ends the watch.
pub struct Watch {
    server: String,
    lines: BufReader<Box<dyn Read>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Watch {
    /// Reads events of a registry from a stream.
    #[must_use]
    pub fn new(server: String, stream: Box<dyn Read>) -> Self {
        Self { server, lines: BufReader::new(stream) }
    }

    fn bad(&self, message: String) -> RestError {
        let source = FieldError { path: ".".to_owned(), message };
        RestError::Reply { server: self.server.clone(), source }
    }
}

impl Iterator for Watch {
    type Item = Result<WatchEvent, RestError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            let limited = &mut (&mut self.lines).take(MAX_LINE);
            if let Err(error) = limited.read_until(b'\n', &mut line) {
                return Some(Err(RestError::transport(&self.server, ureq::Error::from(error))));
            }
            match (line.is_empty(), line.ends_with(b"\n")) {
                (true, _) => return None,
                (false, false) => {
                    let message = format!("an event broke off after {} bytes", line.len());
                    return Some(Err(self.bad(message)));
                }
                (false, true) if line.iter().all(u8::is_ascii_whitespace) => {}
                (false, true) => {
                    let event = from_json(&line);
                    let server = || self.server.clone();
                    return Some(
                        event.map_err(|source| RestError::Reply { server: server(), source }),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_api::document::WatchKind;
    use proptest::prelude::*;

    use super::Watch;

    fn read(bytes: &[u8]) -> Vec<Result<WatchKind, String>> {
        let watch =
            Watch::new("https://r".to_owned(), Box::new(std::io::Cursor::new(bytes.to_vec())));
        // An error of the stream does not repeat here, yet a fault of a line must not end the test.
        watch.take(1000).map(|e| e.map(|e| e.kind).map_err(|e| e.to_string())).collect()
    }

    const TENANT: &str = r#"{"type":"CHANGED","object":{"kind":"Tenant","apiVersion":"bulkhead.io/v1","metadata":{"name":"a"},"spec":{}}}"#;

    #[test]
    fn blank_lines_between_events_are_skipped() {
        let text = format!("\n{TENANT}\n\n\r\n{TENANT}\n\n");
        assert_eq!(read(text.as_bytes()), [Ok(WatchKind::Changed), Ok(WatchKind::Changed)]);
    }

    #[test]
    fn an_event_that_breaks_off_is_an_error() {
        let events = read(&TENANT.as_bytes()[..40]);
        assert_eq!(events, [Err("reply of registry https://r".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read(&bytes);
        }
    }
}

//! HTTP/1.1 request heads and byte ranges, as much as boot firmware needs (RFC 9110, RFC 9112).

/// Longest request head that is read.
pub const LONGEST_HEAD: usize = 8192;

/// Methods served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 9110")]
pub enum Method {
    Get,
    Head,
}

/// A request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// GET or HEAD.
    pub method: Method,
    /// Path without query.
    pub path: String,
    /// Value of `Range`.
    pub range: Option<String>,
    /// Value of `If-Match`.
    pub if_match: Option<String>,
    /// Value of `If-None-Match`.
    pub if_none_match: Option<String>,
    /// Value of `If-Range`.
    pub if_range: Option<String>,
    /// `If-Unmodified-Since` is there.
    pub if_unmodified_since: bool,
    /// The client will send another request on this connection.
    pub keep_alive: bool,
}

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not `METHOD target HTTP/1.x` and header lines.
    #[error("{0}")]
    Malformed(&'static str),
    /// Anything but GET and HEAD.
    #[error("method {0:?}: only GET and HEAD are served")]
    Method(String),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("version {0:?}: expected HTTP/1.1")]
    Version(String),
    /// A request with a body.
    #[error("a request body is not expected")]
    Body,
}

/// Length of the head in `bytes` including its empty line; `None` when it has not all arrived.
#[must_use]
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Parses a complete head (see [`head_length`]).
///
/// # Errors
/// See [`HeadError`].
pub fn parse_head(bytes: &[u8]) -> Result<Head, HeadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeadError::Malformed("head is not UTF-8"))?;
    let text =
        text.strip_suffix("\r\n\r\n").ok_or(HeadError::Malformed("head without an empty line"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::Malformed("request line is not three words"));
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        other => return Err(HeadError::Method(other.chars().take(20).collect())),
    };
    let mut keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other => return Err(HeadError::Version(other.chars().take(20).collect())),
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // The absolute form, which proxies and some firmware send (RFC 9112, 3.2.2).
    let path = match path.strip_prefix("http://") {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => path,
    };
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::Malformed("request target is not a path"));
    }
    let mut head = Head {
        method,
        path: path.to_owned(),
        range: None,
        if_match: None,
        if_none_match: None,
        if_range: None,
        if_unmodified_since: false,
        keep_alive: false,
    };
    for line in lines {
        let (name, value) =
            line.split_once(':').ok_or(HeadError::Malformed("header line without a colon"))?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(HeadError::Malformed("space in a header name"));
        }
        let value = value.trim_matches([' ', '\t']);
        let some = || Some(value.to_owned());
        match name.to_ascii_lowercase().as_str() {
            "range" => head.range = some(),
            "if-match" => head.if_match = some(),
            "if-none-match" => head.if_none_match = some(),
            "if-range" => head.if_range = some(),
            "if-unmodified-since" => head.if_unmodified_since = true,
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => keep_alive = true,
            "transfer-encoding" => return Err(HeadError::Body),
            "content-length" if value != "0" => return Err(HeadError::Body),
            _ => {}
        }
    }
    head.keep_alive = keep_alive;
    Ok(head)
}

/// How a representation of `size` bytes with a strong entity tag is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200, everything.
    Whole,
    /// 206, these bytes: first and count.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// How many bytes, at least 1.
        count: u64,
    },
    /// 304.
    NotModified,
    /// 412: the client resumes something that is no longer here.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Applies the conditions and the range of `head` (RFC 9110, 13.2.2 and 14.2).
#[must_use]
pub fn answer(head: &Head, etag: &str, size: u64) -> Answer {
    let listed = |list: &str| list == "*" || list.split(',').any(|tag| tag.trim() == etag);
    if head.if_match.as_deref().is_some_and(|list| !listed(list)) {
        return Answer::PreconditionFailed;
    }
    // We give no Last-Modified, so a date can only be a guess of the client's.
    if head.if_match.is_none() && head.if_unmodified_since {
        return Answer::PreconditionFailed;
    }
    let weak = |list: &str| list == "*" || list.split(',').any(|tag| weakly_equal(tag, etag));
    if head.if_none_match.as_deref().is_some_and(weak) {
        return Answer::NotModified;
    }
    if head.if_range.as_deref().is_some_and(|tag| tag != etag) {
        return Answer::Whole;
    }
    let Some(range) = head.range.as_deref() else { return Answer::Whole };
    match byte_range(range, size) {
        // A range we cannot read is ignored (RFC 9110, 14.2).
        None => Answer::Whole,
        Some((_, 0)) => Answer::Unsatisfiable,
        Some((first, count)) => Answer::Part { first, count },
    }
}

fn weakly_equal(tag: &str, etag: &str) -> bool {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag) == etag
}

/// First byte and count of a single `bytes=` range; count 0 when nothing of it exists; `None` for
/// another unit, several ranges or nonsense.
fn byte_range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    if first.is_empty() {
        let tail = number(last)?.min(size);
        return Some((size - tail, tail));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= size {
        return Some((first, 0));
    }
    Some((first, last.min(size - 1) - first + 1))
}

#[cfg(test)]
mod tests;

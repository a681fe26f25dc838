//! Points in time on the wire: RFC 3339 text in UTC.

pub use jiff::Timestamp;

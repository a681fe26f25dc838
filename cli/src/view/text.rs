//! Small texts: ages, amounts, reasons; and documents as YAML or JSON.

use bulkhead_api::condition::{Condition, Truth};
use bulkhead_api::document::{ApiVersion, Document, Host, Kind, Lease, Site, Tenant};
use bulkhead_api::time::Timestamp;
use bulkhead_api::units::Bytes;
use serde::Serialize;

/// Time since `then` in one or two units: `5s`, `3m20s`, `7h5m`, `12d`. A time to come is `0s`.
#[must_use]
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..7200 => format!("{minutes}m"),
        7200..172_800 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d"),
    }
}

/// [`age`] of a time that may never have been; empty if so.
#[must_use]
pub fn age_of(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map(|then| age(now, then)).unwrap_or_default()
}

/// An amount rounded down to three digits at least: `1.9Gi`, `512Mi`. For reading only; see `-o yaml`.
#[must_use]
pub fn rounded(bytes: Bytes) -> String {
    let bytes = bytes.get();
    let unit = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)]
        .into_iter()
        .find(|(_, shift)| bytes >> shift > 0);
    let Some((unit, shift)) = unit else { return bytes.to_string() };
    let (whole, rest) = (bytes >> shift, bytes & ((1 << shift) - 1));
    // One digit after the point, of numbers with one digit before it.
    let tenth = (u128::from(rest) * 10) >> shift;
    if whole < 10 && tenth > 0 {
        format!("{whole}.{tenth}{unit}")
    } else {
        format!("{whole}{unit}")
    }
}

/// A set of CPU numbers as Linux writes it: `0-3,8`.
#[must_use]
pub fn cpu_list<'a>(cpus: impl IntoIterator<Item = &'a u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(cpu) => *end = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts = ranges
        .iter()
        .map(|&(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    texts.collect::<Vec<_>>().join(",")
}

/// The first condition that does not hold, as `Reason: message`; empty where all hold.
#[must_use]
pub fn trouble(conditions: &[Condition]) -> String {
    let bad = conditions.iter().find(|c| c.status == Truth::False);
    let bad = bad.or_else(|| conditions.iter().find(|c| c.status == Truth::Unknown));
    match bad {
        Some(c) if c.message.is_empty() => c.reason.clone(),
        Some(c) => format!("{}: {}", c.reason, c.message),
        None => String::new(),
    }
}

/// A document in the order in which people write one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a, M, S, T> {
    api_version: ApiVersion,
    kind: Kind,
    metadata: &'a M,
    spec: &'a S,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a T>,
}

/// A document as YAML, which `apply` reads back.
///
/// # Errors
/// None that a document can cause.
pub fn yaml(document: &Document) -> Result<String, serde_saphyr::SerializeError> {
    let api_version = ApiVersion::V1;
    match document {
        Document::Site(Site { metadata, spec, status, .. }) => {
            let status = status.as_ref();
            serde_saphyr::to_string(&Page { api_version, kind: Kind::Site, metadata, spec, status })
        }
        Document::Host(Host { metadata, spec, status, .. }) => {
            let status = Some(status);
            serde_saphyr::to_string(&Page { api_version, kind: Kind::Host, metadata, spec, status })
        }
        Document::Tenant(Tenant { metadata, spec, .. }) => {
            let kind = Kind::Tenant;
            let status = None::<&()>;
            serde_saphyr::to_string(&Page { api_version, kind, metadata, spec, status })
        }
        Document::Lease(Lease { metadata, spec, status, .. }) => {
            let kind = Kind::Lease;
            let status = status.as_ref();
            serde_saphyr::to_string(&Page { api_version, kind, metadata, spec, status })
        }
    }
}

//! Receipts as a table: what was sanitised, whose it was, how.

use bulkhead_api::receipt::Receipt;
use bulkhead_api::time::Timestamp;

use super::table::Table;
use super::text::age;

/// The table of receipts whose signatures were not checked, oldest first.
#[must_use]
pub fn table(receipts: &[Receipt], now: Timestamp) -> Table {
    let rows = receipts.iter().map(|receipt| {
        let weaker = if receipt.weaker.is_some() { " (weaker)" } else { "" };
        vec![
            receipt.sequence.to_string(),
            receipt.lease.to_string(),
            receipt.resource.to_string(),
            format!("{}{weaker}", receipt.methods.join(",")),
            receipt.evidence.len().to_string(),
            age(now, receipt.finished),
        ]
    });
    let header = vec!["RECEIPT", "LEASE", "RESOURCE", "METHODS", "EVIDENCE", "AGE"];
    Table { header, rows: rows.collect() }
}

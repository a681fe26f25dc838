//! A host's ledger and its quarantine as tables.

use std::fmt::Write as _;

use bulkhead_api::local::{Ledger, ReceiptsRepair, Repair};
use bulkhead_api::resource::Quarantined;
use bulkhead_api::time::Timestamp;

use super::describe::Page;
use super::table::Table;
use super::text::age;
use crate::console::visible;

/// Who holds what, and what nobody gets.
#[must_use]
pub fn page(ledger: &Ledger, now: Timestamp) -> String {
    let mut page = Page::default();
    tables(&mut page, ledger, now);
    // The first table needs no line between it and nothing.
    page.finish().trim_start_matches('\n').to_owned()
}

/// What a repair did, or would do.
#[must_use]
pub fn repair(repair: &Repair, now: Timestamp) -> String {
    let mut page = Page::default();
    page.field("Problem", &repair.problem);
    let kept = repair.kept.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    page.field("Kept as", kept);
    let done = if repair.applied { "was rebuilt" } else { "would be rebuilt" };
    page.field("Ledger", format!("{done} from what is found on the host"));
    tables(&mut page, &repair.ledger, now);
    let mut out = page.finish();
    let (leases, kept) = (repair.ledger.entries.len(), repair.ledger.quarantine.len());
    writeln!(
        out,
        "\nLeases {} taken back ({leases}), erased, and granted anew where the registry still wants them; \
         resources in quarantine ({kept}) are given to nobody until they have a receipt.",
        if repair.applied { "are" } else { "would be" }
    )
    .unwrap_or_default();
    out
}

/// What a repair of the receipts did, or would do.
#[must_use]
pub fn receipts(repair: &ReceiptsRepair) -> String {
    let mut page = Page::default();
    page.field("Problem", &repair.problem);
    let kept = repair.kept.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    page.field("Kept as", kept);
    let (put, begins) = match repair.applied {
        true => ("was put aside", "begins"),
        false => ("would be put aside", "would begin"),
    };
    let files = repair.receipts;
    page.field("Receipts", format!("the chain of {files} {put}, a new one {begins}"));
    page.finish()
}

fn tables(page: &mut Page, ledger: &Ledger, now: Timestamp) {
    let rows = ledger.entries.iter().flat_map(|entry| {
        let state = if entry.releasing { "releasing" } else { "held" };
        entry.resources.iter().map(move |held| {
            let clean = if held.clean { "clean" } else { state };
            vec![entry.id.to_string(), clean.to_owned(), held.resource.to_string()]
        })
    });
    let header = vec!["LEASE", "STATE", "RESOURCE"];
    page.table("Leases", &Table { header, rows: rows.collect() });
    page.table("Quarantine", &quarantine(&ledger.quarantine, now));
}

/// What nobody gets.
#[must_use]
pub fn quarantine(kept: &[Quarantined], now: Timestamp) -> Table {
    let rows = kept.iter().map(|kept| {
        let reason = visible(&kept.reason);
        vec![kept.resource.to_string(), kept.lease.to_string(), age(now, kept.since), reason]
    });
    Table { header: vec!["RESOURCE", "LAST HAD BY", "FOR", "REASON"], rows: rows.collect() }
}

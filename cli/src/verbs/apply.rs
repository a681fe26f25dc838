//! `apply`: creates or changes what files describe.

use bulkhead_api::document::{ApiError, Document, Kind};

use super::error::VerbError;
use super::target::Target;
use crate::console::Console;
use crate::manifest::Manifest;
use crate::manifest::fault::Fault;
use crate::rest::Registry;
use crate::rest::error::{RestError, shortages};

/// Puts the documents, sites and tenants before the leases that need them. A refusal of one does not
/// keep back the others; anything else ends it.
pub(super) fn apply(
    registry: &Registry,
    mut manifests: Vec<Manifest>,
    console: &mut Console,
) -> Result<(), VerbError> {
    if let Some(host) = manifests.iter().find(|m| matches!(m.document, Document::Host(_))) {
        let mut fault = host.fault("kind", "hosts are written by the system only".to_owned());
        fault.help = "machines become hosts by booting at a site that admits them: \
                      bulkhead explain site.spec.admission"
            .to_owned();
        return Err(fault.into());
    }
    manifests.sort_by_key(|manifest| order(Target::of(&manifest.document).kind()));
    let (total, mut failed) = (manifests.len(), 0);
    for manifest in &manifests {
        match put(registry, &manifest.document) {
            Ok(change) => {
                let target = Target::of(&manifest.document);
                console.print(format_args!("{target} {change}\n"))?;
            }
            Err(RestError::Refused(refusal)) => {
                let fault = refused(manifest, &refusal);
                if total == 1 {
                    return Err(fault.into());
                }
                console.error(fault.as_ref(), None);
                failed += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed > 0 { Err(VerbError::Some { failed, total }) } else { Ok(()) }
}

fn order(kind: Kind) -> u8 {
    match kind {
        Kind::Site => 0,
        Kind::Tenant => 1,
        Kind::Host | Kind::Lease => 2,
    }
}

/// Puts a document and says what that did. The reply is alike for changed and unchanged, so that what was
/// there before is looked at first; who writes between the two looks is told as a change.
fn put(registry: &Registry, document: &Document) -> Result<&'static str, RestError> {
    let before = registry.find(&Target::of(document))?;
    let written = registry.put(document)?;
    let same = before.is_some_and(|before| same_wish(&before, &written.document));
    Ok(match (written.created, same) {
        (true, _) => "created",
        (false, true) => "unchanged",
        (false, false) => "changed",
    })
}

fn same_wish(a: &Document, b: &Document) -> bool {
    match (a, b) {
        (Document::Site(a), Document::Site(b)) => a.spec == b.spec,
        (Document::Tenant(a), Document::Tenant(b)) => a.spec == b.spec,
        (Document::Lease(a), Document::Lease(b)) => a.spec == b.spec && a.metadata == b.metadata,
        _ => false,
    }
}

/// A refusal as a fault of the file: at the field that the registry names, else at the document.
pub(super) fn refused(manifest: &Manifest, refusal: &ApiError) -> Box<Fault> {
    let field = refusal.field.as_deref().unwrap_or_default();
    let target = Target::of(&manifest.document);
    let message = if field.is_empty() {
        format!("{target}: {}", refusal.message)
    } else {
        refusal.message.clone()
    };
    let mut fault = manifest.fault(field, message);
    fault.detail = shortages(refusal);
    fault
}

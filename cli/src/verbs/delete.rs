//! `delete`: one object, or what files describe.

use std::time::Duration;

use bulkhead_api::document::Kind;

use super::error::VerbError;
use super::manifests;
use super::target::Target;
use super::wait::await_goal;
use crate::args::{DeleteArgs, Goal};
use crate::console::Console;
use crate::rest::Registry;
use crate::rest::error::RestError;

/// What to delete, leases before the tenants and sites that they need.
pub(super) fn targets(args: &DeleteArgs, console: &mut Console) -> Result<Vec<Target>, VerbError> {
    if let (Some(kind), Some(name)) = (args.kind, &args.name) {
        return Ok(vec![Target::parse(kind, name, args.tenant.as_deref())?]);
    }
    let manifests = manifests::read(&args.files, console)?;
    let mut targets: Vec<Target> = manifests.iter().map(|m| Target::of(&m.document)).collect();
    targets.sort_by_key(|target| target.kind() != Kind::Lease);
    Ok(targets)
}

/// Deletes them. What a file describes and is not there is told, and no error: that is what was wanted.
pub(super) fn delete(
    registry: &Registry,
    targets: &[Target],
    args: &DeleteArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let (total, mut failed, mut releasing) = (targets.len(), 0, Vec::new());
    for target in targets {
        // A tenant can go when its leases are gone.
        if target.kind() != Kind::Lease {
            gone(registry, &mut releasing, args.timeout, console)?;
        }
        match registry.delete(target) {
            Ok(()) if target.kind() == Kind::Lease => {
                console.print(format_args!("{target} releasing\n"))?;
                if args.wait {
                    releasing.push(target.clone());
                }
            }
            Ok(()) => console.print(format_args!("{target} deleted\n"))?,
            Err(error) if error.is_not_found() && !args.files.is_empty() => {
                console.print(format_args!("{target} not there\n"))?;
            }
            Err(error @ RestError::Refused(_)) if total > 1 => {
                console.complain(format_args!("{target}:\n"));
                console.error(&error, None);
                failed += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    gone(registry, &mut releasing, args.timeout, console)?;
    if failed > 0 { Err(VerbError::Some { failed, total }) } else { Ok(()) }
}

/// Waits until leases are observed gone.
fn gone(
    registry: &Registry,
    leases: &mut Vec<Target>,
    timeout: Duration,
    console: &mut Console,
) -> Result<(), VerbError> {
    for lease in leases.drain(..) {
        await_goal(registry, &lease, Goal::Gone, timeout, console)?;
    }
    Ok(())
}

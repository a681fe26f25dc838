//! `describe`: all that is known of one object.

use bulkhead_api::document::{Document, Kind};

use super::error::VerbError;
use super::target::Target;
use crate::args::ObjectArgs;
use crate::console::Console;
use crate::rest::Registry;
use crate::view::describe::page;

pub(super) fn describe(
    registry: &Registry,
    args: &ObjectArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let target = Target::parse(args.kind, &args.name, args.tenant.as_deref())?;
    let document = registry.get(&target)?;
    let related = match &target {
        Target::Site(site) => {
            let mut hosts = registry.list(Kind::Host, None)?;
            hosts.retain(|host| matches!(host, Document::Host(h) if h.metadata.site == *site));
            hosts
        }
        Target::Tenant(tenant) => registry.list(Kind::Lease, Some(tenant))?,
        Target::Host(_) | Target::Lease(_) => Vec::new(),
    };
    let text = page(&document, &related, console.now());
    Ok(console.print(format_args!("{text}"))?)
}

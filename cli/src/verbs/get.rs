//! `get`: tables, YAML, JSON.

use bulkhead_api::document::{Document, Kind};
use bulkhead_api::id::TenantName;

use super::error::VerbError;
use super::target::{NoTarget, Target, lease};
use super::watch;
use crate::args::{Format, GetArgs};
use crate::console::Console;
use crate::rest::Registry;
use crate::view::rows;
use crate::view::text::yaml;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) kind: Kind,
    /// Leases of this tenant only.
    pub(super) tenant: Option<TenantName>,
    /// This object only.
    pub(super) one: Option<Target>,
    pub(super) format: Format,
}

pub(super) fn get(
    registry: &Registry,
    args: &GetArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    let query = query(args)?;
    if args.watch {
        return watch::watch(registry, &query, console);
    }
    let documents = look(registry, &query)?;
    match query.format {
        Format::Table | Format::Wide => {
            if documents.is_empty() {
                console.complain(format_args!("no {}\n", query.kind.plural()));
                return Ok(());
            }
            let wide = query.format == Format::Wide;
            let table = rows::table(query.kind, &documents, console.now(), wide);
            let text = table.render(console.colour_out);
            console.print(format_args!("{text}"))?;
        }
        Format::Yaml => {
            let texts: Result<Vec<_>, _> = documents.iter().map(as_yaml).collect();
            console.print(format_args!("{}", texts?.join("---\n")))?;
        }
        Format::Json => {
            let text = match (&query.one, documents.as_slice()) {
                (Some(_), [one]) => as_json(one)?,
                _ => pretty(&documents, query.kind.plural())?,
            };
            console.print(format_args!("{text}\n"))?;
        }
    }
    Ok(())
}

fn query(args: &GetArgs) -> Result<Query, NoTarget> {
    let tenant = args.tenant.as_deref();
    if args.kind != Kind::Lease && tenant.is_some() {
        return Err(NoTarget::TenantOfOther(args.kind.plural()));
    }
    let one = match (&args.name, args.kind) {
        (None, _) => None,
        (Some(name), Kind::Lease) => Some(Target::Lease(lease(name, tenant)?)),
        (Some(name), kind) => Some(Target::parse(kind, name, None)?),
    };
    let tenant = match &one {
        Some(Target::Lease(id)) => Some(id.tenant.clone()),
        _ => tenant.map(str::parse).transpose()?,
    };
    Ok(Query { kind: args.kind, tenant, one, format: args.output })
}

/// What the query finds now.
pub(super) fn look(registry: &Registry, query: &Query) -> Result<Vec<Document>, VerbError> {
    Ok(match &query.one {
        Some(target) => vec![registry.get(target)?],
        None => registry.list(query.kind, query.tenant.as_ref())?,
    })
}

pub(super) fn as_yaml(document: &Document) -> Result<String, VerbError> {
    let what = rows::title(document);
    yaml(document).map_err(|source| VerbError::Show { what, source: Box::new(source) })
}

fn as_json(document: &Document) -> Result<String, VerbError> {
    pretty(document, &rows::title(document))
}

/// Any value as JSON for people.
pub(super) fn pretty<T: serde::Serialize + ?Sized>(
    value: &T,
    what: &str,
) -> Result<String, VerbError> {
    serde_json::to_string_pretty(value)
        .map_err(|source| VerbError::Show { what: what.to_owned(), source: Box::new(source) })
}

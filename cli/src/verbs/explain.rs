//! `explain`: what a field means, why an object is as it is, where a lease would fit.

use std::thread;

use bulkhead_api::document::{Document, Host, Kind, Lease, Site};
use bulkhead_api::id::{HostId, SiteName};

use super::error::VerbError;
use super::manifests;
use super::target::Target;
use crate::args::ExplainArgs;
use crate::console::Console;
use crate::explain::{self as fields, ExplainError};
use crate::manifest::Manifest;
use crate::rest::Registry;
use crate::rest::error::RestError;
use crate::view::explain::{self as view, Explanation};
use crate::view::rows;

/// What is to be explained.
#[derive(Debug)]
enum Subject {
    /// A kind or a field; nobody is asked.
    Field,
    /// An object of the registry.
    Object(Target),
    /// Leases of files.
    Fit,
}

/// Does what the arguments say. `registry` is only asked for where it is needed.
pub(super) fn explain(
    registry: impl FnOnce(&Console) -> Result<Registry, VerbError>,
    args: &ExplainArgs,
    console: &mut Console,
) -> Result<(), VerbError> {
    match subject(args)? {
        Subject::Field => {
            let text = fields::explain(&args.what, args.recursive)?;
            Ok(console.print(format_args!("{text}"))?)
        }
        Subject::Object(target) if args.watch => watch(&registry(console)?, &target, console),
        Subject::Object(target) => {
            let explanation = look(&registry(console)?, &target)?;
            let text = view::page(&explanation, console.now());
            Ok(console.print(format_args!("{text}"))?)
        }
        Subject::Fit => {
            // Files first: their faults need no registry.
            let manifests = manifests::read(&args.files, console)?;
            only_leases(&manifests)?;
            fit(&registry(console)?, &manifests, console)
        }
    }
}

fn subject(args: &ExplainArgs) -> Result<Subject, VerbError> {
    let misfit = |problem: &'static str| ExplainError::Misfit { problem };
    let subject = match (args.what.as_str(), &args.name) {
        ("fit", None) if args.files.is_empty() => {
            return Err(misfit("fit wants a file of leases: bulkhead explain fit -f FILE").into());
        }
        ("fit", None) => Subject::Fit,
        ("fit", Some(_)) => return Err(misfit("fit takes no name, only -f FILE").into()),
        (_, None) => Subject::Field,
        (kind, Some(name)) => match fields::kind(kind)? {
            Kind::Tenant => {
                let problem = "a tenant waits for nothing: explain one of its leases";
                return Err(misfit(problem).into());
            }
            kind @ (Kind::Site | Kind::Host | Kind::Lease) => {
                Subject::Object(Target::parse(kind, name, args.tenant.as_deref())?)
            }
        },
    };
    let object = matches!(subject, Subject::Object(_));
    if !matches!(subject, Subject::Fit) && !args.files.is_empty() {
        return Err(misfit("-f is for explain fit").into());
    }
    if args.recursive && !matches!(subject, Subject::Field) {
        return Err(misfit("--recursive is for fields").into());
    }
    if args.watch && !object {
        return Err(misfit("--watch wants an object: its kind and its name").into());
    }
    if args.tenant.is_some() && !object {
        return Err(misfit("--tenant wants a lease: lease NAME --tenant TENANT").into());
    }
    Ok(subject)
}

fn look(registry: &Registry, target: &Target) -> Result<Explanation, RestError> {
    Ok(match registry.get(target)? {
        Document::Lease(lease) => of_lease(registry, &lease)?,
        Document::Host(host) => view::host(&host, site(registry, &host.metadata.site)?.as_ref()),
        Document::Site(site) => view::site(&site),
        Document::Tenant(tenant) => Explanation {
            title: format!("tenant {} waits for nothing", tenant.metadata.name),
            troubles: Vec::new(),
        },
    })
}

fn of_lease(registry: &Registry, lease: &Lease) -> Result<Explanation, RestError> {
    let placed = lease.status.as_ref().and_then(|status| status.host.as_ref());
    let host = placed.map(|id| host(registry, id)).transpose()?.flatten();
    let site = host.as_ref().map(|host| site(registry, &host.metadata.site)).transpose()?;
    Ok(view::lease(lease, host.as_ref(), site.flatten().as_ref()))
}

fn host(registry: &Registry, id: &HostId) -> Result<Option<Host>, RestError> {
    let found = registry.find(&Target::Host(id.clone()))?;
    Ok(found.and_then(|found| if let Document::Host(host) = found { Some(host) } else { None }))
}

fn site(registry: &Registry, name: &SiteName) -> Result<Option<Site>, RestError> {
    let found = registry.find(&Target::Site(name.clone()))?;
    Ok(found.and_then(|found| if let Document::Site(site) = found { Some(site) } else { None }))
}

/// Explains again whenever something but the time changed, until the object is gone. An object's lease, host and
/// site say so together: they are asked every two seconds.
fn watch(registry: &Registry, target: &Target, console: &mut Console) -> Result<(), VerbError> {
    let mut last: Option<Explanation> = None;
    loop {
        match look(registry, target) {
            Ok(now) if last.as_ref() == Some(&now) => {}
            Ok(now) => {
                let between = if last.is_some() { "---\n" } else { "" };
                let text = view::page(&now, console.now());
                console.print(format_args!("{between}{text}"))?;
                last = Some(now);
            }
            Err(error) if error.is_not_found() && last.is_some() => {
                return Ok(console.print(format_args!("---\n{target} is gone\n"))?);
            }
            Err(error) if error.is_passing() && last.is_some() => {}
            Err(error) => return Err(error.into()),
        }
        thread::sleep(console.pause.saturating_mul(4));
    }
}

/// Refuses documents that are not placed.
fn only_leases(manifests: &[Manifest]) -> Result<(), VerbError> {
    for manifest in manifests {
        let kind = rows::kind(&manifest.document);
        if kind != Kind::Lease {
            let message =
                format!("found `{}`, expected Lease: only leases are placed", kind.name());
            return Err(manifest.fault("kind", message).into());
        }
    }
    Ok(())
}

fn fit(registry: &Registry, leases: &[Manifest], console: &mut Console) -> Result<(), VerbError> {
    let mut nowhere = 0;
    for manifest in leases {
        let answer = match registry.fit(&manifest.document) {
            Err(RestError::Refused(refusal)) => {
                return Err(super::apply::refused(manifest, &refusal).into());
            }
            answer => answer?,
        };
        nowhere += usize::from(answer.host.is_none());
        let text = view::fit(&rows::title(&manifest.document), &answer);
        console.print(format_args!("{text}"))?;
    }
    match nowhere {
        0 => Ok(()),
        failed => Err(VerbError::NoFit { failed, total: leases.len() }),
    }
}

//! One object of the registry, as named on the command line.

use std::fmt;

use bulkhead_api::document::{Document, Kind};
use bulkhead_api::id::{HostId, IdError, LeaseId, SiteName, TenantName};

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A site.
    Site(SiteName),
    /// A host.
    Host(HostId),
    /// A tenant.
    Tenant(TenantName),
    /// A lease.
    Lease(LeaseId),
}

/// The arguments name no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// A lease without its tenant.
    #[error("lease {0:?} needs its tenant")]
    NoTenant(String),
    /// Two tenants for one lease.
    #[error("lease {name:?} and --tenant {tenant} name two tenants")]
    TwoTenants {
        /// The name, with a tenant in it.
        name: String,
        /// The other tenant.
        tenant: String,
    },
    /// A tenant of something that has none.
    #[error("--tenant is for leases, and {0} have none")]
    TenantOfOther(&'static str),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] IdError),
}

impl NoTarget {
    /// The way out; none where the message says it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoTenant(name) => Some(format!("write TENANT/{name}, or add --tenant TENANT")),
            Self::TwoTenants { .. } => Some("leave --tenant out".to_owned()),
            Self::TenantOfOther(_) => Some("leave it out".to_owned()),
            Self::Name(_) => None,
        }
    }
}

impl Target {
    /// Reads a name. A lease's is `tenant/name`, or `name` with the tenant beside it.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub fn parse(kind: Kind, name: &str, tenant: Option<&str>) -> Result<Self, NoTarget> {
        if kind != Kind::Lease && tenant.is_some() {
            return Err(NoTarget::TenantOfOther(kind.plural()));
        }
        Ok(match kind {
            Kind::Site => Self::Site(name.parse()?),
            Kind::Host => Self::Host(name.parse()?),
            Kind::Tenant => Self::Tenant(name.parse()?),
            Kind::Lease => Self::Lease(lease(name, tenant)?),
        })
    }

    /// What a document describes.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        match document {
            Document::Site(site) => Self::Site(site.metadata.name.clone()),
            Document::Host(host) => Self::Host(host.metadata.name.clone()),
            Document::Tenant(tenant) => Self::Tenant(tenant.metadata.name.clone()),
            Document::Lease(lease) => Self::Lease(LeaseId {
                tenant: lease.metadata.tenant.clone(),
                name: lease.metadata.name.clone(),
            }),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Site(_) => Kind::Site,
            Self::Host(_) => Kind::Host,
            Self::Tenant(_) => Kind::Tenant,
            Self::Lease(_) => Kind::Lease,
        }
    }

    /// Where the registry keeps it. Names are DNS labels, so that nothing needs escaping.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Site(name) => format!("/v1/sites/{name}"),
            Self::Host(id) => format!("/v1/hosts/{id}"),
            Self::Tenant(name) => format!("/v1/tenants/{name}"),
            Self::Lease(LeaseId { tenant, name }) => format!("/v1/tenants/{tenant}/leases/{name}"),
        }
    }
}

/// As on the command line: `lease demo/hello`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(name) => write!(f, "site {name}"),
            Self::Host(id) => write!(f, "host {id}"),
            Self::Tenant(name) => write!(f, "tenant {name}"),
            Self::Lease(id) => write!(f, "lease {id}"),
        }
    }
}

/// Reads a lease's name.
///
/// # Errors
/// [`NoTarget`].
pub fn lease(name: &str, tenant: Option<&str>) -> Result<LeaseId, NoTarget> {
    match (name.split_once('/'), tenant) {
        (Some((tenant, name)), None) => {
            Ok(LeaseId { tenant: tenant.parse()?, name: name.parse()? })
        }
        (None, Some(tenant)) => Ok(LeaseId { tenant: tenant.parse()?, name: name.parse()? }),
        (None, None) => Err(NoTarget::NoTenant(name.to_owned())),
        (Some(_), Some(tenant)) => {
            Err(NoTarget::TwoTenants { name: name.to_owned(), tenant: tenant.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_api::document::Kind;

    use super::Target;

    #[test]
    fn a_lease_is_named_with_its_tenant_in_front_or_beside() {
        let front = Target::parse(Kind::Lease, "demo/hello", None).unwrap();
        assert_eq!(Target::parse(Kind::Lease, "hello", Some("demo")).unwrap(), front);
        assert_eq!(front.path(), "/v1/tenants/demo/leases/hello");
        assert_eq!(front.to_string(), "lease demo/hello");
    }

    #[test]
    fn a_name_that_would_leave_its_path_is_refused() {
        for name in ["../hosts", "a/b/c", "a?watch=true", "a%2Fb", "", "/", "a/"] {
            assert!(Target::parse(Kind::Lease, name, None).is_err(), "{name}");
            assert!(Target::parse(Kind::Site, name, None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_tenant_of_a_site_and_two_tenants_of_a_lease_are_refused() {
        assert!(Target::parse(Kind::Site, "lab-01", Some("demo")).is_err());
        assert!(Target::parse(Kind::Lease, "demo/hello", Some("demo")).is_err());
    }
}

//! What people read: documents, worked out of what is stored, who is connected and what time it is.
//!
//! ```text
//!  rows of the store ─┐
//!  presence ──────────┼─► Picture ──► site, host, lease: Document with status
//!  now ───────────────┘
//! ```
//!
//! Nothing of a status is stored: it cannot be older than what it is about.

mod host;
mod lease;
mod machine;
mod metal;
mod site;

use std::collections::BTreeMap;

use bulkhead_api::document::{ApiVersion, Document, Kind, Tenant, TenantMetadata};
use bulkhead_api::id::{HostId, LeaseId, SiteName};
use bulkhead_api::machine::Machine;
use bulkhead_api::time::Timestamp;
use jiff::SignedDuration;
use sqlx::SqliteConnection;

use crate::fleet::place::{Promise, wants};
use crate::presence::{HostLink, Live};
use crate::store::hosts::HostRow;
use crate::store::leases::LeaseRow;
use crate::store::refusals::RefusalRow;
use crate::store::reports::ReportRow;
use crate::store::sites::SiteRow;
use crate::store::specs::SpecRow;
use crate::store::tenants::TenantRow;
use crate::store::{StoreError, hosts, leases, machines, refusals, reports, sites, specs, tenants};

/// A host that was not heard for so long is out of reach. Hosts report every ten seconds.
pub const SILENCE: SignedDuration = SignedDuration::from_secs(30);

/// Everything that documents are made of.
#[derive(Debug, Default)]
pub struct Picture {
    now: Timestamp,
    live: Live,
    sites: Vec<SiteRow>,
    tenants: Vec<TenantRow>,
    hosts: Vec<HostRow>,
    refusals: Vec<RefusalRow>,
    machines: Vec<(SiteName, Machine)>,
    leases: Vec<LeaseRow>,
    reports: BTreeMap<HostId, ReportRow>,
    specs: BTreeMap<HostId, SpecRow>,
}

/// Whether a host was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// It has not said anything since it enrolled.
    Never,
    /// Lately.
    Heard,
    /// Not since then, and why.
    Silent(Timestamp, String),
}

impl Picture {
    /// Of what is connected alone; enough for [`Picture::site`].
    #[must_use]
    pub fn of_live(live: Live, now: Timestamp) -> Self {
        Self { now, live, ..Self::default() }
    }

    /// Reads what documents of one kind are made of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of_kind(
        conn: &mut SqliteConnection,
        kind: Kind,
        live: Live,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut picture = Self::of_live(live, now);
        match kind {
            Kind::Site => picture.sites = sites::list(conn).await?,
            Kind::Tenant => picture.tenants = tenants::list(conn).await?,
            Kind::Host => {
                picture.refusals = refusals::list(conn).await?;
                picture.machines = machines::list(conn).await?;
                picture.read_hosts(conn).await?;
            }
            Kind::Lease => {
                picture.machines = machines::list(conn).await?;
                picture.read_hosts(conn).await?;
            }
        }
        Ok(picture)
    }

    /// Reads what a lease and its host are made of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of_lease(
        conn: &mut SqliteConnection,
        id: &LeaseId,
        live: Live,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut picture = Self::of_live(live, now);
        if let Some(row) = leases::get(conn, id).await? {
            picture.read_host(conn, &row.host).await?;
        }
        Ok(picture)
    }

    /// Reads what a host is made of; its leases too.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn read_host(
        &mut self,
        conn: &mut SqliteConnection,
        id: &HostId,
    ) -> Result<(), StoreError> {
        self.hosts = hosts::get(conn, id).await?.into_iter().collect();
        if let Some(row) = self.hosts.first() {
            let machine = machines::get(conn, &row.site, row.mac).await?;
            self.machines =
                machine.map(|machine| (row.site.clone(), machine)).into_iter().collect();
        }
        self.leases = leases::of_host(conn, id).await?;
        let report = reports::get(conn, id).await?;
        self.reports = report.into_iter().map(|report| (id.clone(), report)).collect();
        let spec = specs::get(conn, id).await?;
        self.specs = spec.into_iter().map(|spec| (id.clone(), spec)).collect();
        Ok(())
    }

    async fn read_hosts(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        self.hosts = hosts::list(conn).await?;
        self.leases = leases::list(conn).await?;
        let reported = reports::list(conn).await?.into_iter();
        self.reports = reported.map(|report| (report.status.host.clone(), report)).collect();
        let signed = specs::list(conn).await?.into_iter();
        self.specs = signed.map(|spec| (spec.host.clone(), spec)).collect();
        Ok(())
    }

    /// Every document of a kind that was read, in a fixed order.
    ///
    /// # Errors
    /// A machine that cannot be named.
    pub fn documents(&self, kind: Kind) -> Result<Vec<Document>, StoreError> {
        Ok(match kind {
            Kind::Site => self.sites.iter().map(|row| Document::Site(self.site(row))).collect(),
            Kind::Tenant => self.tenants.iter().map(|row| Document::Tenant(tenant(row))).collect(),
            Kind::Host => {
                let hosts = self.hosts.iter().map(|row| self.host(row));
                hosts.chain(self.machines()?).map(Document::Host).collect()
            }
            Kind::Lease => self.leases.iter().map(|row| Document::Lease(self.lease(row))).collect(),
        })
    }

    /// The document of a lease that was read.
    #[must_use]
    pub fn lease_of(&self, id: &LeaseId) -> Option<Document> {
        let row = self.leases.iter().find(|row| row.id == *id)?;
        Some(Document::Lease(self.lease(row)))
    }

    fn leases_on<'a>(&'a self, host: &'a HostId) -> impl Iterator<Item = &'a LeaseRow> {
        self.leases.iter().filter(move |lease| lease.host == *host)
    }

    /// Leases that count on a host, in order of creation.
    fn promised(&self, host: &HostId) -> Vec<Promise> {
        let on_it = self.leases_on(host);
        on_it.map(|row| Promise { id: row.id.clone(), wants: wants(&row.spec) }).collect()
    }

    fn reach(&self, host: &HostId) -> Reach {
        let live = self.live.hosts.get(host);
        let reported = self.reports.get(host).map(|report| report.received_at);
        let Some(last) = reported.max(live.map(|live| live.seen)) else { return Reach::Never };
        if live.is_some_and(|live| live.link == HostLink::Ended) {
            return Reach::Silent(last, "its stream to the site ended".to_owned());
        }
        if self.now.duration_since(last) > SILENCE {
            let why = format!("nothing was heard of it since {last:.0}");
            return Reach::Silent(last, why);
        }
        Reach::Heard
    }
}

/// The document of a tenant.
#[must_use]
pub fn tenant(row: &TenantRow) -> Tenant {
    Tenant {
        api_version: ApiVersion::V1,
        metadata: TenantMetadata { name: row.name.clone() },
        spec: row.spec.clone(),
    }
}

#[cfg(test)]
mod tests;

//! `bulkheadd`: owns a host's resources as one object.
//!
//! ```text
//!        site                                      people and programs on the host
//!         ▲ │ signed specs, log requests                    │ REST
//!  reports│ ▼                                               ▼
//!       uplink ──events──► node ──status, events──► socket (/run/bulkhead/supervisor.sock)
//!                          │  ▲
//!            accepted spec │  │ pass: leases as read back, settled or not, next retry
//!                          ▼  │
//!                         tenant ──► host (systemd, control groups, procfs), oci (images)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`node`] | the loop: takes specs, has them applied, says how it stands |
//! | [`uplink`] | enrolment, the stream to the site, renewal, reconnects |
//! | [`tenant`] | leases: plan, apply, read back |
//! | [`class`] | each class of resources: given, looked at, sanitised |
//! | [`receipts`] | what was sanitised: signed, one after the other |
//! | [`proof`] | whether leases share anything: observed, proved, signed |
//! | [`gpu`] | GPUs: what their troubles mean |
//! | [`metal`] | the host as a whole: handed over to a tenant, and back from one |
//! | [`oci`] | images from the site's cache |
//! | [`socket`] | the same state for this host's own people |
//! | [`storage`] | disks: the host's state, volumes of leases |
//! | [`gpu`] | GPUs and slices of them |
//! | [`host`] | the machine: hardware, systemd, console, load |
//! | [`events`] | what happened lately |
//! | [`daemon`] | puts all of them together and ends them |
//! | [`ledger`] | what must survive the supervisor |
//! | [`paths`], [`files`] | where, and how a file is replaced |
//!
//! Nothing is given out that the ledger does not hold already, and nothing of a tenant is a child of this
//! process: it can be killed at any time and finds everything again.

pub mod class;
pub mod daemon;
pub mod events;
pub mod files;
pub mod gpu;
pub mod host;
pub mod ledger;
pub mod metal;
pub mod node;
pub mod oci;
pub mod paths;
pub mod proof;
pub mod receipts;
pub mod socket;
pub mod storage;
pub mod tenant;
#[cfg(test)]
mod testing;
pub mod uplink;

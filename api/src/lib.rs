//! What Bulkhead's programs say to each other: ids, units, documents, signed records. No I/O, no clock.
//!
//! ```text
//!  people ──REST──►  document::{Site, Host, Tenant, Lease}      what is wanted, with its status
//!  registry ──►      spec::SignedSpec                            what one host must be, signed
//!  host ──►          status::HostStatus, inventory::Inventory    what was observed
//!                    statement::SignedStatement                  that nobody shares, signed
//!                    receipt::SignedReceipt                      that a resource is clean again, signed
//!  site ──►          machine::Machine                            what asked to boot
//!  image, stage 1 ─► boot                                        how a machine comes up
//! ```
//!
//! JSON is camelCase; unknown fields are refused where a person writes (`document`) and ignored where
//! a newer program may say more (`status`, `inventory`).

pub mod boot;
pub mod chain;
pub mod condition;
pub mod document;
pub mod fit;
pub mod gpu;
pub mod id;
pub mod inventory;
pub mod isolation;
pub mod lease;
pub mod link;
pub mod local;
pub mod machine;
pub mod mig;
pub mod network;
#[cfg(feature = "sign")]
pub mod receipt;
pub mod resource;
#[cfg(feature = "sign")]
pub mod signed;
pub mod site;
#[cfg(feature = "sign")]
pub mod spec;
#[cfg(feature = "sign")]
pub mod statement;
pub mod status;
pub mod time;
pub mod units;

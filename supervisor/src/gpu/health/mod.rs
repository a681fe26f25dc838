//! What a GPU's troubles mean: decisions as values, nothing is read or done here.
//!
//! ```text
//!  NVML event ─┐
//!  kernel log ─┴► once::Once (each XID counts once) ──► policy::judge (XIDs of one incident, recovery action) ─► Verdict
//!  ECC, rows, temperature, lost ──► policy::weigh ─────────────────────────────────────────────────────────────► Verdict
//!  Verdict ──► cycle::Cycle: drain ─► reset ─► verify ─► return, or held for a person
//! ```
//!
//! What a tenant's own program can cause never takes the host, or another tenant, down.

pub mod cycle;
pub mod line;
pub mod once;
pub mod policy;

#[cfg(test)]
mod tests;

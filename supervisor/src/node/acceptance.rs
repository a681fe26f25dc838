//! Which specs this host takes. Pure: file contents and clocks are arguments.
//!
//! A spec is taken if a key of the image signed it, it is for this host, its generation is above the last
//! one and it has not expired. The same spec handed out again is no news and no refusal. Everything else is
//! refused by name, and what was accepted before stays in force.
//!
//! **The clock.** A host without a battery may come up years behind, and would then take an expired spec for
//! a good one and a good one for one of the future. Two signed statements say that it is later: the start of
//! the host's own certificate, which the fleet's CA gave to a key made in this boot, and the start of a spec
//! whose signature was checked. Time is therefore judged as the latest of those and the system clock
//! ([`Clock`]). A clock that is behind is reported, it does not keep the host from working.

use bulkhead_api::document::{FieldError, from_json};
use bulkhead_api::id::HostId;
use bulkhead_api::spec::{HostSpec, SignedSpec, SpecKeys, SpecRefusal, accept, verify};
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::{LedgerError, Record};

/// The spec in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// As it was signed.
    pub signed: SignedSpec,
    /// Its body.
    pub spec: HostSpec,
}

/// The spec in force as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kept {
    /// As it was signed; checked again when it is read.
    pub signed: SignedSpec,
}

impl Record for Kept {
    const FORMAT: &'static str = "bulkhead-accepted-spec";
    const VERSION: u32 = 1;
}

/// Why an offered spec is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a signed spec at all.
    #[error("read the offered spec")]
    Unreadable(#[source] FieldError),
    /// The image's keys cannot be read.
    #[error("read the trusted spec keys: {0}")]
    NoKeys(String),
    /// Nobody knows yet for which host a spec would have to be.
    #[error("this host has no id yet")]
    NotEnrolled,
    /// Signature, host, generation or time.
    #[error(transparent)]
    Spec(#[from] SpecRefusal),
    /// What was accepted before is unknown, or this one cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Refusal {
    /// One word for conditions and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "NotASpec",
            Self::NoKeys(_) => "NoSpecKeys",
            Self::NotEnrolled => "NotEnrolled",
            Self::Spec(refusal) => refusal.label(),
            Self::Ledger(error) => error.label(),
        }
    }

    /// Who has to act next.
    #[must_use]
    pub fn owner(&self) -> &'static str {
        match self {
            Self::Unreadable(_) | Self::Spec(_) => "registry",
            Self::NotEnrolled => "site",
            Self::NoKeys(_) | Self::Ledger(_) => "operator",
        }
    }
}

/// What is known of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The system clock.
    pub system: Timestamp,
    /// Start of the host's own certificate; absent before enrolment.
    pub certified: Option<Timestamp>,
}

impl Clock {
    /// The latest time that is proven or told.
    #[must_use]
    pub fn judged(self) -> Timestamp {
        self.certified.map_or(self.system, |certified| certified.max(self.system))
    }
}

/// What an offer is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "made once a spec and taken apart at once")]
pub enum Offer {
    /// To be kept and applied.
    New(Accepted),
    /// What is in force already.
    Same,
}

/// Decides about the bytes of an offered spec.
///
/// # Errors
/// The first reason against it: [`Refusal::Unreadable`], [`Refusal::Spec`].
pub fn judge(
    json: &[u8],
    trusted: &SpecKeys,
    ours: &HostId,
    accepted: Option<&Accepted>,
    clock: Clock,
) -> Result<Offer, Refusal> {
    let signed: SignedSpec = from_json(json).map_err(Refusal::Unreadable)?;
    let offered = verify(&signed, trusted)?;
    if accepted.is_some_and(|accepted| accepted.signed.body == signed.body) {
        return Ok(Offer::Same);
    }
    let generation = accepted.map_or(0, |accepted| accepted.spec.generation);
    let now = clock.judged().max(offered.not_before);
    let spec = accept(&signed, trusted, ours, generation, now)?;
    Ok(Offer::New(Accepted { signed, spec }))
}

/// Checks a spec that was kept: keys and host may have changed with the image or the identity. Its time is
/// not looked at: what was applied stays applied.
///
/// # Errors
/// [`Refusal::Spec`].
pub fn restore(kept: Kept, trusted: &SpecKeys, ours: &HostId) -> Result<Accepted, Refusal> {
    let spec = verify(&kept.signed, trusted)?;
    if spec.host != *ours {
        let (theirs, ours) = (spec.host, ours.clone());
        return Err(SpecRefusal::WrongHost { theirs, ours }.into());
    }
    Ok(Accepted { signed: kept.signed, spec })
}

#[cfg(test)]
#[path = "acceptance_tests.rs"]
mod tests;

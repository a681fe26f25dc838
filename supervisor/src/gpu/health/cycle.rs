//! The way of a GPU out of service and back: drain, reset, verify, return. One that comes back too often is held for a
//! person, and what it did is remembered after it returned.

use serde::{Deserialize, Serialize};

use super::policy::Decision;

/// Resets within [`MEMORY`] before a GPU is held.
pub const MOST_RESETS: usize = 3;

/// How long a reset is remembered, in seconds: a week.
pub const MEMORY: u64 = 7 * 24 * 3600;

/// Where a GPU is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "at")]
pub enum Stage {
    /// Leases can be placed on it.
    #[default]
    InService,
    /// Nothing new is placed on it.
    Draining {
        /// Leases are not waited for.
        urgent: bool,
    },
    /// It is being reset.
    Resetting,
    /// It was reset, and is being looked at.
    Verifying,
    /// Nothing is placed on it until a person releases it.
    Held {
        /// Why.
        why: Reason,
    },
}

/// Why a GPU is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// A decision wants a person, or the host's reboot.
    Decided,
    /// It was reset [`MOST_RESETS`] times within [`MEMORY`].
    TooOften,
    /// Its reset did not come to an end.
    ResetFailed,
    /// It is not as it was before.
    NotVerified,
}

/// What happens to a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The policy decided.
    Decided(Decision),
    /// It was seen that nobody has any of it.
    Idle,
    /// Its reset ended, well or not.
    WasReset(bool),
    /// It was looked at: as it should be, or not.
    Verified(bool),
    /// A person releases it; it is verified first.
    Released,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Place nothing on it, and end its leases.
    EndLeases,
    /// Place nothing on it, and wait for its leases to end.
    Wait,
    /// Reset it. Repeating it is harmless: nobody has any of it.
    Reset,
    /// Look at it: geometry, ECC, rows, recovery action.
    Verify,
    /// Offer it again.
    Return,
}

/// A GPU's way, as it is kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cycle {
    /// Where it is.
    pub stage: Stage,
    /// Seconds of the wall clock of its resets, the oldest first; none older than [`MEMORY`].
    pub resets: Vec<u64>,
}

impl Cycle {
    /// Whether leases can be placed on it.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.stage == Stage::InService
    }

    /// What is under way, to be begun anew after a restart.
    #[must_use]
    pub fn pending(&self) -> Act {
        match self.stage {
            Stage::InService | Stage::Held { .. } => Act::Nothing,
            Stage::Draining { urgent: true } => Act::EndLeases,
            Stage::Draining { urgent: false } => Act::Wait,
            Stage::Resetting => Act::Reset,
            Stage::Verifying => Act::Verify,
        }
    }

    /// The next stage. What does not belong to the stage changes nothing: a late answer, a second word.
    #[must_use]
    pub fn next(&self, input: Input, now: u64) -> (Self, Act) {
        let mut resets = self.resets.clone();
        // A clock that was set back makes a reset recent rather than forgotten.
        resets.retain(|&at| now.saturating_sub(at) <= MEMORY);
        let held = |why| Stage::Held { why };
        let stage = match (self.stage, input) {
            (Stage::Held { .. }, Input::Decided(_)) => self.stage,
            (_, Input::Decided(decision)) => self.decided(decision),
            (Stage::Draining { .. }, Input::Idle) if resets.len() >= MOST_RESETS => {
                held(Reason::TooOften)
            }
            (Stage::Draining { .. }, Input::Idle) => {
                resets.push(now);
                Stage::Resetting
            }
            (Stage::Resetting, Input::WasReset(true)) | (Stage::Held { .. }, Input::Released) => {
                Stage::Verifying
            }
            (Stage::Resetting, Input::WasReset(false)) => held(Reason::ResetFailed),
            (Stage::Verifying, Input::Verified(true)) => Stage::InService,
            (Stage::Verifying, Input::Verified(false)) => held(Reason::NotVerified),
            (stage, Input::Idle | Input::WasReset(_) | Input::Verified(_) | Input::Released) => {
                stage
            }
        };
        let next = Self { stage, resets };
        let act = match (self.stage == stage, stage) {
            (true, _) => Act::Nothing,
            (false, Stage::InService) => Act::Return,
            (false, _) => next.pending(),
        };
        (next, act)
    }

    fn decided(&self, decision: Decision) -> Stage {
        match (decision, self.stage) {
            (Decision::Record | Decision::RestartTenant, stage) => stage,
            (Decision::DrainAtIdle, Stage::InService) => Stage::Draining { urgent: false },
            // Trouble while it is looked at is no way back into service.
            (Decision::DrainAtIdle | Decision::DrainAndReset, Stage::Verifying) => {
                Stage::Held { why: Reason::NotVerified }
            }
            (Decision::DrainAtIdle, stage) => stage,
            (Decision::DrainAndReset, Stage::Resetting) => Stage::Resetting,
            (Decision::DrainAndReset, _) => Stage::Draining { urgent: true },
            (Decision::AskHuman | Decision::CordonFabric | Decision::NodeLost, _) => {
                Stage::Held { why: Reason::Decided }
            }
        }
    }
}

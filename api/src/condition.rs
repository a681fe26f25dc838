//! Conditions: no state without a reason, an owner and a way out (law 8).

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Truth {
    /// Observed to hold.
    True,
    /// Observed not to hold.
    False,
    /// Not observable now, for instance because the host is out of reach.
    Unknown,
}

/// One statement about an object, with why it is so and what happens next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is stated, in CamelCase: `Ready`, `Granted`, `Running`, `SpecAccepted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// One word in CamelCase that programs may compare.
    pub reason: String,
    /// A sentence for people; names the objects. May be empty when `reason` says all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Who has to act next: `supervisor`, `registry`, `site`, `tenant` or `operator`.
    pub owner: String,
    /// When `status` last changed.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// When it is tried again; absent where nothing is pending or a person must act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub next_retry: Option<Timestamp>,
}

/// Puts `new` into `conditions`, keeping `since` where the status did not change.
pub fn set(conditions: &mut Vec<Condition>, new: Condition) {
    match conditions.iter_mut().find(|c| c.kind == new.kind) {
        Some(old) if old.status == new.status => {
            let since = old.since;
            *old = Condition { since, ..new };
        }
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// The condition of that type, if it was ever stated.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

/// Whether the condition of that type is stated and holds.
#[must_use]
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == Truth::True)
}

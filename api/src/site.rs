//! A site's wanted behaviour and what is known of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::id::{MacAddr, SystemUuid};
use crate::resource::ResourceClass;
use crate::time::Timestamp;

/// What a site should do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// Which machines may boot.
    #[serde(default)]
    pub admission: Admission,
    /// Classes of which the site accepts a weaker erase where the full one fails; such a receipt says so in
    /// `weaker`. Empty: what cannot be erased in full is given to nobody.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub weaker_erase: BTreeSet<ResourceClass>,
}

/// Which machines a site lets boot.
///
/// The default is `list` without machines: a site that was told nothing boots nobody (law 4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admission {
    /// The rule.
    pub mode: AdmissionMode,
    /// Who may boot in mode `list`; empty in mode `auto`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<AdmittedMachine>,
}

/// How a site decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum AdmissionMode {
    /// Every machine that asks, as long as its identity collides with no other.
    Auto,
    /// Only the machines listed; all others are quarantined.
    #[default]
    List,
}

/// A machine that may boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmittedMachine {
    /// Hardware address of its boot NIC.
    pub mac: MacAddr,
    /// Its system UUID; absent = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<SystemUuid>,
}

/// What is known of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SiteStatus {
    /// Its stream to the registry is open.
    pub connected: bool,
    /// Last message from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub last_seen: Option<Timestamp>,
    /// Why it is so.
    pub conditions: Vec<Condition>,
}

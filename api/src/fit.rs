//! Which host would take a lease, asked without taking one (`POST /v1/fit`).

use serde::{Deserialize, Serialize};

use crate::document::HostShortage;
use crate::id::HostId;

/// The answer to a lease that nobody asked for yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// The host that would get it now; absent where it fits nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// Where a lease of that name is already; the answer is for one more like it. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<HostId>,
    /// Every host that it may be on, ascending, with what is short there; nothing is short where it fits.
    pub hosts: Vec<HostShortage>,
}

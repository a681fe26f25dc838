//! Which decision follows from what a GPU says. The table is NVIDIA's Xid catalogue, immediate actions, with our
//! rule that what a tenant can cause harms that tenant alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// XIDs of one GPU that come within so many seconds are one incident, and so is a recovery action.
pub const INCIDENT: u64 = 30;

/// XIDs that a tenant's own program can cause.
pub const BY_TENANTS: [u32; 7] = [13, 31, 43, 45, 68, 69, 109];

/// What is to be done, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// It is written down.
    Record,
    /// The program of the tenant that it hit is started anew.
    RestartTenant,
    /// Nothing new is placed on the GPU; it is reset once nobody has any of it.
    DrainAtIdle,
    /// Nothing new is placed, and a person is asked; what runs goes on.
    AskHuman,
    /// Nothing new is placed on any GPU of its fabric.
    CordonFabric,
    /// Leases are moved away or ended, then the GPU is reset, cut anew and verified.
    DrainAndReset,
    /// The GPU fell off the bus: its leases have lost it; the host is cordoned and rebooted after a drain.
    NodeLost,
}

impl Decision {
    /// Whether it can end what a tenant runs that had no part in it.
    #[must_use]
    pub fn hits_others(self) -> bool {
        matches!(self, Self::DrainAndReset | Self::NodeLost)
    }
}

/// NVML's recovery action (field 230, told by XID 154).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Recovery {
    /// Nothing is needed.
    None,
    /// Reset the GPU.
    Reset,
    /// Reboot the host.
    Reboot,
    /// Drain what speaks to its peers.
    DrainPeers,
    /// Drain, then reset.
    DrainReset,
    /// The fabric's memory exchange needs help.
    Imex,
    /// A number that this version does not know.
    Unknown(u64),
}

impl From<u64> for Recovery {
    fn from(field: u64) -> Self {
        match field {
            0 => Self::None,
            1 => Self::Reset,
            2 => Self::Reboot,
            3 => Self::DrainPeers,
            4 => Self::DrainReset,
            5 => Self::Imex,
            other => Self::Unknown(other),
        }
    }
}

/// Everything that one GPU said within one incident.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incident {
    /// XIDs, in any order; 154 is the recovery action's own and says nothing besides.
    pub xids: Vec<u32>,
    /// The recovery action that was read within it; absent = not read, or not known to the driver.
    pub recovery: Option<Recovery>,
    /// Incidents of this GPU in the last day that had XID 109.
    pub earlier_109: u32,
}

/// Divides XIDs of one GPU, by ascending seconds, into incidents.
#[must_use]
pub fn incidents(xids: &[(u64, u32)]) -> Vec<Vec<u32>> {
    let mut all: Vec<(u64, Vec<u32>)> = Vec::new();
    for &(at, xid) in xids {
        match all.last_mut() {
            Some((begun, of)) if at.saturating_sub(*begun) <= INCIDENT => of.push(xid),
            _ => all.push((at, vec![xid])),
        }
    }
    all.into_iter().map(|(_, of)| of).collect()
}

/// What to do about an incident. More than one decision may stand beside another: a tenant is started anew, and the GPU
/// is reset at its next idle moment.
#[must_use]
pub fn judge(incident: &Incident) -> BTreeSet<Decision> {
    let xids: Vec<u32> = incident.xids.iter().copied().filter(|&xid| xid != 154).collect();
    let by_tenants = !xids.is_empty() && xids.iter().all(|xid| BY_TENANTS.contains(xid));
    let mut decisions = BTreeSet::new();
    for &xid in &xids {
        // 48 explains the remapping that comes with it, and 45 is what others look like to a program.
        let explained = matches!(xid, 63 | 64) && xids.contains(&48);
        if !explained {
            decisions.extend(of_xid(xid));
        }
    }
    if xids.contains(&109) && incident.earlier_109 > 0 {
        decisions.insert(Decision::DrainAtIdle);
    }
    if let Some(recovery) = incident.recovery {
        // It overrides what the table wants of the GPU; a tenant's program that ended is started anew all the same.
        decisions.retain(|decision| *decision <= Decision::RestartTenant);
        decisions.extend(of_recovery(recovery));
    }
    if by_tenants {
        decisions = decisions.into_iter().map(spare_others).collect();
    }
    if decisions.is_empty() {
        decisions.insert(Decision::Record);
    }
    decisions
}

/// What the table says of one XID.
fn of_xid(xid: u32) -> Vec<Decision> {
    match xid {
        13 | 31 | 68 | 69 | 109 => vec![Decision::RestartTenant],
        43 | 45 | 92 => vec![Decision::Record],
        63 => vec![Decision::Record, Decision::DrainAtIdle],
        94 => vec![Decision::RestartTenant, Decision::DrainAtIdle],
        46 | 48 | 62 | 64 | 95 | 119 | 120 | 140 => vec![Decision::DrainAndReset],
        74 | 144..=150 => vec![Decision::CordonFabric],
        79 => vec![Decision::NodeLost],
        _ => vec![Decision::AskHuman],
    }
}

fn of_recovery(recovery: Recovery) -> Option<Decision> {
    match recovery {
        Recovery::None => None,
        Recovery::Reset | Recovery::DrainReset => Some(Decision::DrainAndReset),
        Recovery::Reboot => Some(Decision::NodeLost),
        Recovery::DrainPeers | Recovery::Imex => Some(Decision::CordonFabric),
        Recovery::Unknown(_) => Some(Decision::AskHuman),
    }
}

/// The strongest that does nothing to who had no part in it.
fn spare_others(decision: Decision) -> Decision {
    match decision {
        Decision::DrainAndReset => Decision::DrainAtIdle,
        Decision::NodeLost | Decision::CordonFabric => Decision::AskHuman,
        Decision::Record | Decision::RestartTenant | Decision::DrainAtIdle | Decision::AskHuman => {
            decision
        }
    }
}

/// What a GPU is found to be in, apart from XIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Finding {
    /// Uncorrected ECC errors since the driver was loaded have grown.
    EccUncorrected,
    /// Rows wait for a reset to be remapped.
    RemapPending,
    /// A row could not be remapped: the memory has no spare ones left.
    RemapFailed,
    /// Every call says that it is lost.
    Lost,
    /// Slowed down by its temperature.
    Slowdown,
    /// At the temperature where it turns itself off.
    Overheated,
}

/// What to do about a finding.
#[must_use]
pub fn weigh(finding: Finding) -> Decision {
    match finding {
        Finding::Slowdown => Decision::Record,
        Finding::EccUncorrected | Finding::RemapPending => Decision::DrainAtIdle,
        Finding::RemapFailed | Finding::Overheated => Decision::AskHuman,
        Finding::Lost => Decision::NodeLost,
    }
}

//! Every machine that asked this site for something: who it is, how far it came, why it may not boot.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bulkhead_api::id::{HostId, MacAddr, SystemUuid};
use bulkhead_api::machine::{BootStage, Machine, MachineAdmission};
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::client::ClientKind;
use crate::moment::{later, seconds_since};

/// Machines that never booted are forgotten, oldest first, above this number: forged addresses must
/// not fill memory.
const STRANGERS: usize = 1024;

/// When a machine that boots in a circle is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoopLimits {
    /// Boots of one stage without progress.
    pub attempts: u32,
    /// Within this many seconds.
    pub window_seconds: i64,
    /// The machine gets no boot file for this long; then it may try again.
    pub hold_seconds: i64,
}

impl Default for LoopLimits {
    fn default() -> Self {
        Self { attempts: 3, window_seconds: 600, hold_seconds: 300 }
    }
}

/// Attempts of one stage since the machine last made progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempts {
    /// DHCP transaction of the latest: its repetitions are the same attempt.
    xid: Option<u32>,
    /// When each one began, oldest first.
    began: Vec<Timestamp>,
}

/// A machine barred from booting for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Barred {
    /// In one sentence.
    pub reason: String,
    /// May try again from then on.
    pub until: Timestamp,
    /// The registry refused its enrolment; else it boots in a circle.
    pub by_registry: bool,
}

/// What is remembered of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Its system UUID; absent until a stage sent one.
    pub uuid: Option<SystemUuid>,
    /// The host it became.
    pub host: Option<HostId>,
    /// How far its latest boot came.
    pub stage: BootStage,
    /// Boots that reached stage 1.
    pub boots: u64,
    /// First seen.
    pub first_seen: Timestamp,
    /// Last seen.
    pub last_seen: Timestamp,
    /// Why its latest request for a boot file was turned down; absent when it was granted.
    pub quarantine: Option<String>,
    /// Latest refused ticket or enrolment, with its reason; absent after the next success.
    pub refused: Option<String>,
    /// Barred for a while.
    pub barred: Option<Barred>,
    attempts: BTreeMap<ClientKind, Attempts>,
}

impl Known {
    fn new(now: Timestamp) -> Self {
        Self {
            uuid: None,
            host: None,
            stage: BootStage::Seen,
            boots: 0,
            first_seen: now,
            last_seen: now,
            quarantine: None,
            refused: None,
            barred: None,
            attempts: BTreeMap::new(),
        }
    }

    /// Neither a host nor a machine that came as far as our stage 1.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.host.is_none() && self.boots == 0
    }

    /// Why it is barred now.
    #[must_use]
    pub fn barred(&self, now: Timestamp) -> Option<&Barred> {
        self.barred.as_ref().filter(|barred| now < barred.until)
    }

    /// Counts a boot of `kind` that begins with DHCP transaction `xid`; bars the machine when it is
    /// one more than the limits allow. Repetitions of the transaction count once, and nothing counts
    /// while the machine is barred. `true` when this is a new boot.
    pub fn begin(
        &mut self,
        kind: ClientKind,
        xid: u32,
        limits: &LoopLimits,
        now: Timestamp,
    ) -> bool {
        if self.barred(now).is_some() {
            return false;
        }
        self.barred = None;
        let attempts = self.attempts.entry(kind).or_default();
        if attempts.xid == Some(xid) {
            return false;
        }
        attempts.xid = Some(xid);
        attempts.began.retain(|began| seconds_since(*began, now) < limits.window_seconds);
        attempts.began.push(now);
        self.stage = match kind {
            ClientKind::HttpBoot | ClientKind::Pxe => BootStage::Firmware,
            ClientKind::Stage1 => BootStage::Stage1,
        };
        let before = attempts.began.len() - 1;
        if before >= usize::try_from(limits.attempts.max(1)).unwrap_or(usize::MAX) {
            let until = later(now, limits.hold_seconds);
            let reason = format!(
                "{kind} was reached {before} times within {} s and the boot got no further: no boot \
                 file until {until}",
                limits.window_seconds
            );
            self.barred = Some(Barred { reason, until, by_registry: false });
            attempts.began.clear();
        }
        true
    }

    /// The latest boot came this far. Stages before it are no circle any more.
    pub fn reached(&mut self, stage: BootStage) {
        if stage > self.stage {
            self.stage = stage;
        }
        if stage >= BootStage::Stage1 {
            self.attempts.remove(&ClientKind::HttpBoot);
            self.attempts.remove(&ClientKind::Pxe);
        }
        if stage == BootStage::Enrolled {
            self.attempts.clear();
            self.refused = None;
            self.barred = None;
        }
    }

    /// As the registry and people see it.
    #[must_use]
    pub fn report(&self, mac: MacAddr, address: Option<Ipv4Addr>) -> Machine {
        let (admission, reason) = match (&self.quarantine, &self.refused) {
            (Some(why), _) if self.barred.as_ref().is_some_and(|b| b.by_registry) => {
                (MachineAdmission::Refused, why.clone())
            }
            (Some(why), _) => (MachineAdmission::Quarantined, why.clone()),
            (None, Some(why)) => (MachineAdmission::Refused, why.clone()),
            (None, None) => (MachineAdmission::Admitted, String::new()),
        };
        Machine {
            mac,
            uuid: self.uuid,
            admission,
            reason,
            host: self.host.clone(),
            address,
            stage: self.stage,
            boots: self.boots,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            tenancy: None,
        }
    }
}

/// All machines of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machines(BTreeMap<MacAddr, Known>);

impl Machines {
    /// The machine, if it was ever seen.
    #[must_use]
    pub fn get(&self, mac: MacAddr) -> Option<&Known> {
        self.0.get(&mac)
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, &Known)> {
        self.0.iter().map(|(mac, known)| (*mac, known))
    }

    /// The machine, seen now; created when it is new.
    pub fn see(&mut self, mac: MacAddr, now: Timestamp) -> &mut Known {
        if !self.0.contains_key(&mac) && self.0.len() >= STRANGERS {
            self.forget_a_stranger();
        }
        let known = self.0.entry(mac).or_insert_with(|| Known::new(now));
        known.last_seen = now;
        known
    }

    /// The machine, if it was ever seen; does not count as seeing it.
    pub fn get_mut(&mut self, mac: MacAddr) -> Option<&mut Known> {
        self.0.get_mut(&mac)
    }

    /// The machine that became `host`.
    #[must_use]
    pub fn of_host(&self, host: &HostId) -> Option<MacAddr> {
        let found = self.0.iter().find(|(_, known)| known.host.as_ref() == Some(host));
        found.map(|(mac, _)| *mac)
    }

    fn forget_a_stranger(&mut self) {
        let strangers = self.0.iter().filter(|(_, known)| known.is_stranger());
        let oldest = strangers.min_by_key(|(_, known)| known.last_seen).map(|(mac, _)| *mac);
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;

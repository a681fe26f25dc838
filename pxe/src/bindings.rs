//! Which machine has which address: a durable state machine without a clock or a disk.
//!
//! ```text
//!            offer            bind
//!  (none) ─────────► Offered ──────► Bound ──release──► Released
//!     ▲                 │ withdraw      │                   │
//!     └─────────────────┴── decline ────┘   reused last ────┘
//! ```
//!
//! A binding is called that because a lease is a tenant's. Bindings are keyed by hardware address:
//! firmware, iPXE and the operating system send different client identifiers. Time alone never frees
//! an address that a host once used; an offer that nobody took runs out, and so does the address of a
//! stranger once no other is left ([`Bindings::of_strangers`]), or forged requests would close the
//! pool for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bulkhead_api::id::MacAddr;
use bulkhead_api::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::moment::later;

/// How long an offer keeps its address.
pub const OFFER_SECONDS: i64 = 120;
/// How long an address rests after a client found another machine using it.
pub const DECLINE_SECONDS: i64 = 24 * 3600;

/// Addresses that may be given out, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address.
    pub last: Ipv4Addr,
}

impl Pool {
    /// Whether `address` is one of the pool's.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits)
    }
}

/// How firmly an address belongs to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Hold {
    /// Offered; free again from `until` when nobody asks for it.
    Offered {
        /// End of the offer.
        until: Timestamp,
    },
    /// Acknowledged: the machine uses it.
    Bound,
    /// Given back. Kept for the machine while other addresses are free.
    Released {
        /// When.
        at: Timestamp,
    },
}

/// An address and the machine it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The address.
    pub address: Ipv4Addr,
    /// How firmly.
    #[serde(flatten)]
    pub hold: Hold,
}

/// All bindings of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bindings {
    by_mac: BTreeMap<MacAddr, Binding>,
    /// Addresses that somebody else was found using, and until when they rest.
    declined: BTreeMap<Ipv4Addr, Timestamp>,
}

impl Bindings {
    /// The machine's binding.
    #[must_use]
    pub fn get(&self, mac: MacAddr) -> Option<Binding> {
        self.by_mac.get(&mac).copied()
    }

    /// Who has `address`.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.by_mac.iter().find(|(_, held)| held.address == address).map(|(mac, _)| *mac)
    }

    /// The address to offer to `mac`: its own, else the one it asks for, else the first one nobody
    /// ever had, else one whose offer ran out, else the one given back longest ago.
    #[must_use]
    pub fn candidate(
        &self,
        mac: MacAddr,
        wish: Option<Ipv4Addr>,
        pool: &Pool,
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        let resting = |address: &Ipv4Addr| self.declined.get(address).is_some_and(|t| now < *t);
        let usable = |address: &Ipv4Addr| pool.contains(*address) && !resting(address);
        if let Some(own) = self.get(mac).map(|held| held.address).filter(usable) {
            return Some(own);
        }
        let taken: BTreeSet<Ipv4Addr> = self.by_mac.values().map(|held| held.address).collect();
        let free = |address: &Ipv4Addr| usable(address) && !taken.contains(address);
        if let Some(wish) = wish.filter(free) {
            return Some(wish);
        }
        if let Some(fresh) = pool.addresses().find(free) {
            return Some(fresh);
        }
        let held = self.by_mac.values().filter(|held| usable(&held.address));
        held.filter_map(|held| match held.hold {
            Hold::Offered { until } if until <= now => Some((0, until, held.address)),
            Hold::Released { at } => Some((1, at, held.address)),
            Hold::Offered { .. } | Hold::Bound => None,
        })
        .min()
        .map(|(_, _, address)| address)
    }

    /// An address of the pool whose holder has `left`, as the caller judges it: where to look when
    /// [`Bindings::candidate`] finds none. The holder whose answer is least goes first.
    #[must_use]
    pub fn of_strangers<T: Ord>(
        &self,
        pool: &Pool,
        now: Timestamp,
        left: impl Fn(MacAddr) -> Option<T>,
    ) -> Option<Ipv4Addr> {
        let resting = |address| self.declined.get(address).is_some_and(|t| now < *t);
        let held = self.by_mac.iter().filter(|(_, held)| pool.contains(held.address));
        held.filter(|(_, held)| !resting(&held.address))
            .filter_map(|(mac, held)| Some((left(*mac)?, held.address)))
            .min()
            .map(|(_, address)| address)
    }

    /// Keeps `address` (from [`Bindings::candidate`]) for `mac` while an offer of it is open. A bound
    /// address stays bound.
    pub fn offer(&mut self, mac: MacAddr, address: Ipv4Addr, now: Timestamp) {
        let bound = Binding { address, hold: Hold::Bound };
        if self.get(mac) != Some(bound) {
            let hold = Hold::Offered { until: later(now, OFFER_SECONDS) };
            self.give(mac, Binding { address, hold });
        }
    }

    /// Records that `mac` uses `address` from now on. `true` when that was not so before.
    pub fn bind(&mut self, mac: MacAddr, address: Ipv4Addr) -> bool {
        let bound = Binding { address, hold: Hold::Bound };
        let news = self.get(mac) != Some(bound);
        self.give(mac, bound);
        news
    }

    /// The machine took another server's offer: ours is free. `true` when there was one.
    pub fn withdraw(&mut self, mac: MacAddr) -> bool {
        let offered = self.get(mac).is_some_and(|held| matches!(held.hold, Hold::Offered { .. }));
        offered && self.by_mac.remove(&mac).is_some()
    }

    /// The machine gives `address` back. `true` when it had it.
    pub fn release(&mut self, mac: MacAddr, address: Ipv4Addr, now: Timestamp) -> bool {
        let Some(held) = self.by_mac.get_mut(&mac).filter(|held| held.address == address) else {
            return false;
        };
        held.hold = Hold::Released { at: now };
        true
    }

    /// The machine found another one using `address`: nobody gets it for a day. `true` when the
    /// address was its own to decline.
    pub fn decline(&mut self, mac: MacAddr, address: Ipv4Addr, now: Timestamp) -> bool {
        if self.get(mac).is_none_or(|held| held.address != address) {
            return false;
        }
        self.by_mac.remove(&mac);
        self.declined.retain(|_, until| now < *until);
        self.declined.insert(address, later(now, DECLINE_SECONDS));
        true
    }

    /// Gives the address to one machine and takes it from whoever else had it.
    fn give(&mut self, mac: MacAddr, binding: Binding) {
        self.by_mac.retain(|other, held| *other == mac || held.address != binding.address);
        self.by_mac.insert(mac, binding);
    }
}

#[cfg(test)]
mod tests;

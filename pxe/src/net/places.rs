//! How many peers are served at a time, in all and of one address: no single machine of the boot network
//! may keep the others out.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// The places of one service.
#[derive(Debug)]
pub(crate) struct Places {
    in_all: usize,
    per_peer: usize,
    taken: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    peer: Ipv4Addr,
}

impl Places {
    /// So many in all, and so many of one address.
    pub(crate) fn new(in_all: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { in_all, per_peer, taken: Mutex::default() })
    }

    /// A place for `peer`; `None` where it has its share or all are taken.
    pub(crate) fn enter(self: &Arc<Self>, peer: Ipv4Addr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&peer).copied().unwrap_or_default();
        if all >= self.in_all || own >= self.per_peer {
            return None;
        }
        taken.insert(peer, own + 1);
        Some(Place { places: Arc::clone(self), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, last)
    }

    #[test]
    fn one_peer_gets_its_share_and_a_place_given_back_is_free_again() {
        let places = Places::new(3, 2);
        let (first, _second) = (places.enter(peer(1)).unwrap(), places.enter(peer(1)).unwrap());
        assert!(places.enter(peer(1)).is_none(), "its share");
        let _other = places.enter(peer(2)).unwrap();
        assert!(places.enter(peer(3)).is_none(), "all taken");
        drop(first);
        assert!(places.enter(peer(3)).is_some());
    }

    #[test]
    fn peers_that_were_turned_away_are_not_remembered() {
        let places = Places::new(1, 1);
        let place = places.enter(peer(0)).unwrap();
        for last in 1..=255 {
            assert!(places.enter(peer(last)).is_none());
        }
        drop(place);
        assert!(places.taken.lock().unwrap().is_empty());
    }
}

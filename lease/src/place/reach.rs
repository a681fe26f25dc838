//! What cores and memory of somebody reach beyond themselves: last-level caches, sockets, memory nodes.

use std::collections::BTreeSet;

use bulkhead_api::inventory::Core;

/// A core and what is around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) core: &'a Core,
    /// Its last-level cache, as an index into the inventory's caches; absent where it is not known.
    pub(super) l3: Option<usize>,
    /// No lease has a CPU of it, none is in quarantine, and it is not the host's own.
    pub(super) free: bool,
}

/// Caches, sockets and nodes of some cores.
#[derive(Debug, Default)]
pub(super) struct Reach {
    caches: BTreeSet<usize>,
    /// Sockets with a core whose last-level cache is not known: it may be any of the socket.
    unknown: BTreeSet<u32>,
    sockets: BTreeSet<u32>,
    nodes: BTreeSet<u32>,
}

impl Reach {
    /// With a core more.
    pub(super) fn core(&mut self, spot: &Spot<'_>) {
        match spot.l3 {
            Some(cache) => self.caches.insert(cache),
            None => self.unknown.insert(spot.core.socket),
        };
        self.sockets.insert(spot.core.socket);
    }

    /// With memory of a node more.
    pub(super) fn node(&mut self, node: u32) {
        self.nodes.insert(node);
    }

    /// With all nodes of its sockets, and all sockets of its nodes: memory and cores of one socket are one.
    pub(super) fn widen(&mut self, spots: &[Spot<'_>]) {
        let mut of_nodes = BTreeSet::new();
        for Core { socket, node, .. } in spots.iter().map(|spot| spot.core) {
            if self.nodes.contains(node) && !self.sockets.contains(socket) {
                of_nodes.insert(*socket);
            }
        }
        for Core { socket, node, .. } in spots.iter().map(|spot| spot.core) {
            if self.sockets.contains(socket) && !self.nodes.contains(node) {
                self.nodes.insert(*node);
            }
        }
        self.sockets.extend(of_nodes);
    }

    /// Whether a core is, or may be, behind one of the caches.
    pub(super) fn shares_cache(&self, spot: &Spot<'_>) -> bool {
        let socket = spot.core.socket;
        match spot.l3 {
            Some(cache) => self.caches.contains(&cache) || self.unknown.contains(&socket),
            None => self.sockets.contains(&socket),
        }
    }

    /// Whether a core is on one of the sockets or nodes.
    pub(super) fn shares_socket(&self, spot: &Spot<'_>) -> bool {
        self.sockets.contains(&spot.core.socket) || self.nodes.contains(&spot.core.node)
    }

    /// Whether memory of a node is reached.
    pub(super) fn has_node(&self, node: u32) -> bool {
        self.nodes.contains(&node)
    }
}

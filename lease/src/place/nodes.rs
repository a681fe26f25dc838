//! Which set of NUMA nodes a lease gets, and how its huge pages and cores spread over them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::lease::Isolation;
use bulkhead_api::resource::NodePages;
use bulkhead_api::units::Bytes;

use super::ground::Room;
use super::reach::Spot;
use super::request::Request;

/// Beyond so many nodes with cores for a lease only neighbouring ones are taken together: the number of sets
/// doubles with each.
const EVERY_SET: usize = 8;

/// How many of the wanted devices cannot be on a set of nodes.
type Far<'f> = &'f dyn Fn(&BTreeSet<u32>) -> u32;

/// A node that could give cores.
#[derive(Debug)]
struct Node<'a> {
    id: u32,
    room: Room,
    /// Cores that the lease could have, in the order of the inventory.
    spots: Vec<&'a Spot<'a>>,
    sockets: BTreeSet<u32>,
}

/// The chosen nodes with what each gives.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    /// Nodes that give cores.
    pub(super) nodes: BTreeSet<u32>,
    /// Those of them that have memory.
    pub(super) memory_nodes: BTreeSet<u32>,
    /// The cores.
    pub(super) spots: Vec<&'a Spot<'a>>,
    /// Huge pages, ascending, none empty.
    pub(super) pages: Vec<NodePages>,
}

/// Chooses among the cores that the lease could have: the set of nodes with the fewest devices far from it,
/// then the fewest nodes, the fewest sockets, the fewest cores left over, the lowest numbers.
pub(super) fn choose<'a>(
    spots: &[&'a Spot<'a>],
    rooms: &BTreeMap<u32, Room>,
    request: &Request,
    far: Far<'_>,
) -> Option<Chosen<'a>> {
    let mut nodes: BTreeMap<u32, Node<'a>> = BTreeMap::new();
    for spot in spots {
        let id = spot.core.node;
        let room = rooms.get(&id).copied().unwrap_or_default();
        let new = || Node { id, room, spots: Vec::new(), sockets: BTreeSet::new() };
        let node = nodes.entry(id).or_insert_with(new);
        node.spots.push(spot);
        node.sockets.insert(spot.core.socket);
    }
    let nodes: Vec<Node<'a>> = nodes.into_values().collect();
    let mut best = None;
    for size in 1..=nodes.len().min(usize::try_from(request.cores).unwrap_or(usize::MAX)) {
        let sets = sets(nodes.len(), size);
        let fitting = sets.filter(|set| fits(&nodes, *set, request));
        let ranked = fitting.map(|set| (rank(&nodes, set, size, far), set)).min();
        best = best.into_iter().chain(ranked).min();
        // A larger set is better only by being nearer to devices.
        if best.is_some_and(|((far, ..), _)| far == 0) {
            break;
        }
    }
    best.map(|(_, set)| take(&nodes, set, request))
}

/// Sets of `size` of `count` nodes, a bit a node.
fn sets(count: usize, size: usize) -> Box<dyn Iterator<Item = u64>> {
    let bits = |bits: usize| u32::try_from(bits).ok().and_then(|bits| 1_u64.checked_shl(bits));
    if count > EVERY_SET {
        // Of more nodes than bits the first ones.
        let first = bits(size).map_or(u64::MAX, |end| end - 1);
        let places = count.min(64).saturating_sub(size);
        return Box::new((0..=places).map(move |low| first << low));
    }
    let all = bits(count).unwrap_or(0);
    Box::new((1..all).filter(move |set| usize::try_from(set.count_ones()) == Ok(size)))
}

/// The nodes of a set.
fn of<'n, 'a>(nodes: &'n [Node<'a>], set: u64) -> impl Iterator<Item = &'n Node<'a>> + Clone {
    nodes.iter().take(64).enumerate().filter(move |(bit, _)| set >> bit & 1 == 1).map(|(_, n)| n)
}

/// Whether the nodes together have it all. Where somebody else may use memory of a node, all of the lease's
/// must fit beside it: nothing keeps the lease's pages off that node.
fn fits(nodes: &[Node<'_>], set: u64, request: &Request) -> bool {
    let here = of(nodes, set);
    let cores: usize = here.clone().map(|node| node.spots.len()).sum();
    let memory = here.clone().fold(Bytes::default(), |sum, n| sum.saturating_add(n.room.memory));
    let (pages, page) = request.pages();
    let all = request.memory.saturating_add(Bytes::new(pages.saturating_mul(page)));
    let beside = here.clone().all(|n| !n.room.shared || n.room.memory >= request.memory);
    let room_for_pages = here.clone().map(|node| most_pages(node, request)).sum::<u64>();
    cores >= usize::try_from(request.cores).unwrap_or(usize::MAX)
        && here.clone().any(|node| node.room.any)
        && beside
        && memory >= all
        && room_for_pages >= pages
}

/// How many huge pages a node can give.
fn most_pages(node: &Node<'_>, request: &Request) -> u64 {
    let (pages, page) = request.pages();
    let ordinary = if node.room.shared { request.memory } else { Bytes::default() };
    (node.room.memory.saturating_sub(ordinary).get() / page).min(pages)
}

/// Lower is better.
type Rank = (u32, usize, usize, usize, Reverse<u64>);

fn rank(nodes: &[Node<'_>], set: u64, size: usize, far: Far<'_>) -> Rank {
    let here = of(nodes, set);
    let far = far(&here.clone().map(|node| node.id).collect());
    let sockets: BTreeSet<u32> = here.clone().flat_map(|n| n.sockets.iter().copied()).collect();
    let cores = here.map(|node| node.spots.len()).sum();
    // Of sets of one size, the one with the lower nodes has the higher reversed bits.
    (far, size, sockets.len(), cores, Reverse(set.reverse_bits()))
}

/// Each node gives a core; then node by node, the first ones. Who has caches of its own gets as few as do.
fn take<'a>(nodes: &[Node<'a>], set: u64, request: &Request) -> Chosen<'a> {
    let here: Vec<&Node<'a>> = of(nodes, set).collect();
    let mut cores = usize::try_from(request.cores).unwrap_or(usize::MAX);
    let (mut pages, _) = request.pages();
    let mut chosen = Chosen {
        nodes: here.iter().map(|node| node.id).collect(),
        memory_nodes: here.iter().filter(|node| node.room.any).map(|node| node.id).collect(),
        spots: Vec::new(),
        pages: Vec::new(),
    };
    for (at, node) in (1..).zip(&here) {
        let others = here.len().saturating_sub(at);
        let count = node.spots.len().min(cores.saturating_sub(others));
        if request.isolation > Isolation::Core || request.cache.is_some() {
            chosen.spots.extend(compact(&node.spots, count));
        } else {
            chosen.spots.extend(node.spots.iter().take(count));
        }
        cores = cores.saturating_sub(count);
        let here = most_pages(node, request).min(pages);
        if here > 0 {
            chosen.pages.push(NodePages { node: node.id, pages: here });
        }
        pages = pages.saturating_sub(here);
    }
    chosen
}

/// `count` of the cores behind few caches: all of the smallest cache that does, or of the largest and so on.
/// Cores of one cache, or of none that is known, are taken in their order.
fn compact<'a>(spots: &[&'a Spot<'a>], count: usize) -> Vec<&'a Spot<'a>> {
    let mut caches: BTreeMap<(u32, Option<usize>), Vec<&'a Spot<'a>>> = BTreeMap::new();
    for spot in spots {
        caches.entry((spot.core.socket, spot.l3)).or_default().push(spot);
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let left = count - chosen.len();
        let size = |(_, spots): &(&_, &Vec<_>)| spots.len();
        let enough = caches.iter().filter(|(_, spots)| spots.len() >= left).min_by_key(size);
        let largest = || caches.iter().rev().max_by_key(size);
        let Some((&key, _)) = enough.or_else(largest) else { break };
        chosen.extend(caches.remove(&key).unwrap_or_default().into_iter().take(left));
    }
    chosen
}

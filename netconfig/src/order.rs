//! In which order changes are made: what takes away before what gives, and what others stand on first.

use crate::model::LinkKind;
use crate::plan::{LinkChange, Operation};

/// A stretch of changes that need nothing of each other but their own order. The next begins when all of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Rules, routes, entries and addresses that are in the way go.
    Detach,
    /// Links that go are put together.
    Discard,
    /// They go.
    Delete,
    /// Links that stay leave what they were part of.
    Release,
    /// Longer packets of what others stand on.
    Grow,
    /// Links come.
    Create,
    /// Links join what they are part of.
    Enslave,
    /// Shorter packets, what stands on others first.
    Shrink,
    /// Everything else of links.
    Change,
    /// Links are set up.
    Up,
    /// Addresses come.
    Address,
    /// Routes come.
    Route,
    /// Entries come.
    Neighbour,
    /// Rules come: only now do a tenant's packets find its table.
    Rule,
}

/// The phase of a change: `storey` is that of its link, `shrinks` whether it makes the link's packets shorter.
#[must_use]
pub const fn phase(operation: &Operation, storey: u8, shrinks: bool) -> Phase {
    match operation {
        Operation::DeleteRule(_)
        | Operation::DeleteRoute(..)
        | Operation::DeleteNeighbour(..)
        | Operation::DeleteAddress(..) => Phase::Detach,
        Operation::Discard(_) => Phase::Discard,
        Operation::DeleteGroup { .. } | Operation::DeleteLink(_) => Phase::Delete,
        Operation::Release(_) | Operation::SetDown(_) => Phase::Release,
        Operation::Create(_) => Phase::Create,
        Operation::Enslave(..) => Phase::Enslave,
        Operation::Change(_, LinkChange { mtu: Some(_), .. }) if shrinks => Phase::Shrink,
        Operation::Change(_, LinkChange { mtu: Some(_), .. }) if storey <= GROUND => Phase::Grow,
        Operation::Change(..) => Phase::Change,
        Operation::SetUp(_) => Phase::Up,
        Operation::AddAddress { .. } => Phase::Address,
        Operation::AddRoute(..) => Phase::Route,
        Operation::AddNeighbour(..) => Phase::Neighbour,
        Operation::AddRule(_) => Phase::Rule,
    }
}

/// The last storey of what VLANs stand on.
const GROUND: u8 = 1;

/// How much a link stands on others: lower comes first and goes last.
#[must_use]
pub const fn storey(kind: Option<&LinkKind>) -> u8 {
    match kind {
        // Cards, and what others made.
        None => 0,
        Some(LinkKind::Bond { .. } | LinkKind::Vrf { .. }) => 1,
        Some(LinkKind::Bridge) => 2,
        Some(LinkKind::Vlan { .. } | LinkKind::Vxlan { .. }) => 3,
        Some(LinkKind::Veth { .. } | LinkKind::Tap) => 4,
    }
}

/// One change with what its place depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The change.
    pub operation: Operation,
    /// [`storey`] of its link.
    pub storey: u8,
    /// It makes a link's packets shorter.
    pub shrinks: bool,
}

/// The phase of a change that was ordered already: those of [`Phase::Grow`] and [`Phase::Shrink`] count as
/// [`Phase::Change`].
#[must_use]
pub const fn phase_of(operation: &Operation) -> Phase {
    phase(operation, u8::MAX, false)
}

/// Sorts changes by phase and storey; those of one place keep their order.
#[must_use]
pub fn order(mut changes: Vec<Placed>) -> Vec<Operation> {
    changes.sort_by_key(|change| {
        let phase = phase(&change.operation, change.storey, change.shrinks);
        let storey = if phase == Phase::Shrink { u8::MAX - change.storey } else { change.storey };
        (phase, storey)
    });
    changes.into_iter().map(|change| change.operation).collect()
}

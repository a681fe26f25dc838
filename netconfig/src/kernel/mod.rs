//! The edge: netlink, sysfs, nftables.

pub mod card;
pub mod error;
pub mod netlink;
pub mod nft;
pub mod sysfs;
mod tap;

use crate::model::Observed;
use crate::plan::Operation;

pub use error::{ApplyError, KernelError, Refused};

/// The links, addresses, routes, rules and neighbours of one network namespace.
pub trait Kernel {
    /// Reads everything.
    ///
    /// # Errors
    /// The kernel does not answer, or says no. An object that cannot be understood is no error: it is in
    /// [`Observed::unreadable`].
    fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Makes changes in this order.
    ///
    /// # Errors
    /// The first that could not be made; nothing of a later phase is tried.
    fn apply(&mut self, operations: &[Operation]) -> Result<(), ApplyError>;
}

#[cfg(test)]
pub(crate) mod memory;

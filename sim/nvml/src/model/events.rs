//! What event sets wait for.

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::code::Code;

/// Events that are kept.
pub const KEPT: usize = 256;

/// Corrected single-bit error.
pub const SINGLE_BIT: u64 = 1;
/// Uncorrected double-bit error.
pub const DOUBLE_BIT: u64 = 2;
/// A critical error; its number is the data.
pub const XID: u64 = 8;
/// What the simulator can tell.
pub const SUPPORTED: u64 = SINGLE_BIT | DOUBLE_BIT | XID;
/// The instance id of an event that concerns the whole GPU.
pub const NO_INSTANCE: u32 = u32::MAX;

/// Something that happened to a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its number among all events.
    pub sequence: u64,
    /// UUID of the GPU.
    pub gpu: String,
    /// One bit of [`SUPPORTED`].
    pub kind: u64,
    /// The number of an XID.
    pub data: u64,
    /// GPU instance, or [`NO_INSTANCE`].
    pub instance: u32,
    /// Compute instance, or [`NO_INSTANCE`].
    pub compute: u32,
}

/// A GPU that an event set listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its UUID.
    pub gpu: String,
    /// Kinds of events, a bit each.
    pub kinds: u64,
    /// Events up to this number were told.
    pub told: u64,
}

impl Machine {
    /// Notes that something happened to a GPU.
    ///
    /// # Errors
    /// [`Code::INVALID_ARGUMENT`] without that GPU. A lost one still reports.
    pub fn report(
        &mut self,
        index: u32,
        kind: u64,
        data: u64,
        place: Option<(u32, u32)>,
    ) -> Result<(), Code> {
        let gpu = usize::try_from(index).ok().and_then(|index| self.gpus.get(index));
        let gpu = gpu.ok_or(Code::INVALID_ARGUMENT)?.uuid.clone();
        self.sequence += 1;
        let (instance, compute) = place.unwrap_or((NO_INSTANCE, NO_INSTANCE));
        self.events.push(Event { sequence: self.sequence, gpu, kind, data, instance, compute });
        let surplus = self.events.len().saturating_sub(KEPT);
        self.events.drain(..surplus);
        Ok(())
    }

    /// The oldest event that was not told yet, noting that it is now.
    ///
    /// Its data is that of the GPU's newest XID: of several that nobody waited for, NVML tells the
    /// last number each time (nvml.h, `nvmlEventSetWait`).
    pub fn next_event(&self, registrations: &mut [Registration]) -> Option<Event> {
        let wanted = |event: &Event, to: &Registration| {
            event.gpu == to.gpu && event.kind & to.kinds != 0 && event.sequence > to.told
        };
        let first = |event: &&Event| registrations.iter().any(|to| wanted(event, to));
        let mut event = self.events.iter().find(first)?.clone();
        let of_gpu = registrations.iter_mut().filter(|to| to.gpu == event.gpu);
        of_gpu.for_each(|to| to.told = event.sequence);
        if event.kind == XID {
            let newest =
                self.events.iter().rfind(|other| other.gpu == event.gpu && other.kind == XID);
            event.data = newest.map_or(event.data, |newest| newest.data);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(machine: &Machine, index: usize) -> Registration {
        Registration { gpu: machine.gpus[index].uuid.clone(), kinds: XID, told: machine.sequence }
    }

    #[test]
    fn an_event_is_told_once_to_each_set() {
        let mut machine = Machine::standard();
        machine.report(0, XID, 13, None).unwrap();
        let mut one = [listening(&machine, 0)];
        let mut two = [listening(&machine, 0)];
        machine.report(0, XID, 94, Some((9, 0))).unwrap();
        machine.report(1, XID, 48, None).unwrap();
        let told = machine.next_event(&mut one).unwrap();
        assert_eq!((told.data, told.instance, told.compute), (94, 9, 0));
        assert_eq!(machine.next_event(&mut one), None);
        assert_eq!(machine.next_event(&mut two), Some(told));
    }

    #[test]
    fn of_queued_xids_the_last_number_is_told_for_each() {
        let mut machine = Machine::standard();
        let mut set = [listening(&machine, 0)];
        for xid in [13, 43, 79] {
            machine.report(0, XID, xid, None).unwrap();
        }
        let told: Vec<u64> =
            std::iter::from_fn(|| machine.next_event(&mut set)).map(|event| event.data).collect();
        assert_eq!(told, [79, 79, 79]);
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let mut machine = Machine::standard();
        for _ in 0..KEPT + 3 {
            machine.report(0, XID, 31, None).unwrap();
        }
        assert_eq!(machine.events.len(), KEPT);
        assert_eq!(machine.events[0].sequence, 4);
    }
}

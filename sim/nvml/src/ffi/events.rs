//! Event sets. Waiting is for a change of the state file (inotify), never by looking again and again.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use super::boundary::{Call, unreadable, with_library};
use super::handle::Handle;
use super::nvml;
use super::pointer::Out;
use crate::code::Code;
use crate::model::Machine;
use crate::model::events::{Event, NO_INSTANCE, Registration, SUPPORTED};

/// An event set of this process.
#[derive(Debug, Default)]
pub(super) struct EventSet {
    registrations: Mutex<Vec<Registration>>,
}

/// `nvmlEventSet_t`: a mark and the place in the library's list.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct SetHandle(*mut std::ffi::c_void);

const MARK: usize = 0xE7 << 32;

impl SetHandle {
    fn new(place: usize) -> Self {
        Self(std::ptr::without_provenance_mut(MARK | place))
    }

    fn place(self) -> Option<usize> {
        let bits = self.0.addr();
        (bits & !0xffff_ffff == MARK).then_some(bits & 0xffff_ffff)
    }

    fn get(self) -> Result<Arc<EventSet>, Code> {
        let place = self.place().ok_or(Code::INVALID_ARGUMENT)?;
        let set = with_library(|library| library.event_sets.get(place).cloned().flatten());
        set.ok_or(Code::INVALID_ARGUMENT)
    }
}

impl EventSet {
    /// The next event, if one is there.
    fn next(&self, machine: &Machine) -> Option<Event> {
        let mut registrations = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        machine.next_event(&mut registrations)
    }

    /// Whether a GPU that it listens to is lost.
    fn lost(&self, machine: &Machine) -> bool {
        let registrations = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = machine.gpus.iter().filter(|gpu| gpu.faults.lost);
        lost.any(|gpu| registrations.iter().any(|registration| registration.gpu == gpu.uuid))
    }
}

/// A descriptor that becomes readable when a file of the state's folder is replaced or written.
fn watch(call: &Call) -> Result<OwnedFd, Code> {
    let refused = |_| Code::OPERATING_SYSTEM;
    let folder = call.store.folder();
    std::fs::create_dir_all(folder).map_err(|_| Code::OPERATING_SYSTEM)?;
    let descriptor = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(refused)?;
    let changes = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    add_watch(&descriptor, folder, changes).map_err(refused)?;
    Ok(descriptor)
}

fn wait(call: &Call, set: SetHandle, timeout_ms: u32) -> Result<(Event, u32), Code> {
    let set = set.get()?;
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    // Watching begins before looking, so that no change falls between.
    let descriptor = watch(call)?;
    let mut buffer = [0_u8; 4096];
    loop {
        let machine = call.store.read().map_err(|error| unreadable(&error))?;
        if !machine.driver.loaded || machine.driver.load != call.machine.driver.load {
            return Err(Code::DRIVER_NOT_LOADED);
        }
        if let Some(event) = set.next(&machine) {
            let index = (0..).zip(&machine.gpus).find(|(_, gpu)| gpu.uuid == event.gpu);
            return Ok((event, index.map_or(0, |(index, _)| index)));
        }
        if set.lost(&machine) {
            return Err(Code::GPU_IS_LOST);
        }
        let left = deadline.checked_duration_since(Instant::now()).ok_or(Code::TIMEOUT)?;
        let left = Timespec::try_from(left).map_err(|_| Code::INVALID_ARGUMENT)?;
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(Code::TIMEOUT),
            Ok(_) => while rustix::io::read(&descriptor, &mut buffer).is_ok_and(|read| read > 0) {},
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Code::OPERATING_SYSTEM),
        }
    }
}

fn wait_into(
    call: &Call,
    set: SetHandle,
    out: Out<sys::nvmlEventData_t>,
    timeout_ms: u32,
    with_instances: bool,
) -> Result<(), Code> {
    out.need()?;
    let (event, index) = wait(call, set, timeout_ms)?;
    let place =
        if with_instances { (event.instance, event.compute) } else { (NO_INSTANCE, NO_INSTANCE) };
    out.set(sys::nvmlEventData_t {
        device: Handle::gpu(index).cast(),
        eventType: event.kind,
        eventData: event.data,
        gpuInstanceId: place.0,
        computeInstanceId: place.1,
    })
}

nvml! {
    fn nvmlEventSetCreate(out: Out<SetHandle>) |_| {
        out.need()?;
        let place = with_library(|library| {
            library.event_sets.push(Some(Arc::default()));
            library.event_sets.len() - 1
        });
        out.set(SetHandle::new(place))
    };
    fn nvmlEventSetFree(set: SetHandle) |_| {
        set.get()?;
        let place = set.place().ok_or(Code::INVALID_ARGUMENT)?;
        with_library(|library| library.event_sets.get_mut(place).map(|set| *set = None));
        Ok(())
    };
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, out: Out<u64>)
        |call| { device.device(&call.machine)?.whole()?; out.set(SUPPORTED) };
    fn nvmlDeviceRegisterEvents(device: Handle, kinds: u64, set: SetHandle) |call| {
        let gpu = device.device(&call.machine)?.whole()?;
        let set = set.get()?;
        if kinds & !SUPPORTED != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        if kinds == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let registration = Registration { gpu: gpu.uuid.clone(), kinds, told: call.machine.sequence };
        let mut registrations = set.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        match registrations.iter_mut().find(|other| other.gpu == registration.gpu) {
            Some(known) => known.kinds |= kinds,
            None => registrations.push(registration),
        }
        Ok(())
    };
    fn nvmlEventSetWait(set: SetHandle, out: Out<sys::nvmlEventData_t>, timeout_ms: u32)
        |call| wait_into(call, set, out, timeout_ms, false);
    fn nvmlEventSetWait_v2(set: SetHandle, out: Out<sys::nvmlEventData_t>, timeout_ms: u32)
        |call| wait_into(call, set, out, timeout_ms, true);
}

//! The library while it is open, on the thread that owns it. GPUs are named by their PCI address.
//!
//! Nothing is created or destroyed here by a number alone: what a number leads to is compared with what was expected first, so
//! that an instance that came in the meantime in the place of another is left alone.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use bulkhead_api::chain::Chain;
use bulkhead_api::mig::report::ReportedGeometry;
use bulkhead_api::mig::{Geometry, GeometryError, Instance, Placement};
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use super::error::{Code, GpuError};
use super::model::{
    Activation, Client, ComputeInstance, GpuInstance, Identity, MigMode, Pending, Reading, XidEvent,
};
use super::raw::{Events, Handle, InstanceHandle, Raw};

/// Numbers for asking for profiles: those of NVML 13 and the ones that may follow are tried.
const PROFILES: u32 = 0x12;
/// The same of compute instances.
const COMPUTE_PROFILES: u32 = 0x10;
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION: u32 = 230;
/// XIDs that are taken at once; more come with the next look.
const MOST_EVENTS: usize = 256;

/// The library, open and initialised.
#[derive(Debug)]
pub struct Session {
    raw: Raw,
    /// By PCI address. NVML keeps the handle of a GPU as long as the library is open.
    handles: BTreeMap<String, Handle>,
    /// How each can be cut, which does not change.
    geometries: BTreeMap<String, Arc<Geometry>>,
    /// XIDs that were heard, and of how many GPUs.
    events: Option<(Events, usize)>,
    /// Last: the others end before the library does.
    nvml: Nvml,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((events, _)) = self.events.take() {
            self.raw.end_events(&events);
        }
    }
}

impl Session {
    /// Opens the library.
    ///
    /// # Errors
    /// [`GpuError::NoLibrary`], [`GpuError::DriverNotLoaded`], [`GpuError::Init`].
    pub fn open(path: &Path) -> Result<Self, GpuError> {
        let name: &OsStr = path.as_os_str();
        let nvml = Nvml::builder().lib_path(name).init().map_err(|error| {
            if let NvmlError::LibloadingError(why) = error {
                return GpuError::NoLibrary { path: path.to_owned(), why: why.to_string() };
            }
            let error = GpuError::wrapped("nvmlInit_v2", "all", error);
            error.code().map_or(error, GpuError::Init)
        })?;
        let raw = Raw::open(name)?;
        let (handles, geometries) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { raw, handles, geometries, events: None, nvml })
    }

    /// How many GPUs there are.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn count(&mut self) -> Result<u32, GpuError> {
        let count = self.nvml.device_count();
        count.map_err(|error| GpuError::wrapped("nvmlDeviceGetCount_v2", "all", error))
    }

    /// The PCI address of a GPU by its number, which may be another's after the next start of the driver.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn address(&mut self, index: u32) -> Result<String, GpuError> {
        let name = format!("number {index}");
        let device = self.nvml.device_by_index(index);
        let device = device
            .map_err(|error| GpuError::wrapped("nvmlDeviceGetHandleByIndex_v2", &name, error))?;
        let pci = device.pci_info();
        let pci =
            pci.map_err(|error| GpuError::wrapped("nvmlDeviceGetPciInfo_v3", &name, error))?;
        let bdf = kernel_bdf(&pci.bus_id);
        self.handles.insert(bdf.clone(), Raw::handle(&device));
        Ok(bdf)
    }

    fn handle(&mut self, gpu: &str) -> Result<Handle, GpuError> {
        if !self.handles.contains_key(gpu) {
            for index in 0..self.count()? {
                // What does not answer is not the one that is asked for, or it is told when it is asked.
                if let Err(error @ GpuError::DriverNotLoaded) = self.address(index) {
                    return Err(error);
                }
            }
        }
        let known = self.handles.get(gpu).copied();
        known.ok_or_else(|| GpuError::Absent { gpu: gpu.to_owned() })
    }

    fn device(&mut self, gpu: &str) -> Result<Device<'_>, GpuError> {
        let handle = self.handle(gpu)?;
        Ok(Raw::device(&self.nvml, handle))
    }

    /// Who it is.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn identity(&mut self, gpu: &str) -> Result<Identity, GpuError> {
        let mig = self.mig_mode(gpu)?;
        let device = self.device(gpu)?;
        let failed = |call| move |error| GpuError::wrapped(call, gpu, error);
        Ok(Identity {
            bdf: gpu.to_owned(),
            uuid: device.uuid().map_err(failed("nvmlDeviceGetUUID"))?,
            model: device.name().map_err(failed("nvmlDeviceGetName"))?,
            memory: device.memory_info().map_err(failed("nvmlDeviceGetMemoryInfo_v2"))?.total,
            minor: device.minor_number().map_err(failed("nvmlDeviceGetMinorNumber"))?,
            mig,
        })
    }

    /// Its MIG mode; `None` where it has no MIG.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn mig_mode(&mut self, gpu: &str) -> Result<Option<MigMode>, GpuError> {
        let mode = self.device(gpu)?.mig_mode();
        match mode.map_err(|error| GpuError::wrapped("nvmlDeviceGetMigMode", gpu, error)) {
            Ok(mode) => {
                Ok(Some(MigMode { current: mode.current == 1, pending: mode.pending == 1 }))
            }
            // A library that knows no MIG is of a time before it.
            Err(GpuError::NoSymbol(_)) => Ok(None),
            Err(error) if error.code() == Some(Code::NotSupported) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Switches MIG on or off, and reads it back. NVML's success alone means nothing: the mode may be pending.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn set_mig_mode(&mut self, gpu: &str, on: bool) -> Result<Activation, GpuError> {
        let said = self.device(gpu)?.set_mig_mode(on);
        let said = said.map_err(|error| GpuError::wrapped("nvmlDeviceSetMigMode", gpu, error))?;
        // The driver may have reset the GPU for it.
        self.handles.remove(gpu);
        let mode = self.mig_mode(gpu)?;
        match mode {
            Some(mode) if mode.current == on => Ok(Activation::Active),
            Some(mode) if mode.pending == on => Ok(Activation::Pending(pending(Code::from(said)))),
            _ => {
                let what = format!("that MIG is neither {on} nor about to be");
                Err(GpuError::garbage("nvmlDeviceSetMigMode", gpu, what))
            }
        }
    }

    /// How it can be cut. MIG may be off.
    ///
    /// # Errors
    /// [`GpuError`]; [`GpuError::Garbage`] where what it says contradicts itself.
    pub fn geometry(&mut self, gpu: &str) -> Result<Arc<Geometry>, GpuError> {
        if let Some(known) = self.geometries.get(gpu) {
            return Ok(Arc::clone(known));
        }
        let handle = self.handle(gpu)?;
        let mut reported = ReportedGeometry::default();
        for number in 0..PROFILES {
            let Some(mut profile) = self.raw.profile(gpu, handle, number)? else { continue };
            (profile.announced_places, profile.places) =
                self.raw.places(gpu, handle, profile.id)?;
            reported.profiles.push(profile);
        }
        let call = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let geometry = Arc::new(reported.check().map_err(|error| garbage(call, gpu, &error))?);
        self.geometries.insert(gpu.to_owned(), Arc::clone(&geometry));
        Ok(geometry)
    }

    /// The GPU instances that are there, by place. None where MIG is off.
    ///
    /// # Errors
    /// [`GpuError`]; [`GpuError::Garbage`] where they cannot all be.
    pub fn instances(&mut self, gpu: &str) -> Result<Vec<GpuInstance>, GpuError> {
        if self.mig_mode(gpu)?.is_none_or(|mode| !mode.current) {
            return Ok(Vec::new());
        }
        let (handle, geometry) = (self.handle(gpu)?, self.geometry(gpu)?);
        let (mut reported, mut compute) = (Vec::new(), BTreeMap::new());
        for profile in geometry.profiles() {
            for found in self.raw.instances(gpu, handle, profile.id)? {
                let info = self.raw.instance(gpu, found)?;
                reported.push(info);
                compute.insert(info.id, self.compute(gpu, found)?);
            }
        }
        let checked = geometry.check_instances(&reported);
        let checked = checked.map_err(|error| garbage("nvmlGpuInstanceGetInfo", gpu, &error))?;
        let with = |instance: Instance| GpuInstance {
            compute: compute.remove(&instance.id).unwrap_or_default(),
            instance,
        };
        Ok(checked.into_iter().map(with).collect())
    }

    fn compute(&self, gpu: &str, handle: InstanceHandle) -> Result<Vec<ComputeInstance>, GpuError> {
        let mut compute = Vec::new();
        for number in 0..COMPUTE_PROFILES {
            let Some((profile, _)) = self.raw.compute_profile(gpu, handle, number)? else {
                continue;
            };
            for found in self.raw.compute_instances(gpu, handle, profile)? {
                let (id, profile, uuid) = self.raw.compute_instance(gpu, found)?;
                compute.push(ComputeInstance { id, profile, uuid });
            }
        }
        compute.sort_by_key(|found| found.id);
        compute.dedup_by_key(|found| found.id);
        Ok(compute)
    }

    /// The handle of an instance that is what it is expected to be: same number, profile and place.
    fn find(&mut self, gpu: &str, expected: Instance) -> Result<InstanceHandle, GpuError> {
        let (handle, geometry) = (self.handle(gpu)?, self.geometry(gpu)?);
        for found in self.raw.instances(gpu, handle, expected.placement.profile)? {
            let info = self.raw.instance(gpu, found)?;
            if geometry.check_instances(&[info]).is_ok_and(|read| read == [expected]) {
                return Ok(found);
            }
        }
        Err(GpuError::refused("nvmlDeviceGetGpuInstances", gpu, Code::NotFound))
    }

    /// Creates a GPU instance at a place, and reads it back. What the driver made instead is returned as it is.
    ///
    /// # Errors
    /// [`GpuError`]; [`Code::InsufficientResources`] where somebody is there.
    pub fn create_instance(&mut self, gpu: &str, place: Placement) -> Result<Instance, GpuError> {
        let (handle, geometry) = (self.handle(gpu)?, self.geometry(gpu)?);
        let created = self.raw.create_instance(gpu, handle, place)?;
        let info = self.raw.instance(gpu, created)?;
        let checked = geometry.check_instances(&[info]);
        let checked = checked.map_err(|error| garbage("nvmlGpuInstanceGetInfo", gpu, &error))?;
        let gone = || GpuError::refused("nvmlGpuInstanceGetInfo", gpu, Code::NotFound);
        checked.into_iter().next().ok_or_else(gone)
    }

    /// Creates the compute instance that has all of a GPU instance.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn create_compute(
        &mut self,
        gpu: &str,
        instance: Instance,
    ) -> Result<ComputeInstance, GpuError> {
        let call = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
        let (handle, geometry) = (self.find(gpu, instance)?, self.geometry(gpu)?);
        let slices = geometry.profile(instance.placement.profile).map(|p| p.compute_slices);
        let slices = slices.map_or(0, u32::from);
        let mut full = None;
        for number in 0..COMPUTE_PROFILES {
            if let Some((id, of)) = self.raw.compute_profile(gpu, handle, number)?
                && of == slices
            {
                full = Some(id);
                break;
            }
        }
        let what = || format!("no compute profile of {slices} slices");
        let profile = full.ok_or_else(|| GpuError::garbage(call, gpu, what()))?;
        let created = self.raw.create_compute(gpu, handle, profile)?;
        let (id, profile, uuid) = self.raw.compute_instance(gpu, created)?;
        Ok(ComputeInstance { id, profile, uuid })
    }

    /// Destroys a compute instance of a GPU instance that is what it is expected to be. One that is gone is done.
    ///
    /// # Errors
    /// [`GpuError`]; [`Code::InUse`] while a program has it.
    pub fn destroy_compute(
        &mut self,
        gpu: &str,
        instance: Instance,
        compute: &ComputeInstance,
    ) -> Result<(), GpuError> {
        let handle = self.find(gpu, instance)?;
        for found in self.raw.compute_instances(gpu, handle, compute.profile)? {
            if self.raw.compute_instance(gpu, found)?.0 == compute.id {
                return self.raw.destroy_compute(gpu, found);
            }
        }
        Ok(())
    }

    /// Destroys a GPU instance that is what it is expected to be.
    ///
    /// # Errors
    /// [`GpuError`]; [`Code::InUse`] while something is in it.
    pub fn destroy_instance(&mut self, gpu: &str, instance: Instance) -> Result<(), GpuError> {
        let handle = self.find(gpu, instance)?;
        self.raw.destroy_instance(gpu, handle)
    }

    /// Programs that use it.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn clients(&mut self, gpu: &str) -> Result<Vec<Client>, GpuError> {
        let device = self.device(gpu)?;
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        let compute = device.running_compute_processes();
        let compute = compute.map_err(|error| GpuError::wrapped(call, gpu, error))?;
        let mut clients: Vec<Client> = compute
            .iter()
            .map(|process| Client { pid: process.pid, instance: process.gpu_instance_id })
            .collect();
        clients.sort_unstable();
        clients.dedup();
        Ok(clients)
    }

    /// How it is.
    ///
    /// # Errors
    /// [`GpuError::Lost`] and what else concerns the GPU as a whole; what it does not have is absent.
    pub fn reading(&mut self, gpu: &str) -> Result<Reading, GpuError> {
        let handle = self.handle(gpu)?;
        let device = Raw::device(&self.nvml, handle);
        let field = device.field_values_for(&[FieldId(RECOVERY_ACTION)]);
        let field = told(gpu, "nvmlDeviceGetFieldValues", field)?;
        let sample = field.and_then(|samples| samples.into_iter().next()?.ok()?.value.ok());
        let recovery_action = sample.and_then(|value| match value {
            SampleValue::U32(number) => Some(u64::from(number)),
            SampleValue::U64(number) => Some(number),
            SampleValue::I64(number) => u64::try_from(number).ok(),
            SampleValue::F64(_) => None,
        });
        let ecc = |kind| {
            let counted = device.total_ecc_errors(kind, EccCounter::Volatile);
            told(gpu, "nvmlDeviceGetTotalEccErrors", counted)
        };
        let temperature = device.temperature(TemperatureSensor::Gpu);
        let remapped = match self.raw.remapped(gpu, handle) {
            Err(error) if is_grave(&error) => return Err(error),
            read => read.ok(),
        };
        Ok(Reading {
            recovery_action,
            temperature: told(gpu, "nvmlDeviceGetTemperature", temperature)?,
            power_mw: told(gpu, "nvmlDeviceGetPowerUsage", device.power_usage())?,
            ecc_corrected: ecc(MemoryError::Corrected)?,
            ecc_uncorrected: ecc(MemoryError::Uncorrected)?,
            remapped_rows: remapped.map(|rows| rows.uncorrectable),
            remap_pending: remapped.map(|rows| rows.pending),
            remap_failed: remapped.map(|rows| rows.failed),
            throttle: told(
                gpu,
                "nvmlDeviceGetCurrentClocksThrottleReasons",
                device.current_throttle_reasons().map(|reasons| reasons.bits()),
            )?,
        })
    }

    /// XIDs since the last look. Does not wait.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn xids(&mut self) -> Result<Vec<XidEvent>, GpuError> {
        let count = usize::try_from(self.count()?).unwrap_or(usize::MAX);
        for index in 0..u32::try_from(count).unwrap_or(0) {
            if self.handles.len() < count {
                // One that is lost is not heard, and the others are.
                let _ = self.address(index);
            }
        }
        let heard = self.handles.len();
        if self.events.as_ref().is_some_and(|(_, of)| *of != heard)
            && let Some((events, _)) = self.events.take()
        {
            self.raw.end_events(&events);
        }
        if self.events.is_none() {
            let gpus: Vec<(&str, Handle)> =
                self.handles.iter().map(|(gpu, handle)| (gpu.as_str(), *handle)).collect();
            self.events = Some((self.raw.events(&gpus)?, heard));
        }
        let Some((events, _)) = &self.events else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        while all.len() < MOST_EVENTS
            && let Some(event) = self.raw.event(events)?
        {
            let gpu = self.handles.iter().find(|(_, handle)| event.is_of(**handle));
            // Of a GPU that nobody knows there is nobody to tell.
            let Some((gpu, _)) = gpu else { continue };
            all.push(XidEvent { gpu: gpu.clone(), xid: event.xid, instance: event.instance });
        }
        Ok(all)
    }
}

/// What a mode waits for, by what was said when it was set.
fn pending(said: Code) -> Pending {
    if said == Code::InUse {
        Pending::Clients
    } else if said == Code::ResetRequired {
        Pending::Reset
    } else {
        Pending::Platform
    }
}

/// Concerns the GPU, and not only what was asked.
fn is_grave(error: &GpuError) -> bool {
    error.ends_session() && error.code() != Some(Code::Unknown)
}

/// A reading that a GPU need not have.
fn told<T>(
    gpu: &str,
    call: &'static str,
    read: Result<T, NvmlError>,
) -> Result<Option<T>, GpuError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) => match GpuError::wrapped(call, gpu, error) {
            error if is_grave(&error) => Err(error),
            _ => Ok(None),
        },
    }
}

fn garbage(call: &'static str, gpu: &str, error: &GeometryError) -> GpuError {
    GpuError::garbage(call, gpu, Chain(error).to_string())
}

/// NVML pads the domain to eight digits and writes capitals: `00000000:C1:00.0`.
fn kernel_bdf(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => {
            format!("{}:{rest}", domain.strip_prefix("0000").unwrap_or(domain))
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::kernel_bdf;

    #[test]
    fn bus_ids_of_nvml_become_those_of_the_kernel() {
        assert_eq!(kernel_bdf("00000000:C1:00.0"), "0000:c1:00.0");
        assert_eq!(kernel_bdf("0000:3b:00.0"), "0000:3b:00.0");
        assert_eq!(kernel_bdf("00010000:01:00.0"), "00010000:01:00.0");
    }
}

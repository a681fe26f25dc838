//! The crate nvml-wrapper, and the raw functions of nvml-wrapper-sys, as clients of the library.
#![expect(unsafe_code, reason = "raw functions of a C library")]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{alone, control, library};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;

fn init() -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(library().as_os_str()).init()
}

/// Calls a raw function by its field; the code that it returns.
macro_rules! raw {
    ($lib:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $lib.$name.as_ref().unwrap();
        // SAFETY: each argument is a handle of the library or memory of the type that it asks for.
        unsafe { function($($argument),*) }
    }};
}

struct Raw(sys::NvmlLib);

impl Raw {
    fn open() -> Self {
        // SAFETY: loading runs no code but the Rust runtime's initialisers.
        let lib = Self(unsafe { sys::NvmlLib::new(library()) }.unwrap());
        assert_eq!(raw!(lib.0, nvmlInit_v2()), 0);
        lib
    }

    fn device(&self, index: u32) -> sys::nvmlDevice_t {
        let mut device = std::ptr::null_mut();
        assert_eq!(raw!(self.0, nvmlDeviceGetHandleByIndex_v2(index, &raw mut device)), 0);
        device
    }

    fn mig(&self, device: sys::nvmlDevice_t, on: bool) -> u32 {
        let mut status = 77;
        assert_eq!(raw!(self.0, nvmlDeviceSetMigMode(device, on.into(), &raw mut status)), 0);
        status
    }

    fn create(
        &self,
        device: sys::nvmlDevice_t,
        profile: u32,
        start: u32,
        size: u32,
    ) -> Result<sys::nvmlGpuInstance_t, u32> {
        let place = sys::nvmlGpuInstancePlacement_t { start, size };
        let mut instance = std::ptr::null_mut();
        let code = raw!(
            self.0,
            nvmlDeviceCreateGpuInstanceWithPlacement(
                device,
                profile,
                &raw const place,
                &raw mut instance
            )
        );
        if code == 0 { Ok(instance) } else { Err(code) }
    }

    fn compute(
        &self,
        instance: sys::nvmlGpuInstance_t,
        profile: u32,
    ) -> sys::nvmlComputeInstance_t {
        let mut compute = std::ptr::null_mut();
        let code =
            raw!(self.0, nvmlGpuInstanceCreateComputeInstance(instance, profile, &raw mut compute));
        assert_eq!(code, 0);
        compute
    }

    fn uuid(&self, device: sys::nvmlDevice_t) -> Result<String, u32> {
        let mut text = [0; 96];
        match raw!(self.0, nvmlDeviceGetUUID(device, text.as_mut_ptr(), 96)) {
            0 => {
                let bytes = text.iter().take_while(|byte| **byte != 0);
                Ok(bytes.map(|byte| char::from(byte.cast_unsigned())).collect())
            }
            code => Err(code),
        }
    }
}

#[test]
fn the_safe_crate_reads_a_gpu() {
    alone("wrapper::the_safe_crate_reads_a_gpu", |state| {
        control(state, &["measure", "0", "--temperature", "61", "--power", "512000"]);
        let nvml = init().unwrap();
        assert_eq!(nvml.device_count().unwrap(), 2);
        let gpu = nvml.device_by_index(0).unwrap();
        assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
        let pci = gpu.pci_info().unwrap();
        assert_eq!((pci.bus_id.as_str(), pci.pci_device_id), ("00000000:17:00.0", 0x2330_10de));
        let same = nvml.device_by_pci_bus_id("0000:17:00.0").unwrap();
        assert_eq!(same.uuid().unwrap(), gpu.uuid().unwrap());
        assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 61);
        assert_eq!(gpu.power_usage().unwrap(), 512_000);
        assert_eq!(gpu.memory_info().unwrap().total, 81_559 << 20);
        assert_eq!(gpu.clock_info(Clock::Memory).unwrap(), 2619);
        assert_eq!(
            gpu.total_ecc_errors(
                nvml_wrapper::enum_wrappers::device::MemoryError::Uncorrected,
                nvml_wrapper::enum_wrappers::device::EccCounter::Volatile,
            )
            .unwrap(),
            0
        );
        assert_eq!(gpu.running_compute_processes().unwrap().len(), 0);
        assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)));
        assert!(matches!(nvml.device_by_index(2), Err(NvmlError::InvalidArg)));
        assert!(matches!(nvml.device_by_uuid("GPU-0"), Err(NvmlError::NotFound)));
        assert_eq!(u32::from(gpu.link_wrapper_for(18).is_active().unwrap_err()), 2);
        assert!(gpu.link_wrapper_for(17).is_active().unwrap());
    });
}

#[test]
fn a_slice_is_made_found_used_and_taken_away() {
    alone("wrapper::a_slice_is_made_found_used_and_taken_away", |state| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        assert_eq!(lib.create(gpu, 9, 0, 4), Err(3), "MIG is off");
        assert_eq!(lib.mig(gpu, true), 0);
        assert_eq!(lib.create(gpu, 9, 1, 4), Err(2));
        let instance = lib.create(gpu, 9, 4, 4).unwrap();
        assert_eq!(lib.create(gpu, 5, 0, 4).map(drop), Ok(()));
        assert_eq!(lib.create(gpu, 19, 4, 1), Err(23));

        let compute = lib.compute(instance, 2);
        // SAFETY: a structure of numbers and pointers, for which all zeros are values.
        let mut info: sys::nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
        assert_eq!(raw!(lib.0, nvmlComputeInstanceGetInfo_v2(compute, &raw mut info)), 0);
        let mut is_mig = 0;
        assert_eq!(raw!(lib.0, nvmlDeviceIsMigDeviceHandle(info.device, &raw mut is_mig)), 0);
        assert_eq!(is_mig, 1);
        let uuid = lib.uuid(info.device).unwrap();
        assert!(uuid.starts_with("MIG-"), "{uuid}");
        let nvml = init().unwrap();
        let found = nvml.device_by_uuid(uuid.as_str()).unwrap();
        assert_eq!(found.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 3g.40gb");
        assert_eq!(found.memory_info().unwrap().total, 40_448 << 20);
        assert!(matches!(found.power_usage(), Err(NvmlError::NotSupported)));
        assert_eq!(found.attributes().unwrap().compute_instance_slice_count, 3);

        control(state, &["process", "add", "--gi", "2", "--ci", "0", "--pid", "4711"]);
        let users = found.running_compute_processes().unwrap();
        assert_eq!((users[0].pid, users[0].gpu_instance_id), (4711, Some(2)));
        assert_eq!(raw!(lib.0, nvmlComputeInstanceDestroy(compute)), 19);
        control(state, &["process", "remove", "--pid", "4711"]);
        assert_eq!(raw!(lib.0, nvmlGpuInstanceDestroy(instance)), 19);
        assert_eq!(raw!(lib.0, nvmlComputeInstanceDestroy(compute)), 0);
        assert_eq!(raw!(lib.0, nvmlGpuInstanceDestroy(instance)), 0);

        // The place has a successor with the same id and UUID; the old handles are not its.
        let next = lib.create(gpu, 9, 4, 4).unwrap();
        lib.compute(next, 2);
        assert_eq!(lib.uuid(info.device), Err(2));
        assert_eq!(raw!(lib.0, nvmlGpuInstanceDestroy(instance)), 2);
        assert!(nvml.device_by_uuid(uuid.as_str()).is_ok());
    });
}

#[test]
fn profiles_and_placements_follow_the_protocol_of_their_versions() {
    alone("wrapper::profiles_and_placements_follow_the_protocol_of_their_versions", |_| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        // SAFETY: a structure of numbers, for which all zeros are values.
        let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
        let call = |info: &mut sys::nvmlGpuInstanceProfileInfo_v2_t, number| {
            raw!(lib.0, nvmlDeviceGetGpuInstanceProfileInfoV(gpu, number, std::ptr::from_mut(info)))
        };
        assert_eq!(call(&mut info, 2), 25);
        info.version = 0x0200_0098;
        assert_eq!(call(&mut info, 2), 0);
        assert_eq!((info.id, info.sliceCount, info.memorySizeMB), (9, 3, 40_448));
        assert_eq!(call(&mut info, 5), 3);
        assert_eq!(call(&mut info, 0x12), 2);

        let mut count = 0;
        let none = std::ptr::null_mut();
        let places = |buffer, count: &mut u32| {
            let count = std::ptr::from_mut(count);
            raw!(lib.0, nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, 19, buffer, count))
        };
        assert_eq!((places(none, &mut count), count), (0, 7));
        let mut buffer = [sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 }; 7];
        count = 6;
        assert_eq!((places(buffer.as_mut_ptr(), &mut count), count), (7, 7));
        assert_eq!(places(buffer.as_mut_ptr(), &mut count), 0);
        assert_eq!((buffer[6].start, buffer[6].size), (6, 1));
    });
}

#[test]
fn an_event_wakes_who_waits_for_it_and_says_which_slice() {
    alone("wrapper::an_event_wakes_who_waits_for_it_and_says_which_slice", |state| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        lib.mig(gpu, true);
        lib.compute(lib.create(gpu, 19, 6, 1).unwrap(), 0);
        let nvml = init().unwrap();
        let set = nvml.create_event_set().unwrap();
        let mut own = std::ptr::null_mut();
        assert_eq!(raw!(lib.0, nvmlEventSetCreate(&raw mut own)), 0);
        assert_eq!(raw!(lib.0, nvmlDeviceRegisterEvents(gpu, 8, own)), 0);
        let device = nvml.device_by_index(0).unwrap();
        let set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).unwrap();
        assert!(matches!(set.wait(50), Err(NvmlError::Timeout)));
        std::thread::scope(|scope| {
            scope.spawn(|| control(state, &["xid", "94", "--gi", "13"]));
            let began = Instant::now();
            let event = set.wait(60_000).unwrap();
            assert!(began.elapsed() < Duration::from_secs(30), "the change woke nobody");
            assert_eq!(event.event_type, EventTypes::CRITICAL_XID_ERROR);
            let data = format!("{:?}", event.event_data);
            assert!(data.contains("94"), "{data}");
            assert_eq!(event.device.uuid().unwrap(), device.uuid().unwrap());
        });
        // The crate leaves the instances out.
        // SAFETY: a structure of numbers and a pointer, for which all zeros are values.
        let mut event: sys::nvmlEventData_t = unsafe { std::mem::zeroed() };
        assert_eq!(raw!(lib.0, nvmlEventSetWait_v2(own, &raw mut event, 0)), 0);
        assert_eq!((event.eventData, event.gpuInstanceId, event.computeInstanceId), (94, 13, 0));
        control(state, &["lost", "0"]);
        assert!(matches!(set.wait(60_000), Err(NvmlError::GpuLost)));
    });
}

#[test]
fn a_lost_gpu_is_lost_on_every_path_and_its_neighbour_is_not() {
    alone("wrapper::a_lost_gpu_is_lost_on_every_path_and_its_neighbour_is_not", |state| {
        let nvml = init().unwrap();
        let gpu = nvml.device_by_index(1).unwrap();
        let uuid = gpu.uuid().unwrap();
        control(state, &["lost", "1"]);
        assert!(matches!(gpu.name(), Err(NvmlError::GpuLost)));
        assert!(matches!(nvml.device_by_index(1), Err(NvmlError::GpuLost)));
        assert!(matches!(nvml.device_by_uuid(uuid.as_str()), Err(NvmlError::GpuLost)));
        assert!(matches!(nvml.device_by_pci_bus_id("65:00.0"), Err(NvmlError::GpuLost)));
        assert_eq!(nvml.device_count().unwrap(), 2);
        nvml.device_by_index(0).unwrap().name().unwrap();
        control(state, &["reboot"]);
        assert!(matches!(gpu.name(), Err(NvmlError::DriverNotLoaded)));
        let again = init().unwrap();
        assert_eq!(again.device_by_index(1).unwrap().uuid().unwrap(), uuid);
    });
}

#[test]
fn without_a_driver_or_with_a_damaged_state_nothing_starts() {
    alone("wrapper::without_a_driver_or_with_a_damaged_state_nothing_starts", |state| {
        control(state, &["driver", "unload"]);
        assert!(matches!(init(), Err(NvmlError::DriverNotLoaded)));
        control(state, &["driver", "load"]);
        let nvml = init().unwrap();
        std::fs::write(state, b"{\"version\": 1, \"gpus\": [{}]}").unwrap();
        assert_eq!(nvml.device_count().err().map(u32::from), Some(999));
        assert!(init().is_err());
        control(state, &["init", "a30"]);
        // Another machine with another driver: who was there before must start again.
        assert!(matches!(nvml.device_count(), Err(NvmlError::DriverNotLoaded)));
        assert_eq!(init().unwrap().device_count().unwrap(), 1);
    });
}

#[test]
fn a_reload_of_the_driver_ends_slices_and_sessions() {
    alone("wrapper::a_reload_of_the_driver_ends_slices_and_sessions", |state| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        lib.mig(gpu, true);
        let instance = lib.create(gpu, 0, 0, 8).unwrap();
        control(state, &["driver", "reload"]);
        assert_eq!(raw!(lib.0, nvmlGpuInstanceDestroy(instance)), 9);
        let lib = Raw::open();
        let (mut now, mut then) = (7, 7);
        let code = raw!(lib.0, nvmlDeviceGetMigMode(gpu, &raw mut now, &raw mut then));
        assert_eq!((code, now, then), (0, 0, 0));
    });
}

#[test]
fn injected_faults_hit_the_calls_they_name() {
    alone("wrapper::injected_faults_hit_the_calls_they_name", |state| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        lib.mig(gpu, true);
        let function = "nvmlDeviceCreateGpuInstanceWithPlacement";
        control(state, &["fail", function, "--code", "20", "--after", "1", "--calls", "2"]);
        lib.create(gpu, 19, 0, 1).unwrap();
        assert_eq!(lib.create(gpu, 19, 1, 1), Err(20));
        assert_eq!(lib.create(gpu, 19, 1, 1), Err(20));
        lib.create(gpu, 19, 1, 1).unwrap();

        control(state, &["latency", "nvmlDeviceGetMigMode", "60000"]);
        let (mut now, mut then) = (0, 0);
        let began = Instant::now();
        assert_eq!(raw!(lib.0, nvmlDeviceGetMigMode(gpu, &raw mut now, &raw mut then)), 0);
        assert!(began.elapsed() >= Duration::from_millis(60));
        control(state, &["recovery", "0", "4"]);
        // SAFETY: numbers and a union of numbers, for which all zeros are values.
        let mut fields: [sys::nvmlFieldValue_t; 3] = unsafe { std::mem::zeroed() };
        for (field, id) in fields.iter_mut().zip([230, 184, 5000]) {
            field.fieldId = id;
        }
        assert_eq!(raw!(lib.0, nvmlDeviceGetFieldValues(gpu, 3, fields.as_mut_ptr())), 0);
        // SAFETY: the library says that it wrote this member.
        let values = unsafe { (fields[0].value.uiVal, fields[1].value.uiVal) };
        assert_eq!(values, (4, 1));
        assert_eq!(fields[2].nvmlReturn, 2);
    });
}

#[test]
fn calls_with_nothing_behind_their_pointers_are_refused() {
    alone("wrapper::calls_with_nothing_behind_their_pointers_are_refused", |_| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        assert_eq!(raw!(lib.0, nvmlDeviceGetCount_v2(std::ptr::null_mut())), 2);
        assert_eq!(raw!(lib.0, nvmlDeviceGetUUID(gpu, std::ptr::null_mut(), 96)), 2);
        assert_eq!(raw!(lib.0, nvmlDeviceSetMigMode(gpu, 1, std::ptr::null_mut())), 2);
        assert_eq!(
            raw!(lib.0, nvmlDeviceGetMemoryInfo(std::ptr::null_mut(), std::ptr::null_mut())),
            2
        );
        assert_eq!(raw!(lib.0, nvmlDeviceGetFieldValues(gpu, -1, std::ptr::null_mut())), 2);
        let mut text = [0; 4];
        assert_eq!(raw!(lib.0, nvmlDeviceGetUUID(gpu, text.as_mut_ptr(), 4)), 7);
        let mut count = 0;
        for _ in 0..2 {
            assert_eq!(raw!(lib.0, nvmlInit_v2()), 0);
        }
        for _ in 0..3 {
            assert_eq!(raw!(lib.0, nvmlDeviceGetCount_v2(&raw mut count)), 0);
            assert_eq!(raw!(lib.0, nvmlShutdown()), 0);
        }
        assert_eq!(raw!(lib.0, nvmlDeviceGetCount_v2(&raw mut count)), 1);
        assert_eq!(raw!(lib.0, nvmlShutdown()), 1);
    });
}

#[test]
fn a_container_is_shown_the_slice_whose_nodes_it_has() {
    alone("wrapper::a_container_is_shown_the_slice_whose_nodes_it_has", |state| {
        let lib = Raw::open();
        let gpu = lib.device(0);
        lib.mig(gpu, true);
        lib.compute(lib.create(gpu, 9, 0, 4).unwrap(), 2);
        lib.compute(lib.create(gpu, 9, 4, 4).unwrap(), 2);
        let devices = state.parent().unwrap().join("dev");
        let folder = devices.to_str().unwrap();
        control(state, &["nodes", "make", folder, "--plain"]);
        control(state, &["nodes", "guard", folder]);
        let seen = || seen_slices(&lib, gpu);
        assert_eq!(seen(), 2);
        remove(&devices, "nvidia-caps/nvidia-cap22");
        assert_eq!(seen(), 1);
        remove(&devices, "nvidia1");
        let mut count = 0;
        assert_eq!(raw!(lib.0, nvmlDeviceGetCount_v2(&raw mut count)), 0);
        assert_eq!(count, 1);
    });
}

fn remove(folder: &Path, node: &str) {
    std::fs::remove_file(folder.join(node)).unwrap();
}

fn seen_slices(lib: &Raw, gpu: sys::nvmlDevice_t) -> usize {
    (0..7)
        .filter(|&index| {
            let mut device = std::ptr::null_mut();
            raw!(lib.0, nvmlDeviceGetMigDeviceHandleByIndex(gpu, index, &raw mut device)) == 0
        })
        .count()
}

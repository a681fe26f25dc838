//! A simulated host with GPUs: the simulator's library in this process, its state and the kernel's files in a folder.
//!
//! The library finds its state by an environment variable, which a threaded program must not change: each test runs once more in
//! a process of its own that has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::gpu::{HeldGpu, HeldSlice};
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::InstanceKind;
use bulkhead_api::mig::Placement;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::Resource;
use bulkhead_supervisor::class::{ClassError, Order, Progress};
use bulkhead_supervisor::gpu::class::Gpus;
use bulkhead_supervisor::gpu::driver::Driver;
use bulkhead_supervisor::gpu::nvml::Nvml;
use bulkhead_supervisor::gpu::scrub::{Scrubbed, Scrubber};
use bulkhead_supervisor::paths::Paths;
use nvidia_ml::memory::{GpuMemory, Range};
use nvidia_ml::model::Gpu;
use nvidia_ml::profiles::model;
use nvidia_ml::state::VARIABLE;
use nvidia_ml::{Machine, Store, access};

/// Names the test that a process is to run.
const TEST: &str = "BULKHEAD_GPU_TEST";

/// The host.
pub(crate) struct Sim {
    folder: PathBuf,
    pub(crate) paths: Paths,
    pub(crate) store: Store,
    pub(crate) nvml: Arc<Nvml>,
}

/// Runs a test on a host with GPUs of those models, in a process of its own.
pub(crate) fn on(test: &str, models: &[&str], run: impl FnOnce(&Sim)) {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        assert_eq!(std::env::var(TEST).as_deref(), Ok(test));
        return run(&Sim::of(Path::new(&folder).parent().unwrap()));
    }
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), models);
    let ended = child(folder.path(), test).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[expect(clippy::disallowed_methods, reason = "this test again, with another environment")]
fn child(folder: &Path, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, folder.join("state.json")).env(TEST, test);
    command
}

fn prepare(folder: &Path, models: &[&str]) {
    let models: Vec<_> = models.iter().map(|key| model(key).unwrap()).collect();
    let machine = Machine::with(&models);
    let minors: Vec<u32> = (0..).take(models.len()).collect();
    Store::at(folder.join("state.json"))
        .update(|now| {
            *now = machine;
            Ok::<(), ()>(())
        })
        .unwrap()
        .unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.join("root").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/driver/nvidia-caps/mig-minors", &access::mig_minors(&minors));
    write("proc/devices", "Character devices:\n195 nvidia\n506 nvidia-caps\n\nBlock devices:\n");
}

impl Sim {
    pub(crate) fn of(folder: &Path) -> Self {
        let mut paths = Paths::below(&folder.join("root"));
        paths.nvml = library();
        let nvml = Nvml::with_deadline(&paths.nvml, Duration::from_secs(5));
        Self {
            folder: folder.to_owned(),
            store: Store::at(folder.join("state.json")),
            nvml: Arc::new(nvml),
            paths,
        }
    }

    /// The class, as a supervisor that starts now makes it.
    pub(crate) fn class(&self) -> Gpus {
        self.class_over(Arc::clone(&self.nvml) as Arc<dyn Driver>)
    }

    pub(crate) fn class_over(&self, driver: Arc<dyn Driver>) -> Gpus {
        Gpus::new(&self.paths, driver, Arc::new(Memory(Store::at(self.folder.join("state.json")))))
    }

    /// PCI address of a GPU in the kernel's form.
    pub(crate) fn bdf(&self, index: usize) -> String {
        self.nvml.gpus().unwrap()[index].clone()
    }

    pub(crate) fn gpu(&self, index: usize) -> Gpu {
        self.store.read().unwrap().gpus[index].clone()
    }

    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Machine) -> Result<T, nvidia_ml::Code>,
    ) -> T {
        self.store.update(change).unwrap().unwrap()
    }

    pub(crate) fn memory(&self, index: usize) -> GpuMemory {
        GpuMemory::open(&self.store, &self.gpu(index)).unwrap()
    }

    /// What a tenant leaves in a slice.
    pub(crate) fn mark(&self, index: usize, start: u8, text: &[u8]) {
        let range = Range { start: u32::from(start), size: 1 };
        self.memory(index).write(range, 7, text).unwrap();
    }

    pub(crate) fn marked(&self, index: usize, start: u8, length: usize) -> Vec<u8> {
        let range = Range { start: u32::from(start), size: 1 };
        self.memory(index).read(range, 7, length).unwrap()
    }
}

/// The simulator, beside this test.
fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libnvidia_ml.so");
    assert!(library.is_file(), "{} is not built", library.display());
    library
}

/// Erases the simulator's memory and reads it again.
#[derive(Debug)]
struct Memory(Store);

impl Scrubber for Memory {
    fn scrub(&self, held: &HeldGpu, _: &Progress) -> Result<Scrubbed, ClassError> {
        let failed = |doing: &str, why: &dyn std::error::Error| ClassError::Refused {
            doing: doing.to_owned(),
            why: why.to_string(),
        };
        let machine = self.0.read().map_err(|error| failed("read the simulator", &error))?;
        let gpu = machine.gpus.iter().find(|gpu| held.gpu.ends_with(&short(gpu))).unwrap();
        let memory =
            GpuMemory::open(&self.0, gpu).map_err(|error| failed("open memory", &error))?;
        let range = held.slice.as_ref().map_or_else(
            || Range::whole(gpu),
            |slice| Range {
                start: u32::from(slice.placement.start),
                size: u32::from(slice.placement.size),
            },
        );
        memory.erase(range).map_err(|error| failed("erase memory", &error))?;
        let dirty = memory.first_dirty(range).map_err(|error| failed("read memory", &error))?;
        assert_eq!(dirty, None);
        let (what, found) = ("memory read again".to_owned(), "zeros".to_owned());
        let method = "overwrite".to_owned();
        Ok(Scrubbed { method, evidence: vec![Evidence { what, found }], unproven: None })
    }
}

/// The end of the PCI address, which all forms of it have in common.
fn short(gpu: &Gpu) -> String {
    let text = gpu.bdf.short().to_lowercase();
    text.split_once(':').unwrap().1.to_owned()
}

pub(crate) fn lease(name: &str) -> LeaseId {
    LeaseId { tenant: "acme".parse().unwrap(), name: name.parse().unwrap() }
}

pub(crate) fn slice(gpu: &str, name: &str, profile: u32, start: u8, size: u8) -> HeldGpu {
    let placement = Placement { profile, start, size };
    let slice = Some(HeldSlice { profile: name.parse().unwrap(), placement });
    HeldGpu { gpu: gpu.to_owned(), slice }
}

pub(crate) fn order(name: &str, gpu: &HeldGpu) -> Order {
    Order {
        lease: lease(name),
        resource: Resource::Gpu(gpu.clone()),
        instance: InstanceKind::Container,
        first_id: 0x6000_0000,
        weaker_erase: false,
        progress: Progress::default(),
    }
}

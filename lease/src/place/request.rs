//! What a lease asks for, and what is taken already.

use std::collections::BTreeMap;

use bulkhead_api::gpu::WantedGpus;
use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::{
    CacheShare, Holding, Hugepages, InstanceKind, Isolation, LeaseSpec, Volume,
};
use bulkhead_api::resource::Resource;
use bulkhead_api::units::Bytes;

/// What a lease wants of the classes that are placed here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Whole physical cores. Of a whole host: at least so many.
    pub cores: u32,
    /// Memory: the bound of the lease's control group. Of a whole host: at least so much.
    pub memory: Bytes,
    /// What no other lease may share.
    pub isolation: Isolation,
    /// Huge pages, besides `memory`.
    pub hugepages: Option<Hugepages>,
    /// Cache of its own.
    pub cache: Option<CacheShare>,
    /// Storage.
    pub volumes: Vec<Volume>,
    /// Functions of devices.
    pub devices: Vec<WantedDevice>,
    /// GPUs and slices of them.
    pub gpus: Vec<WantedGpus>,
    /// The host as a whole; of the other fields only `cores` and `memory` count.
    pub whole: bool,
}

/// Functions of devices of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDevice {
    /// Kind: `vf`, `gpu`.
    pub kind: String,
    /// How many.
    pub count: u32,
}

impl Request {
    /// What a lease asks for.
    #[must_use]
    pub fn of(spec: &LeaseSpec) -> Self {
        Self {
            cores: spec.cpus,
            memory: spec.memory_bound(),
            isolation: spec.isolation,
            hugepages: spec.hugepages,
            cache: spec.cache,
            volumes: spec.volumes.clone(),
            devices: Vec::new(),
            // What is out of range is refused before anything is placed.
            gpus: spec.gpus.iter().filter_map(|gpus| gpus.wanted().ok()).collect(),
            whole: spec.instance == InstanceKind::BareMetal,
        }
    }

    /// How many huge pages, and the bytes of one.
    pub(super) fn pages(&self) -> (u64, u64) {
        self.hugepages.map_or((0, 1), |huge| {
            let page = huge.page_size.bytes().get();
            (huge.amount.get().div_ceil(page), page)
        })
    }
}

/// What cannot be given out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// What leases hold.
    pub held: BTreeMap<LeaseId, Holding>,
    /// What nobody gets.
    pub quarantined: Vec<Resource>,
}

//! How long the supervisor's decisions take: `plan` over 16 leases and `prove` over what is observed of them, on a host of
//! 128 cores with two threads each, 2 nodes and 8 GPUs. Prints medians in microseconds as JSON. In the profile of the
//! tests, which optimises less than a release: what holds here holds there.
#![expect(clippy::unwrap_used, reason = "a bench on values that it makes itself")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use bulkhead_api::id::LeaseId;
use bulkhead_api::inventory::{Core, CpuTopology, Gpu, Inventory, NumaNode, PciFunction};
use bulkhead_api::isolation::{
    DeviceFacts, DeviceKind, Facts, Holder, HolderFacts, IdRange, Namespace, ProcessFacts, Way,
};
use bulkhead_api::lease::LeaseSpec;
use bulkhead_api::units::Bytes;
use bulkhead_lease::prove::prove;
use bulkhead_supervisor::ledger::{Entry, Ledger};
use bulkhead_supervisor::tenant::model::{
    Desired, Limits, Observed, ObservedFiles, ObservedLease, ObservedService, ObservedSlice,
    ServiceState, Step,
};
use bulkhead_supervisor::tenant::plan::plan;
use serde_json::json;

const LEASES: u32 = 16;
const CORES: u32 = 128;
const GPUS: u32 = 8;
const ROUNDS: usize = 500;

fn id(number: u32) -> LeaseId {
    let tenant = if number.is_multiple_of(2) { "acme" } else { "rival" };
    LeaseId { tenant: tenant.parse().unwrap(), name: format!("lease-{number}").parse().unwrap() }
}

fn spec() -> LeaseSpec {
    serde_json::from_value(json!({
        "instance": "container",
        "cpus": 6,
        "memory": "32Gi",
        "workload": { "image": "oci://bulkhead.site/demo:latest" },
    }))
    .unwrap()
}

fn inventory() -> Inventory {
    let half = CORES / 2;
    let core = |n| Core {
        socket: n / half,
        id: n % half,
        node: n / half,
        cpus: BTreeSet::from([n, n + CORES]),
    };
    let node = |id: u32| NumaNode {
        id,
        total: Bytes::new(512 << 30),
        cpus: (id * half..(id + 1) * half).flat_map(|n| [n, n + CORES]).collect(),
        hugepages: Vec::new(),
    };
    let bdf = |n: u32| format!("0000:{:02x}:00.0", n + 1);
    let function = |n: u32| PciFunction {
        bdf: bdf(n),
        vendor: 0x10de,
        device: 0x2330,
        class: 0x03_02_00,
        driver: None,
        iommu_group: Some(n),
        node: Some(n % 2),
        parent: None,
        acs: None,
    };
    let gpu = |n: u32| Gpu {
        uuid: format!("GPU-{n}"),
        model: "H100".to_owned(),
        bdf: bdf(n),
        memory: Bytes::new(80 << 30),
        mig: Some(false),
        geometry: None,
        instances: Vec::new(),
        closed: None,
    };
    Inventory {
        cpu: CpuTopology { cores: (0..CORES).map(core).collect(), ..CpuTopology::default() },
        memory: vec![node(0), node(1)],
        pci: (0..GPUS).map(function).collect(),
        gpus: (0..GPUS).map(gpu).collect(),
        ..Inventory::default()
    }
}

/// As a granted lease looks.
fn granted(entry: &Entry) -> ObservedLease {
    ObservedLease {
        slice: Some(ObservedSlice {
            limits: Limits::of(entry),
            hugepages: None,
            active: true,
            populated: true,
        }),
        service: Some(ObservedService {
            state: ServiceState::Running,
            pid: Some(7),
            restarts: 0,
            exit: None,
        }),
        files: ObservedFiles::Bundled(Box::new(entry.clone())),
        ..ObservedLease::default()
    }
}

/// What one lease is seen to hold, with a program and the host's own that runs it.
fn held(number: u32, entry: &Entry) -> HolderFacts {
    let first = 0x1000_0000 + number * 0x1_0000;
    let namespaces: BTreeMap<Namespace, u64> = (1_u64..)
        .zip(Namespace::ALL)
        .map(|(kind, name)| (name, u64::from(number + 1) * 100 + kind))
        .collect();
    let ids = vec![IdRange { first, count: 0x1_0000 }];
    let program = ProcessFacts {
        pids: (0..8).map(|n| number * 100 + n + 1000).collect(),
        cpus: Some(entry.holding.cpus.clone()),
        memory_nodes: Some(entry.holding.memory_nodes.clone()),
        user_ids: ids.clone(),
        group_ids: ids,
        namespaces,
        root: Some(format!("0:{}", number + 50)),
        ..ProcessFacts::default()
    };
    let runtime = ProcessFacts {
        pids: vec![number * 100 + 999],
        runtime: true,
        cpus: Some(entry.holding.cpus.clone()),
        memory_nodes: Some(entry.holding.memory_nodes.clone()),
        ..ProcessFacts::default()
    };
    HolderFacts {
        cpus: Some(entry.holding.cpus.clone()),
        memory_nodes: Some(entry.holding.memory_nodes.clone()),
        memory_max: Some(entry.holding.memory),
        processes: vec![program, runtime],
        ..HolderFacts::new(Holder::Lease(entry.id.clone()))
    }
}

fn facts(inventory: &Inventory, ledger: &Ledger) -> Facts {
    let observer = ProcessFacts {
        pids: vec![1],
        cpus: Some(BTreeSet::from([0, CORES])),
        memory_nodes: Some(BTreeSet::from([0, 1])),
        user_ids: vec![IdRange { first: 0, count: 1 }],
        group_ids: vec![IdRange { first: 0, count: 1 }],
        namespaces: (1..).zip(Namespace::ALL).map(|(number, name)| (name, number)).collect(),
        root: Some("0:1".to_owned()),
        ..ProcessFacts::default()
    };
    let host = HolderFacts {
        cpus: Some(BTreeSet::from([0, CORES])),
        memory_nodes: Some(BTreeSet::from([0, 1])),
        processes: vec![observer],
        ..HolderFacts::new(Holder::Host)
    };
    let leases = (0..).zip(&ledger.entries).map(|(number, entry)| held(number, entry));
    let gpus = inventory.gpus.iter().zip((0..).zip(&ledger.entries));
    let devices = gpus.map(|(gpu, (group, entry))| {
        let mut facts = DeviceFacts::new(&gpu.bdf, DeviceKind::Gpu);
        facts.bdf = Some(gpu.bdf.clone());
        facts.iommu_group = Some(group);
        facts.reach(&Holder::Lease(entry.id.clone()), Way::Open);
        facts
    });
    Facts {
        cores: inventory.cpu.cores.clone(),
        caches: inventory.cpu.caches.clone(),
        memory: inventory.memory.clone(),
        granted: ledger.entries.iter().map(|entry| entry.id.clone()).collect(),
        holders: std::iter::once(host).chain(leases).collect(),
        devices: devices.collect(),
        functions: inventory.pci.clone(),
        ..Facts::default()
    }
}

/// Median of many rounds, in microseconds.
fn median(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn main() {
    let inventory = inventory();
    let all: Desired = (0..LEASES).map(|number| (id(number), spec())).collect();
    let first = plan(&all, &Observed::default(), &Ledger::default(), &inventory);
    let mut ledger = Ledger::default();
    for step in &first.steps {
        if let Step::Record(entry) = step {
            ledger.record((**entry).clone());
        }
    }
    assert_eq!(ledger.entries.len(), 16, "all of them fit: {:?}", first.refused);
    let seen = ledger.entries.iter().map(|entry| (entry.id.clone(), granted(entry)));
    let observed = Observed { leases: seen.collect(), ..Observed::default() };
    let settled = plan(&all, &observed, &ledger, &inventory);
    assert!(settled.steps.is_empty(), "{:?}", settled.steps);
    // One is not wanted any more, another one is.
    let mut change = all.clone();
    change.remove(&id(3));
    change.insert(id(LEASES), spec());
    let facts = facts(&inventory, &ledger);
    let finding = prove(&facts);
    assert!(finding.violations.is_empty(), "{:?}", finding.violations);

    let plan_new = median(|| {
        black_box(plan(&all, &Observed::default(), &Ledger::default(), &inventory));
    });
    let plan_change = median(|| {
        black_box(plan(&change, &observed, &ledger, &inventory));
    });
    let prove_all = median(|| {
        black_box(prove(&facts));
    });
    let found = json!({ "plan_us": plan_change, "plan_new_us": plan_new, "prove_us": prove_all });
    println!("{found}");
}

//! Faults, measurements and the driver.

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use nvidia_ml::Machine;
use nvidia_ml::model::events::{DOUBLE_BIT, SINGLE_BIT, XID};
use nvidia_ml::model::{Failure, Gpu};

use crate::{find, refused};

/// What to do with the driver.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DriverAction {
    /// Unload it: every call says that there is none.
    Unload,
    /// Load it; GPUs are as after a reload.
    Load,
    /// Unload and load it: instances are gone, on Hopper and later MIG mode as well.
    Reload,
}

/// A place on a GPU.
#[derive(Args)]
pub(crate) struct Place {
    /// Index, PCI address or UUID.
    #[arg(long, default_value = "0")]
    pub(crate) gpu: String,
    /// GPU instance.
    #[arg(long)]
    pub(crate) gi: Option<u32>,
    /// Compute instance.
    #[arg(long, default_value_t = 0)]
    pub(crate) ci: u32,
}

impl Place {
    pub(crate) fn slice(&self) -> Option<(u32, u32)> {
        self.gi.map(|instance| (instance, self.ci))
    }
}

/// Switches.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Switch {
    /// It has the fault.
    On,
    /// It has not.
    Off,
}

#[derive(Subcommand)]
pub(crate) enum Fault {
    /// Report a critical error, of the whole GPU or of an instance.
    Xid {
        /// Its number.
        number: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Count memory errors.
    Ecc {
        #[command(flatten)]
        place: Place,
        /// Corrected errors.
        #[arg(long, default_value_t = 0)]
        corrected: u64,
        /// Uncorrected errors.
        #[arg(long, default_value_t = 0)]
        uncorrected: u64,
        /// In SRAM instead of device memory.
        #[arg(long)]
        sram: bool,
    },
    /// Replace a row of memory.
    Rows {
        /// Index, PCI address or UUID.
        #[arg(long, default_value = "0")]
        gpu: String,
        /// Rows replaced for corrected errors.
        #[arg(long, default_value_t = 0)]
        corrected: u32,
        /// Rows replaced for uncorrected errors.
        #[arg(long, default_value_t = 0)]
        uncorrected: u32,
        /// It waits for a reset.
        #[arg(long)]
        pending: bool,
        /// It could not be done.
        #[arg(long)]
        failed: bool,
    },
    /// Let a GPU fall off the bus.
    Lost {
        /// Index, PCI address or UUID.
        gpu: String,
        /// Whether it is.
        #[arg(default_value = "on")]
        switch: Switch,
    },
    /// Let a GPU need a reset.
    ResetRequired {
        /// Index, PCI address or UUID.
        gpu: String,
        /// Whether it does.
        #[arg(default_value = "on")]
        switch: Switch,
    },
    /// Refuse the reset that a change of MIG mode needs before Hopper.
    NoImplicitReset {
        /// Index, PCI address or UUID.
        gpu: String,
        /// Whether it does.
        #[arg(default_value = "on")]
        switch: Switch,
    },
    /// Let profiles promise wrong numbers of instances, as an A30's do.
    WrongCounts {
        /// Index, PCI address or UUID.
        gpu: String,
        /// Whether they do.
        #[arg(default_value = "on")]
        switch: Switch,
    },
    /// Let a GPU recommend an action: 0 none, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
    Recovery {
        /// Index, PCI address or UUID.
        gpu: String,
        /// The number.
        action: u32,
    },
    /// Let calls of a function take time.
    Latency {
        /// The exported function with its suffix, or `*` for all that have none of their own.
        function: String,
        /// Microseconds; 0 takes the latency away.
        microseconds: u64,
    },
    /// Let calls of a function fail, in every process together.
    Fail {
        /// The exported function with its suffix.
        function: String,
        /// The code that it returns.
        #[arg(long, default_value_t = 999)]
        code: u32,
        /// Calls that succeed before.
        #[arg(long, default_value_t = 0)]
        after: u32,
        /// Calls that fail.
        #[arg(long, default_value_t = 1)]
        calls: u32,
    },
    /// Set measurements.
    Measure(Measure),
}

#[derive(Args)]
pub(crate) struct Measure {
    /// Index, PCI address or UUID.
    gpu: String,
    /// Core temperature, degrees Celsius.
    #[arg(long)]
    temperature: Option<u32>,
    /// Memory temperature, degrees Celsius.
    #[arg(long)]
    memory_temperature: Option<u32>,
    /// Power, milliwatts.
    #[arg(long)]
    power: Option<u32>,
    /// Use of the cores, per cent.
    #[arg(long)]
    utilization: Option<u32>,
    /// Reasons for which clocks are low, a bit each.
    #[arg(long)]
    throttle: Option<u64>,
    /// Generation of the PCIe link.
    #[arg(long)]
    pcie_generation: Option<u32>,
    /// Lanes of the PCIe link.
    #[arg(long)]
    pcie_width: Option<u32>,
    /// Packets sent again over PCIe.
    #[arg(long)]
    pcie_replays: Option<u32>,
    /// An NVLink that is down.
    #[arg(long)]
    nvlink_down: Option<usize>,
    /// CRC errors of NVLinks.
    #[arg(long)]
    nvlink_errors: Option<u64>,
    /// NUMA node.
    #[arg(long)]
    numa_node: Option<u32>,
}

pub(crate) fn driver(machine: &mut Machine, action: DriverAction) {
    match action {
        DriverAction::Unload => machine.driver.loaded = false,
        DriverAction::Load if machine.driver.loaded => {}
        DriverAction::Load | DriverAction::Reload => machine.reload_driver(),
    }
}

pub(crate) fn inject(machine: &mut Machine, fault: Fault) -> Result<()> {
    match fault {
        Fault::Xid { number, place } => report(machine, &place, XID, number),
        Fault::Ecc { place, corrected, uncorrected, sram } => {
            ecc(machine, &place, corrected, uncorrected, sram)
        }
        Fault::Rows { gpu, corrected, uncorrected, pending, failed } => {
            let rows = &mut find(machine, &gpu)?.1.rows;
            rows.corrected += corrected;
            rows.uncorrected += uncorrected;
            rows.pending |= pending;
            rows.failed |= failed;
            Ok(())
        }
        Fault::Lost { gpu, switch } => set(machine, &gpu, switch, |gpu| &mut gpu.faults.lost),
        Fault::ResetRequired { gpu, switch } => {
            set(machine, &gpu, switch, |gpu| &mut gpu.faults.reset_required)
        }
        Fault::NoImplicitReset { gpu, switch } => {
            set(machine, &gpu, switch, |gpu| &mut gpu.faults.no_implicit_reset)
        }
        Fault::WrongCounts { gpu, switch } => {
            set(machine, &gpu, switch, |gpu| &mut gpu.faults.wrong_counts)
        }
        Fault::Recovery { gpu, action } => {
            find(machine, &gpu)?.1.faults.recovery = Some(action);
            Ok(())
        }
        Fault::Latency { function, microseconds: 0 } => {
            machine.latency_us.remove(&function);
            Ok(())
        }
        Fault::Latency { function, microseconds } => {
            machine.latency_us.insert(function, microseconds);
            Ok(())
        }
        Fault::Fail { calls: 0, .. } => bail!("no call is to fail"),
        Fault::Fail { function, code, after, calls } => {
            machine.failures.push(Failure { function, code, after, calls });
            Ok(())
        }
        Fault::Measure(measure) => apply(machine, &measure),
    }
}

fn set(
    machine: &mut Machine,
    gpu: &str,
    switch: Switch,
    field: impl FnOnce(&mut Gpu) -> &mut bool,
) -> Result<()> {
    *field(find(machine, gpu)?.1) = matches!(switch, Switch::On);
    Ok(())
}

fn report(machine: &mut Machine, place: &Place, kind: u64, data: u64) -> Result<()> {
    let (index, gpu) = find(machine, &place.gpu)?;
    if let Some((instance, compute)) = place.slice() {
        let there = gpu.mig_devices().any(|(other, own)| other.id == instance && own.id == compute);
        if !there {
            bail!("GPU {} has no instance {instance}/{compute}", place.gpu);
        }
    }
    machine.report(index, kind, data, place.slice()).map_err(refused("report"))
}

fn ecc(
    machine: &mut Machine,
    place: &Place,
    corrected: u64,
    uncorrected: u64,
    sram: bool,
) -> Result<()> {
    let ecc = &mut find(machine, &place.gpu)?.1.ecc;
    for counts in [&mut ecc.volatile, &mut ecc.aggregate] {
        let (well, badly) = if sram {
            (&mut counts.corrected_sram, &mut counts.uncorrected_sram)
        } else {
            (&mut counts.corrected_dram, &mut counts.uncorrected_dram)
        };
        *well += corrected;
        *badly += uncorrected;
    }
    if corrected > 0 {
        report(machine, place, SINGLE_BIT, corrected)?;
    }
    if uncorrected > 0 {
        report(machine, place, DOUBLE_BIT, uncorrected)?;
    }
    Ok(())
}

fn apply(machine: &mut Machine, measure: &Measure) -> Result<()> {
    fn put<T: Copy>(to: &mut T, from: Option<T>) {
        *to = from.unwrap_or(*to);
    }
    let gpu = find(machine, &measure.gpu)?.1;
    put(&mut gpu.sensors.temperature_c, measure.temperature);
    put(&mut gpu.sensors.memory_temperature_c, measure.memory_temperature);
    put(&mut gpu.sensors.power_mw, measure.power);
    put(&mut gpu.sensors.gpu_percent, measure.utilization);
    put(&mut gpu.sensors.throttle, measure.throttle);
    put(&mut gpu.links.generation, measure.pcie_generation);
    put(&mut gpu.links.width, measure.pcie_width);
    put(&mut gpu.links.replays, measure.pcie_replays);
    put(&mut gpu.links.nvlink_errors, measure.nvlink_errors);
    put(&mut gpu.numa_node, measure.numa_node);
    if let Some(down) = measure.nvlink_down {
        let link = gpu.links.nvlinks.get_mut(down);
        *link.ok_or_else(|| anyhow!("GPU {} has no NVLink {down}", measure.gpu))? = false;
    }
    Ok(())
}

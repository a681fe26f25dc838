//! A virtual machine, and QEMU's command line for it. Pure.
//!
//! Two machines (QEMU docs/system/i386/{microvm,pc}.rst):
//!
//! * `microvm` where it will do: a kernel booted without firmware, and no device but the few virtio ones that have a place on its
//!   virtio-mmio bus. No PCI, no legacy devices: an emulator of a quarter of the size, and little in it that a guest can talk to.
//! * `q35` for all else: UEFI, disks that the image boots from, memory of several nodes, devices on PCI.
//!
//! Both have KVM, the host's processor, a serial console on standard output, a power button, and a QMP socket that only the host
//! sees. Options: QEMU, qemu-options.hx.

use bulkhead_api::id::{LeaseId, VolumeName};
use bulkhead_api::resource::{NodePages, PageSize};
use bulkhead_api::units::Bytes;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::host::cpulist;
use crate::tenant::vm::image::{Boot, DiskFormat};
use crate::tenant::vm::topology::Topology;

/// Where the image's files are in the jail.
pub const IMAGE: &str = "/image";
/// Where volumes' block devices are in the jail.
pub const DISKS: &str = "/disks";
/// Where the QMP socket is in the jail.
pub const QMP: &str = "/qmp";
/// Name of the QMP socket.
pub const SOCKET: &str = "sock";

const Q35_PROGRAM: &str = "/usr/bin/qemu-system-x86_64";
const MICROVM_PROGRAM: &str = "/usr/bin/qemu-system-x86_64-microvm";
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Transports of a microvm's virtio-mmio bus (QEMU hw/i386/microvm.c: 8 with one IOAPIC, 24 with two).
const MICROVM_DEVICES: usize = 8;

/// What QEMU denies itself once it runs: to gain rights, to start programs, to change priorities and affinities, old calls.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Where the guest's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// Ordinary memory of these nodes.
    Pages {
        /// How much.
        bytes: Bytes,
        /// Nodes.
        nodes: BTreeSet<u32>,
    },
    /// Huge pages of the lease's own, taken at once when the machine starts.
    Huge {
        /// Size of each.
        page_size: PageSize,
        /// How many by node, ascending.
        pages: Vec<NodePages>,
    },
}

/// A device of the guest besides console, power button and random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A volume of the lease, as a disk with the volume's name for a serial number.
    Volume(VolumeName),
}

impl Device {
    /// Whether it has a place on a bus of virtio devices alone. What is handed through has not.
    const fn is_virtio(&self) -> bool {
        match self {
            Self::Volume(_) => true,
        }
    }
}

/// QEMU's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Virtio alone.
    MicroVm,
    /// A PC with PCI Express.
    Q35,
}

impl Machine {
    /// The bus in virtio devices' names.
    const fn bus(self) -> &'static str {
        match self {
            Self::MicroVm => "device",
            Self::Q35 => "pci",
        }
    }
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Whose.
    pub id: LeaseId,
    /// What it boots.
    pub boot: Boot,
    /// Its memory.
    pub memory: Memory,
    /// Its CPUs.
    pub cpus: Topology,
    /// Its devices.
    pub devices: Vec<Device>,
}

impl Guest {
    /// The machine that will do.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let kernel = matches!(self.boot, Boot::Kernel { .. });
        let one_node = match &self.memory {
            Memory::Pages { .. } => true,
            Memory::Huge { pages, .. } => pages.len() == 1,
        };
        // One place is the random numbers'.
        let room = self.devices.len() < MICROVM_DEVICES;
        if kernel && one_node && room && self.devices.iter().all(Device::is_virtio) {
            Machine::MicroVm
        } else {
            Machine::Q35
        }
    }

    /// The program and its arguments.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let machine = self.machine();
        let mut line = Line::default();
        line.word(match machine {
            Machine::MicroVm => MICROVM_PROGRAM,
            Machine::Q35 => Q35_PROGRAM,
        });
        line.pair("-name", &format!("guest={},debug-threads=on", self.id.name));
        for word in ["-nodefaults", "-no-user-config"] {
            line.word(word);
        }
        line.pair("-sandbox", SANDBOX);
        line.pair("-display", "none");
        self.processor(machine, &mut line);
        self.memory(machine, &mut line);
        line.pair("-chardev", "stdio,id=console,signal=off");
        line.pair("-serial", "chardev:console");
        line.pair("-chardev", &format!("socket,id=qmp,path={QMP}/{SOCKET},server=on,wait=off"));
        line.pair("-mon", "chardev=qmp,mode=control");
        line.pair("-object", "rng-builtin,id=random");
        line.pair("-device", &format!("virtio-rng-{},rng=random", machine.bus()));
        self.boot(machine, &mut line);
        for (number, device) in self.devices.iter().enumerate() {
            match device {
                Device::Volume(name) => volume(number, name, machine, &mut line),
            }
        }
        line.0
    }

    fn processor(&self, machine: Machine, line: &mut Line) {
        let Topology { order, sockets, cores, threads } = &self.cpus;
        let count = order.len();
        let main = match (machine, self.memory.nodes()) {
            // The clock of the guest is the host's from the first moment on.
            (Machine::MicroVm, _) => "microvm,rtc=on,memory-backend=memory0",
            (Machine::Q35, 1) => "q35,vmport=off,memory-backend=memory0",
            (Machine::Q35, _) => "q35,vmport=off",
        };
        line.pair("-machine", main);
        line.pair("-accel", "kvm");
        line.pair("-cpu", "host");
        let smp = format!("cpus={count},sockets={sockets},cores={cores},threads={threads}");
        line.pair("-smp", &smp);
    }

    fn memory(&self, machine: Machine, line: &mut Line) {
        // QEMU's M is 1024 * 1024; bytes are exact.
        line.pair("-m", &format!("{}B", self.memory.bytes().get()));
        match &self.memory {
            Memory::Pages { bytes, nodes } => {
                let mut options =
                    format!("memory-backend-ram,id=memory0,size={bytes}B", bytes = bytes.get());
                options += &bind(nodes);
                line.pair("-object", &options);
            }
            Memory::Huge { page_size, pages } => {
                let each = page_size.bytes().get();
                for (number, NodePages { node, pages }) in pages.iter().enumerate() {
                    let size = pages.saturating_mul(each);
                    let nodes = bind(&BTreeSet::from([*node]));
                    line.pair(
                        "-object",
                        &format!(
                            "memory-backend-memfd,id=memory{number},size={size}B,hugetlb=on,hugetlbsize={each}B,prealloc=on{nodes}"
                        ),
                    );
                }
            }
        }
        if machine == Machine::Q35 && self.memory.nodes() > 1 {
            // The guest sees each node's memory as a node; which of them a CPU is near to it is not told.
            let last = self.cpus.order.len().saturating_sub(1);
            for number in 0..self.memory.nodes() {
                let cpus = if number == 0 { format!(",cpus=0-{last}") } else { String::new() };
                line.pair("-numa", &format!("node,nodeid={number},memdev=memory{number}{cpus}"));
            }
        }
    }

    fn boot(&self, machine: Machine, line: &mut Line) {
        match &self.boot {
            Boot::Kernel { cmdline } => {
                line.pair("-kernel", &format!("{IMAGE}/boot/vmlinuz"));
                line.pair("-initrd", &format!("{IMAGE}/boot/initrd"));
                line.pair("-append", cmdline);
            }
            Boot::Disk { file, format } => {
                line.pair(
                    "-drive",
                    &format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}"),
                );
                line.pair(
                    "-drive",
                    &format!("if=pflash,unit=1,format=raw,snapshot=on,file={VARIABLES}"),
                );
                let source = json_option(&disk(file, *format));
                line.pair(
                    "-drive",
                    // What is written goes to a file of the lease's own memory. Full is an error of the guest's disk: the
                    // default would stop the guest for ever.
                    &format!(
                        "if=none,id=boot,snapshot=on,werror=report,rerror=report,file=json:{source}"
                    ),
                );
                let bus = machine.bus();
                line.pair(
                    "-device",
                    &format!("virtio-blk-{bus},drive=boot,serial=boot,bootindex=0"),
                );
            }
        }
    }
}

impl Memory {
    /// In all.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Pages { bytes, .. } => *bytes,
            Self::Huge { page_size, pages } => {
                let pages: u64 = pages.iter().map(|node| node.pages).sum();
                Bytes::new(pages.saturating_mul(page_size.bytes().get()))
            }
        }
    }

    /// Stretches of memory that the guest has.
    fn nodes(&self) -> usize {
        match self {
            Self::Pages { .. } => 1,
            Self::Huge { pages, .. } => pages.len(),
        }
    }
}

/// The lease's control group allows no other nodes either; here they are said again so that QEMU ends rather than runs where
/// they are not to be had.
fn bind(nodes: &BTreeSet<u32>) -> String {
    let nodes = cpulist::render(nodes);
    // A list of several is given item by item.
    let items: String = nodes.split(',').map(|item| format!(",host-nodes={item}")).collect();
    if nodes.is_empty() { String::new() } else { format!("{items},policy=bind") }
}

/// The image's disk, without the backing file that its header may name.
fn disk(file: &str, format: DiskFormat) -> Value {
    let mut node = json!({
        "driver": format.driver(),
        "file": { "driver": "file", "filename": format!("{IMAGE}/disk/{file}") },
    });
    if let (DiskFormat::Qcow2, Some(node)) = (format, node.as_object_mut()) {
        node.insert("backing".to_owned(), Value::Null);
    }
    node
}

/// A value within an option: its commas are written twice.
fn json_option(value: &Value) -> String {
    value.to_string().replace(',', ",,")
}

fn volume(number: usize, name: &VolumeName, machine: Machine, line: &mut Line) {
    let node = json!({
        "driver": "host_device",
        "node-name": format!("volume{number}"),
        "filename": format!("{DISKS}/{name}"),
        // The guest's own cache is enough, and its writes are where it was told they are.
        "cache": { "direct": true },
        "discard": "unmap",
    });
    line.pair("-blockdev", &node.to_string());
    let bus = machine.bus();
    // A serial number has 20 bytes (virtio 1.3, 5.2.6.1).
    let serial: String = name.as_str().chars().take(20).collect();
    line.pair(
        "-device",
        &format!(
            "virtio-blk-{bus},drive=volume{number},serial={serial},werror=report,rerror=report"
        ),
    );
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn word(&mut self, word: &str) {
        self.0.push(word.to_owned());
    }

    fn pair(&mut self, option: &str, value: &str) {
        self.word(option);
        self.word(value);
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
pub(crate) mod tests;

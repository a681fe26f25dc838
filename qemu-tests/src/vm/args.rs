//! From a server's description to QEMU's command line: pure.

use std::path::Path;

use crate::artifacts::Firmware;
use crate::qemu::Accel;
use crate::vm::{Lane, VmConfig};

/// The files and sockets that one server uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    /// The server's own folder.
    pub dir: &'a Path,
    /// OVMF for the UEFI lanes.
    pub firmware: Option<&'a Firmware>,
    /// Kernel, initrd and command line for the direct lane.
    pub direct: Option<(&'a Path, &'a Path, &'a str)>,
    /// State to start from instead of power-on.
    pub load: Option<&'a str>,
}

/// A path inside a QEMU option: a comma is doubled.
fn opt(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// QEMU's arguments for a server.
pub(crate) fn arguments(config: &VmConfig, accel: Accel, files: Files<'_>) -> Vec<String> {
    let mut words = Words::default();
    machine(&mut words, config, accel);
    topology(&mut words, config);
    words.add(["-uuid", &config.uuid.to_string()]);
    words.add(["-nodefaults", "-display", "none", "-monitor", "none"]);
    let serial = format!("file,id=ser0,path={}", opt(&files.dir.join("console.log")));
    words.add(["-chardev", &serial, "-serial", "chardev:ser0"]);
    let qmp = format!("unix:{},server=on,wait=off", opt(&files.dir.join("qmp.sock")));
    words.add(["-qmp", &qmp]);
    if config.iommu {
        // The IOMMU comes before the devices that it translates for.
        words.add(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
    }
    boot_nic(&mut words, config);
    firmware(&mut words, config, files);
    devices(&mut words, config, files.dir);
    if let Some(state) = files.load {
        words.add(["-loadvm", state]);
    }
    words.0
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(str::to_owned));
    }
}

fn machine(words: &mut Words, config: &VmConfig, accel: Accel) {
    let mut machine = "q35".to_owned();
    if config.secure_boot {
        machine.push_str(",smm=on");
        words.add(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    }
    if config.iommu {
        machine.push_str(",kernel-irqchip=split");
    }
    words.add(["-machine", &machine]);
    match accel {
        Accel::Kvm => words.add(["-accel", "kvm", "-cpu", "host"]),
        // EPYC has SVM and RDRAND (without it OVMF has no network) and is faster than `max`.
        Accel::Tcg => words.add(["-accel", "tcg,thread=multi", "-cpu", "EPYC"]),
    }
}

/// One NUMA node a socket, each with its share of the memory.
fn topology(words: &mut Words, config: &VmConfig) {
    let t = config.topology;
    let total = t.sockets * t.cores * t.threads;
    let smp =
        format!("{total},sockets={},dies=1,cores={},threads={}", t.sockets, t.cores, t.threads);
    words.add(["-smp", &smp, "-m", &format!("{}M", config.memory_mib)]);
    if t.sockets < 2 {
        return;
    }
    let share = config.memory_mib / t.sockets;
    let first = config.memory_mib - share * (t.sockets - 1);
    for node in 0..t.sockets {
        let size = if node == 0 { first } else { share };
        words.add(["-object", &format!("memory-backend-ram,id=m{node},size={size}M")]);
        words.add(["-numa", &format!("node,nodeid={node},memdev=m{node}")]);
        words.add(["-numa", &format!("cpu,node-id={node},socket-id={node}")]);
    }
}

fn boot_nic(words: &mut Words, config: &VmConfig) {
    let net = format!("tap,id=n0,ifname=tap{},script=no,downscript=no", config.tap);
    // No option ROM: OVMF drives virtio itself.
    let nic = format!("virtio-net-pci,netdev=n0,mac={},bootindex=1,romfile=", config.mac);
    words.add(["-netdev", &net, "-device", &nic]);
}

fn firmware(words: &mut Words, config: &VmConfig, files: Files<'_>) {
    if let Some((kernel, initrd, cmdline)) = files.direct {
        let (kernel, initrd) = (kernel.display().to_string(), initrd.display().to_string());
        words.add(["-kernel", &kernel, "-initrd", &initrd, "-append", cmdline]);
    }
    let off: &[&str] = match config.lane {
        Lane::Direct => return,
        Lane::UefiHttp => &["IPv4PXESupport", "IPv6PXESupport", "IPv6Support"],
        Lane::UefiPxe => &["IPv6PXESupport", "IPv6Support"],
    };
    if let Some(firmware) = files.firmware {
        let code = opt(&firmware.code);
        let code = format!("if=pflash,format=raw,unit=0,readonly=on,file={code}");
        // qcow2: QEMU keeps no snapshot beside a writable raw flash.
        let vars = opt(&files.dir.join("vars.qcow2"));
        let vars = format!("if=pflash,format=qcow2,unit=1,file={vars}");
        words.add(["-drive", &code, "-drive", &vars]);
    }
    for name in off {
        words.add(["-fw_cfg", &format!("name=opt/org.tianocore/{name},string=n")]);
    }
}

fn devices(words: &mut Words, config: &VmConfig, dir: &Path) {
    if config.disk_gib.is_some() {
        let disk = opt(&dir.join("disk.qcow2"));
        words.add(["-drive", &format!("if=none,id=d0,format=qcow2,file={disk}")]);
        words.add(["-device", "virtio-blk-pci,drive=d0,serial=blank"]);
    }
    if config.snapshots {
        let states = opt(&dir.join("states.qcow2"));
        words.add(["-drive", &format!("if=none,id=states,format=qcow2,file={states}")]);
    }
    if config.tpm {
        let sock = opt(&dir.join("tpm/sock"));
        words.add(["-chardev", &format!("socket,id=tpm0,path={sock}")]);
        words.add(["-tpmdev", "emulator,id=tpm,chardev=tpm0", "-device", "tpm-crb,tpmdev=tpm"]);
    }
    if config.igb {
        let [a, b, c, d, e, f] = config.mac.octets();
        // The same address with another third octet: locally administered and never the boot NIC's.
        let mac = bulkhead_api::id::MacAddr::new([a, b, c ^ 0xaa, d, e, f]);
        words.add(["-device", "pcie-root-port,id=rp1,chassis=1,slot=1"]);
        words.add(["-netdev", "user,id=n1,restrict=on"]);
        words.add(["-device", &format!("igb,netdev=n1,bus=rp1,mac={mac}")]);
    }
    if config.nvme {
        let raw = opt(&dir.join("nvme.raw"));
        words.add(["-device", "pcie-root-port,id=rp2,chassis=2,slot=2"]);
        words.add(["-device", "nvme-subsys,id=sub0,nqn=sub0"]);
        words.add(["-drive", &format!("if=none,id=dn,format=raw,file={raw}")]);
        words.add([
            "-device",
            "nvme,id=nv0,serial=bh0,subsys=sub0,bus=rp2,sriov_max_vfs=2,sriov_vq_flexible=4,\
             sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=7",
        ]);
        words.add(["-device", "nvme-ns,drive=dn,shared=on"]);
    }
    if let Some(name) = config.credential {
        let entry = format!("name=opt/io.systemd.credentials/{name},string=planted");
        words.add(["-fw_cfg", &entry]);
    }
    if config.shell {
        let sock = opt(&dir.join("shell.sock"));
        words.add(["-device", "virtio-serial-pci"]);
        words.add(["-chardev", &format!("socket,id=sh0,path={sock},server=on,wait=off")]);
        words.add(["-device", "virtserialport,chardev=sh0,name=lab"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Topology;

    fn line(config: &VmConfig, accel: Accel) -> String {
        let firmware = Firmware { code: "/fw/code.fd".into(), vars: "/fw/vars.fd".into() };
        let direct = (Path::new("/i/vmlinuz"), Path::new("/i/initrd"), "console=ttyS0 quiet");
        let files = Files {
            dir: Path::new("/run/a,b"),
            firmware: (config.lane != Lane::Direct).then_some(&firmware),
            direct: (config.lane == Lane::Direct).then_some(direct),
            load: None,
        };
        arguments(config, accel, files).join(" ")
    }

    #[test]
    fn the_direct_lane_gives_qemu_the_kernel_and_no_flash() {
        let config = VmConfig { lane: Lane::Direct, ..VmConfig::numbered(0) };
        let line = line(&config, Accel::Tcg);
        assert!(line.contains("-kernel /i/vmlinuz -initrd /i/initrd -append console=ttyS0 quiet"));
        assert!(!line.contains("pflash"), "{line}");
        assert!(line.contains("-cpu EPYC"), "{line}");
    }

    #[test]
    fn the_http_lane_turns_pxe_off_so_that_the_firmware_does_not_try_it_first() {
        let http = line(&VmConfig { lane: Lane::UefiHttp, ..VmConfig::numbered(0) }, Accel::Tcg);
        let pxe = line(&VmConfig { lane: Lane::UefiPxe, ..VmConfig::numbered(0) }, Accel::Kvm);
        assert!(http.contains("opt/org.tianocore/IPv4PXESupport,string=n"), "{http}");
        assert!(!pxe.contains("IPv4PXESupport"), "{pxe}");
        assert!(pxe.contains("-accel kvm -cpu host"), "{pxe}");
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_the_option() {
        let line = line(&VmConfig { lane: Lane::Direct, ..VmConfig::numbered(0) }, Accel::Tcg);
        assert!(line.contains("path=/run/a,,b/console.log"), "{line}");
    }

    #[test]
    fn each_socket_is_a_node_and_the_nodes_add_up_to_the_memory() {
        let config = VmConfig {
            topology: Topology { sockets: 3, cores: 1, threads: 2 },
            memory_mib: 2048,
            ..VmConfig::numbered(0)
        };
        let line = line(&config, Accel::Tcg);
        assert!(line.contains("-smp 6,sockets=3,dies=1,cores=1,threads=2 -m 2048M"), "{line}");
        for share in ["id=m0,size=684M", "id=m1,size=682M", "id=m2,size=682M"] {
            assert!(line.contains(share), "{share}: {line}");
        }
    }

    #[test]
    fn the_iommu_stands_before_the_devices() {
        let config = VmConfig { iommu: true, igb: true, ..VmConfig::numbered(0) };
        let line = line(&config, Accel::Tcg);
        assert!(line.find("intel-iommu") < line.find("virtio-net-pci"), "{line}");
        assert!(line.contains("kernel-irqchip=split"), "{line}");
    }
}

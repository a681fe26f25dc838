//! A tenant's disk, booted with the very command line that a lease's machine has.
//!
//! Here on the machine that runs the tests, and not in a lease of a virtual server: QEMU's emulation of nested
//! virtualisation ends ("cpu_interrupt: assertion failed: (bql_locked())") when a firmware in such a guest waits for interrupts.

mod tenant_os;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::id::LeaseId;
use bulkhead_api::units::Bytes;
use bulkhead_image::layout::Layout;
use bulkhead_image::toolbox;
use bulkhead_qemu_tests::artifacts::{Tools, Workspace};
use bulkhead_qemu_tests::fixture::{BOOT, until};
use bulkhead_qemu_tests::process::Daemon;
use bulkhead_qemu_tests::qemu::{Qemu, Tree};
use bulkhead_supervisor::tenant::vm::guest::{Guest, IMAGE, Machine, Memory, QMP};
use bulkhead_supervisor::tenant::vm::image::{self, Boot};
use bulkhead_supervisor::tenant::vm::topology::Topology;

/// The demo machine's system, out of its image.
const DEMO_INITRD: &str = r#"layer=$(ls -S oci/demo-vm/blobs/sha256/* | head -n 1)
tar -xzf "$layer" -O boot/initrd > "$1/demo-initrd""#;

/// A disk with the demo machine's system as a UKI, where a firmware looks on a disk that it does not know.
fn disk(layout: &Layout, work: &str) -> Result<()> {
    let inside = layout.out.join(work);
    let boot = inside.join("esp/EFI/BOOT");
    fs::create_dir_all(&boot)?;
    toolbox::run(layout, DEMO_INITRD, &[work])?;
    let uki = tenant_os::uki(layout, work, &fs::read(inside.join("demo-initrd"))?)?;
    fs::write(boot.join("BOOTX64.EFI"), uki)?;
    fs::create_dir_all(inside.join("image/disk"))?;
    let folder = format!("fat:16:{}", inside.join("esp").display());
    let convert = Tree::at(layout.out.join("qemu"))?.command("qemu-img")?;
    convert
        .args(["convert", "-f", "vvfat", "-O", "qcow2", "-c", &folder])
        .arg(inside.join("image/disk/os.qcow2"))
        .run()?;
    Ok(())
}

/// A lease's command line with this machine's files, and with emulation where KVM and a processor's nodes are not had.
fn here(command: &[String], image: &Path, firmware: &Path, qmp: &Path) -> Vec<String> {
    let pairs = [
        (format!("{IMAGE}/"), format!("{}/", image.display())),
        ("/usr/share/OVMF/".to_owned(), format!("{}/", firmware.display())),
        (format!("path={QMP}/"), format!("path={}/", qmp.display())),
        (",host-nodes=0,policy=bind".to_owned(), String::new()),
    ];
    let word = |word: &String| match word.as_str() {
        "kvm" => "tcg".to_owned(),
        "host" => "max".to_owned(),
        _ => pairs.iter().fold(word.clone(), |word, (from, to)| word.replace(from, to)),
    };
    command.iter().map(word).collect()
}

#[test]
fn a_tenants_disk_boots_by_the_firmware_of_a_lease_and_is_never_written() -> Result<()> {
    let workspace = Workspace::find()?;
    let layout = Layout::new(&workspace.root, &workspace.target.join("image"));
    let work = format!("work/disk.{}", std::process::id());
    let inside = layout.out.join(&work);
    disk(&layout, &work)?;
    let root = bulkhead_supervisor::oci::root::Root::open(&inside.join("image"), 0)?;
    let boot = image::boot(&image::look(&root)?, &[])?;
    assert!(matches!(boot, Boot::Disk { .. }));
    let guest = Guest {
        id: LeaseId { tenant: "demo".parse().unwrap(), name: "disk".parse().unwrap() },
        boot,
        // A firmware and a kernel that it starts do not fit into 128 MiB.
        memory: Memory::Pages { bytes: Bytes::new(192 << 20), nodes: BTreeSet::from([0]) },
        cpus: Topology { order: vec![0], sockets: 1, cores: 1, threads: 1 },
        devices: Vec::new(),
    };
    assert_eq!(guest.machine(), Machine::Q35);

    let before = fs::read(inside.join("image/disk/os.qcow2"))?;
    let tools = Tools::of(&workspace, &inside);
    let firmware = tools.toolbox.join("usr/share/OVMF");
    let command = here(&guest.command(), &inside.join("image"), &firmware, &inside);
    let (_, arguments) = command.split_first().context("a program")?;
    let qemu = Qemu::find(&tools, &layout.out.join("vmlinuz"), &layout.out)?;
    let log = inside.join("console.log");
    let mut machine = Daemon::start("disk", &qemu.system()?.args(arguments), &log)?;
    let said = until("the disk's system on the console", BOOT, || {
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        ensure!(machine.alive(), "the machine ended: {text}");
        Ok(text.contains("demo guest tick 1").then_some(text))
    });
    machine.kill();
    assert!(said?.contains("BdsDxe: starting"), "by its firmware");
    assert_eq!(fs::read(inside.join("image/disk/os.qcow2"))?, before);
    fs::remove_dir_all(inside)?;
    Ok(())
}

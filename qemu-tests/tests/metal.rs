//! A lease that has a server to itself: handed over, booted from the tenant's own UKI, taken back and erased.
#![expect(clippy::indexing_slicing, reason = "documents of the test's own")]

mod tenant_os;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::condition::{Condition, find};
use bulkhead_api::document::{HostPhase, Lease};
use bulkhead_api::lease::LeasePhase;
use bulkhead_api::receipt::Receipt;
use bulkhead_api::resource::Resource;
use bulkhead_image::cpio;
use bulkhead_image::layout::Layout;
use bulkhead_image::oci::{self, Entry};
use bulkhead_image::toolbox;
use bulkhead_qemu_tests::artifacts::Workspace;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, Scene, dark_scene, lease, until};
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::VmConfig;
use serde_json::{Value, json};

/// What the tenant's system says when it has written to the disk.
const RUNS: &str = "tenant's own system has the disk";
/// What it writes there.
const MARKER: &str = "BELONGS-TO-THE-TENANT-OF-METAL";

/// The tenant's system: nothing but busybox and the driver of the disk.
const INIT: &str = "#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
for module in nvme-auth nvme-core nvme; do $bb insmod /modules/$module.ko; done
while [ ! -b /dev/nvme0n1 ]; do $bb sleep 1; done
for block in 0 5000 16383; do
    echo MARKER | $bb dd of=/dev/nvme0n1 bs=4096 seek=$block conv=notrunc 2> /dev/null
done
$bb sync
echo \"RUNS\"
while :; do $bb sleep 60; done
";

const MODULES: &str = r#"below=work/kernel/usr/lib/modules/$(cat work/kernel.release)/kernel/drivers/nvme
mkdir -p "$1"
xz -dc "$below/common/nvme-auth.ko.xz" > "$1/nvme-auth.ko"
xz -dc "$below/host/nvme-core.ko.xz" > "$1/nvme-core.ko"
xz -dc "$below/host/nvme.ko.xz" > "$1/nvme.ko""#;

/// Puts an image with the tenant's UKI among the site's.
fn tenant_image(name: &str) -> Result<()> {
    let workspace = Workspace::find()?;
    let layout = Layout::new(&workspace.root, &workspace.target.join("image"));
    let work = format!("work/{name}.{}", std::process::id());
    let inside = layout.out.join(&work);
    toolbox::run(&layout, MODULES, &[&work])?;
    let mut initrd = cpio::Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "sys"] {
        initrd.folder(folder)?;
    }
    let init = INIT.replace("MARKER", MARKER).replace("RUNS", RUNS);
    initrd.file("init", 0o755, init.as_bytes())?;
    let busybox = fs::read(layout.work().join("demo.d/usr/bin/busybox")).context("read busybox")?;
    initrd.file("bin/busybox", 0o755, &busybox)?;
    for module in ["nvme-auth", "nvme-core", "nvme"] {
        let file = inside.join(format!("{module}.ko"));
        initrd.file(&format!("modules/{module}.ko"), 0o644, &fs::read(file)?)?;
    }
    let uki = tenant_os::uki(&layout, &work, &initrd.finish()?)?;
    fs::remove_dir_all(inside)?;
    let layer =
        oci::layer(&[Entry::Folder("boot/", 0o755), Entry::File("boot/uki.efi", 0o644, &uki)])?;
    let folder = layout.out.join("oci").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    oci::write(&folder, &layer, None)?;
    Ok(())
}

fn metal(image: &str) -> Value {
    let mut document = lease("metal", 1, "512Mi");
    document["spec"]["instance"] = json!("bareMetal");
    document["spec"]["workload"] =
        json!({ "image": format!("oci://bulkhead.site/{image}:latest") });
    document
}

fn condition<'a>(lease: &'a Lease, kind: &str) -> Option<&'a Condition> {
    find(&lease.status.as_ref()?.conditions, kind)
}

/// How often a text is in a file.
fn count(file: &Path, text: &str) -> Result<usize> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count())
}

/// Why the lease is not released yet: reason and who must act.
fn waits(scene: &Scene<'_>, reason: &str) -> Result<Condition> {
    until(&format!("lease metal waits for {reason}"), SOON, || {
        let lease = scene.lease("metal")?.context("the lease is there until its host is clean")?;
        Ok(condition(&lease, "Released").filter(|c| c.reason == reason).cloned())
    })
}

#[test]
fn a_server_goes_to_a_tenants_own_system_and_comes_back_erased() -> Result<()> {
    tenant_image("tenant-os")?;
    dark_scene("metal", |scene| {
        let config =
            VmConfig { nvme: true, shell: true, disk_gib: Some(1), ..VmConfig::numbered(1) };
        let mut vm = scene.power_on(&config, 1)?;
        let disk = vm.dir().join("nvme.raw");
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        let host = scene.await_ready(config.mac, SOON)?.metadata.name;

        // Away.
        scene.running.apply(&metal("tenant-os"))?;
        vm.wait_for(RUNS, BOOT * 2)?;
        let given = scene.await_phase("metal", LeasePhase::Running, SOON)?;
        assert_eq!(given.status.as_ref().unwrap().host.as_ref(), Some(&host));
        assert_eq!(condition(&given, "HandedOver").unwrap().owner, "tenant");
        assert_eq!(count(&disk, MARKER)?, 3);
        let there = scene.host(config.mac)?.unwrap();
        assert_eq!(there.status.phase, HostPhase::HandedOver, "{}", there.status.reason);
        let refused = scene.running.apply(&lease("beside", 1, "64Mi")).unwrap_err().to_string();
        assert!(refused.contains("HandedOver"), "{refused}");

        // Taken back: the machine is the tenant's until somebody power-cycles it.
        scene.running.bulkhead(["delete", "lease", "demo/metal"])?;
        let waiting = waits(scene, "PowerCycle")?;
        assert_eq!(waiting.owner, "operator");
        assert!(waiting.message.contains("power-cycle"), "{}", waiting.message);
        assert_eq!(count(&disk, MARKER)?, 3);

        vm.reset()?;
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        let released =
            until("the lease is gone", BOOT, || Ok(scene.lease("metal")?.is_none().then_some(())));
        released.with_context(|| vm.last_words())?;
        assert_eq!(count(&disk, MARKER)?, 0, "nothing of the tenant is on the disk");

        // With receipts for the disks and for what ran.
        let mut guest = vm.guest(SOON)?;
        let text = guest.run("bulkhead host receipts -o json")?;
        let signed: Vec<bulkhead_api::receipt::SignedReceipt> =
            serde_json::from_str(&text).with_context(|| format!("read receipts {text}"))?;
        let receipts: Vec<Receipt> =
            signed.iter().map(|signed| signed.unchecked().unwrap()).collect();
        for id in ["bh0", "blank"] {
            let whole = |r: &&Receipt| matches!(&r.resource, Resource::Disk { id: of } if of == id);
            let receipt =
                receipts.iter().find(whole).with_context(|| format!("disk {id}: {text}"))?;
            assert_eq!(receipt.lease.name.as_str(), "metal");
            ensure!(receipt.evidence.iter().any(|e| e.found == "zero"), "{receipt:?}");
            let formatted = receipt.methods.iter().any(|method| method == "nvmeFormatUser");
            ensure!(formatted == (id == "bh0"), "{receipt:?}");
        }
        assert!(receipts.iter().any(|receipt| receipt.resource == Resource::Instance));

        // And is a host like any other again.
        scene.await_ready(config.mac, SOON)?;
        scene.running.apply(&lease("after", 1, "64Mi"))?;
        scene.await_phase("after", LeasePhase::Running, SOON)?;
        Ok(())
    })
}

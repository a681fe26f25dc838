//! A lease that runs a virtual machine: what its guest sees, how it is kept in, and how it ends.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod tenant_os;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::lease::LeasePhase;
use bulkhead_image::layout::Layout;
use bulkhead_image::oci::Entry;
use bulkhead_image::toolbox;
use bulkhead_qemu_tests::artifacts::Workspace;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, Scene, lease, scene, until};
use bulkhead_qemu_tests::guest::Guest;
use bulkhead_qemu_tests::qemu::Tree;
use serde_json::{Value, json};

/// The console's file while the lease is there, and what is kept of it after.
const CONSOLE: &str = "/var/lib/bulkhead/leases/demo/guest/console.log";
const KEPT: &str = "/run/guest-console";

/// A lease of tenant `demo` with a virtual machine.
fn machine(name: &str, image: &str, args: &[&str]) -> Value {
    let mut document = lease(name, 2, "128Mi");
    document["spec"]["instance"] = json!("vm");
    document["spec"]["workload"] =
        json!({ "image": format!("oci://bulkhead.site/{image}:latest"), "args": args });
    document
}

/// `0-2,5` of the kernel's CPU lists.
fn list(text: &str) -> BTreeSet<u32> {
    let ranges = text.trim().split(',').filter(|range| !range.is_empty());
    let both = ranges.map(|range| range.split_once('-').unwrap_or((range, range)));
    both.flat_map(|(a, b)| a.parse::<u32>().unwrap()..=b.parse::<u32>().unwrap()).collect()
}

/// Name and CPUs of each thread of a process.
fn threads(guest: &mut Guest, pid: u32) -> Result<Vec<(String, BTreeSet<u32>)>> {
    let text = guest.run(&format!(
        "for t in /proc/{pid}/task/*; do echo \"$(cat $t/comm):$(sed -n 's/^Cpus_allowed_list://p' $t/status)\"; done"
    ))?;
    text.lines()
        .map(|line| {
            let (name, cpus) = line.split_once(':').context("a thread's line")?;
            Ok((name.to_owned(), list(cpus)))
        })
        .collect()
}

fn console(scene: &Scene<'_>, text: &str, soon: Duration) -> Result<String> {
    until(&format!("{text} on the guest's console"), soon, || {
        let log = scene.running.bulkhead(["logs", "demo/guest"])?;
        Ok(log.contains(text).then_some(log))
    })
}

#[test]
fn a_virtual_machine_runs_in_its_leases_jail_on_its_leases_cpus_and_is_switched_off() -> Result<()>
{
    scene("vm", |scene, host| {
        scene.running.apply(&machine("guest", "demo-vm", &["bulkhead.test=1"]))?;
        let running = scene.await_phase("guest", LeasePhase::Running, SOON);
        let running = running.with_context(|| {
            let said = scene.running.bulkhead(["logs", "demo/guest"]);
            format!("its console: {}", said.unwrap_or_else(|error| format!("{error:#}")))
        })?;
        let status = running.status.unwrap();
        let (holding, pid) = (status.holding.unwrap(), status.pid.unwrap());
        assert_eq!(holding.cpus.len(), 2);

        // What the guest says of itself.
        let log = console(scene, "demo guest tick 2", SOON)?;
        assert!(log.contains("demo guest running on 2 cpus"), "{log}");

        let shell = &mut host.guest;
        let line = shell.run(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))?;
        assert!(line.contains("-machine microvm") && line.contains("bulkhead.test=1"), "{line}");

        // Whose it is and what it may.
        let status = shell.run(&format!("cat /proc/{pid}/status"))?;
        let field = |name: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().map(ToOwned::to_owned).collect()
        };
        for ids in ["Uid:", "Gid:"] {
            let ids = field(ids);
            assert!(ids.iter().all(|id| id.parse::<u32>().unwrap() >= 0x1000_0000), "{ids:?}");
        }
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&field(set)[0], 16)?, 0, "{set}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));
        let group = shell.run(&format!("cut -d: -f3 /proc/{pid}/cgroup"))?;
        assert!(group.starts_with("/tenant.slice/tenant-demo.guest.slice/"), "{group}");
        let seen = shell.run(&format!("ls -A /proc/{pid}/root"))?;
        let jail = "bin dev disks image lib lib64 proc qmp sbin usr var";
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), jail);
        for namespace in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
            let both = shell.run(&format!(
                "readlink /proc/{pid}/ns/{namespace} /proc/1/ns/{namespace} | uniq | wc -l"
            ))?;
            assert_eq!(both.trim(), "2", "{namespace} namespace");
        }

        // Every vCPU on a CPU of its own, all else on the first core.
        until("vCPUs on their CPUs", SOON, || {
            let mut vcpus = BTreeMap::new();
            let mut first = true;
            for (name, cpus) in threads(shell, pid)? {
                ensure!(cpus.is_subset(&holding.cpus), "{name} may run on {cpus:?}");
                match name.strip_prefix("CPU ").and_then(|rest| rest.strip_suffix("/KVM")) {
                    Some(number) => drop(vcpus.insert(number.parse::<usize>()?, cpus)),
                    None => first &= cpus.len() == 1 && cpus.first() == holding.cpus.first(),
                }
            }
            let wanted = holding.cpus.iter().map(|&cpu| BTreeSet::from([cpu])).enumerate();
            Ok((first && vcpus == wanted.collect()).then_some(()))
        })?;

        shell.run(&format!("cp {CONSOLE} {KEPT}; (tail -n +1 -f {CONSOLE} > {KEPT} &)"))?;
        scene.running.bulkhead(["delete", "lease", "demo/guest", "--wait"])?;
        let last = host.guest.run(&format!("cat {KEPT}"))?;
        assert!(last.contains("demo guest powers off"), "{last}");
        let left = host.guest.run(&format!(
            "test -e /proc/{pid} && echo process; ls -d /sys/fs/cgroup/tenant.slice/*guest* 2>/dev/null; \
             ls -d /var/lib/bulkhead/leases/demo/guest 2>/dev/null; \
             systemctl list-units --all --plain --no-legend '*guest.*'; true"
        ))?;
        assert_eq!(left, "");
        Ok(())
    })
}

#[test]
fn an_image_without_disk_or_kernel_is_refused_by_name_and_holds_no_machine() -> Result<()> {
    scene("vm-image", |scene, host| {
        scene.running.apply(&machine("none", "demo", &[]))?;
        let why = until("the lease's condition", SOON, || {
            let said = scene.running.bulkhead(["describe", "lease", "demo/none"])?;
            Ok(said.contains("neither a disk").then_some(said))
        })?;
        assert!(why.contains("/boot/vmlinuz"), "{why}");
        scene.running.bulkhead(["delete", "lease", "demo/none", "--wait"])?;
        assert_eq!(host.guest.run("pgrep -c qemu; true")?.trim(), "0");
        Ok(())
    })
}

/// What the demo machine boots, out of its image.
const DEMO_INITRD: &str = r#"layer=$(ls -S oci/demo-vm/blobs/sha256/* | head -n 1)
tar -xzf "$layer" -O boot/initrd > "$1/demo-initrd""#;

/// An image with a disk: the demo machine's system as a UKI, where a firmware looks on a disk that it does not know.
fn disk_image(name: &str) -> Result<()> {
    let workspace = Workspace::find()?;
    let layout = Layout::new(&workspace.root, &workspace.target.join("image"));
    let work = format!("work/{name}.{}", std::process::id());
    let inside = layout.out.join(&work);
    let boot = inside.join("esp/EFI/BOOT");
    fs::create_dir_all(&boot)?;
    toolbox::run(&layout, DEMO_INITRD, &[&work])?;
    let uki = tenant_os::uki(&layout, &work, &fs::read(inside.join("demo-initrd"))?)?;
    fs::write(boot.join("BOOTX64.EFI"), uki)?;
    let disk = inside.join("os.qcow2");
    let folder = format!("fat:16:{}", inside.join("esp").display());
    let convert = Tree::at(layout.out.join("qemu"))?.command("qemu-img")?;
    convert.args(["convert", "-f", "vvfat", "-O", "qcow2", "-c", &folder]).arg(&disk).run()?;
    let disk = fs::read(&disk)?;
    let entries = [Entry::Folder("disk/", 0o755), Entry::File("disk/os.qcow2", 0o644, &disk)];
    tenant_os::publish(&layout, name, &entries)?;
    fs::remove_dir_all(inside)?;
    Ok(())
}

/// Both kinds of machine, with all that a lease can give them but devices.
#[test]
fn a_virtual_machine_boots_a_disk_by_its_firmware_and_has_its_volume_and_its_huge_pages()
-> Result<()> {
    disk_image("disk-vm")?;
    scene("vm-disk", |scene, host| {
        for (image, machine_is) in [("demo-vm", "microvm"), ("disk-vm", "q35,")] {
            let mut document = machine("guest", image, &[]);
            document["spec"]["volumes"] = json!([{ "name": "scratch", "size": "64Mi" }]);
            document["spec"]["hugepages"] = json!({ "pageSize": "2Mi", "amount": "128Mi" });
            scene.running.apply(&document)?;
            let running = scene.await_phase("guest", LeasePhase::Running, SOON)?.status.unwrap();
            let held = running.holding.unwrap();
            assert_eq!(held.volumes.len(), 1);
            let pages = held.hugepages.unwrap().pages;
            assert_eq!(pages.iter().map(|node| node.pages).sum::<u64>(), 64);
            let log = console(scene, "demo guest tick 1", BOOT)?;
            assert!(log.contains("has disk vd") && log.contains(" of 64 MiB"), "{log}");

            let pid = running.pid.unwrap();
            let shell = &mut host.guest;
            let line = shell.run(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))?;
            assert!(line.contains(&format!("-machine {machine_is}")), "{line}");
            let taken =
                "cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages";
            let free: u64 = shell.run(taken)?.lines().map(|n| n.parse::<u64>().unwrap()).sum();
            assert_eq!(free, 0, "the guest's memory is in its lease's pages");

            scene.running.bulkhead(["delete", "lease", "demo/guest", "--wait"])?;
            let receipts = host.guest.run("bulkhead host receipts --lease demo/guest")?;
            for resource in ["hugepages", "volume"] {
                assert!(receipts.contains(resource), "{receipts}");
            }
        }
        Ok(())
    })
}

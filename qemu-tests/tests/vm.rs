//! A lease that runs a virtual machine: what its guest sees, how it is kept in, and how it ends.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{SOON, Scene, lease, scene, until};
use bulkhead_qemu_tests::guest::Guest;
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

fn console(scene: &Scene<'_>, text: &str) -> Result<String> {
    let mut log = String::new();
    let found = until(&format!("{text} on the guest's console"), SOON, || {
        // A host that is emulated may be too busy with its guest to answer in time.
        log = scene.running.bulkhead(["logs", "demo/guest"]).unwrap_or(log.clone());
        Ok(log.contains(text).then_some(()))
    });
    found.with_context(|| format!("its console: {log:?}")).map(|()| log)
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
        let log = console(scene, "demo guest tick 2")?;
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

#[test]
fn a_virtual_machine_has_its_volume_and_its_memory_is_its_leases_huge_pages() -> Result<()> {
    scene("vm-volume", |scene, host| {
        let mut document = machine("guest", "demo-vm", &[]);
        document["spec"]["volumes"] = json!([{ "name": "scratch", "size": "64Mi" }]);
        document["spec"]["hugepages"] = json!({ "pageSize": "2Mi", "amount": "128Mi" });
        scene.running.apply(&document)?;
        let held = scene.await_phase("guest", LeasePhase::Running, SOON)?.status.unwrap().holding;
        let held = held.unwrap();
        assert_eq!(held.volumes.len(), 1);
        let pages = held.hugepages.unwrap().pages;
        assert_eq!(pages.iter().map(|node| node.pages).sum::<u64>(), 64);
        let log = console(scene, "demo guest tick 1")?;
        // The last MiB is the host's, to tell the place by when it is erased.
        assert!(log.contains("has disk vda of 63 MiB"), "{log}");
        let free = "cat /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages";
        let free = host.guest.run(free)?;
        let free: u64 = free.lines().map(|count| count.parse::<u64>().unwrap()).sum();
        assert_eq!(free, 0, "the guest's memory is in its lease's pages");

        scene.running.bulkhead(["delete", "lease", "demo/guest", "--wait"])?;
        let receipts = host.guest.run("bulkhead host receipts --lease demo/guest")?;
        for resource in ["huge pages", "volume"] {
            assert!(receipts.contains(resource), "{receipts}");
        }
        Ok(())
    })
}

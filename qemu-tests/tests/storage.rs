//! Local volumes: what a tenant wrote is ciphertext on the disk, is gone with its lease, and its successor sees nothing
//! of it; the host's own state outlives a power cut.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use anyhow::{Result, ensure};
use bulkhead_api::inventory::DiskClaim;
use bulkhead_api::lease::{Holding, LeasePhase};
use bulkhead_api::receipt::{Receipt, SignedReceipt};
use bulkhead_api::resource::Resource;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, Scene, dark_scene, lease, scene, server, until};
use bulkhead_qemu_tests::guest::Guest;
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{Lane, VmConfig};
use serde_json::{Value, json};

/// The partition that volumes are on, by the name in its table.
const POOL: &str = "/dev/disk/by-partlabel/bulkhead-pool";
/// Where the host's state is.
const STATE: &str = "/var/lib/bulkhead/state";
const MIB: u64 = 1 << 20;

fn with_volume(name: &str) -> Value {
    let mut document = lease(name, 1, "128Mi");
    document["spec"]["volumes"] = json!([{ "name": "scratch", "size": "64Mi" }]);
    document
}

fn granted(scene: &Scene<'_>, name: &str) -> Result<(Holding, u32)> {
    scene.running.apply(&with_volume(name))?;
    let status = scene.await_phase(name, LeasePhase::Running, SOON)?.status.unwrap();
    Ok((status.holding.unwrap(), status.pid.unwrap()))
}

/// How many lines of a stretch of a device have the marker, read around the page cache.
fn marked(guest: &mut Guest, device: &str, start: u64, length: u64, marker: &str) -> Result<u32> {
    let (skip, count) = (start / MIB, length / MIB);
    let command = format!(
        "dd if={device} bs=1M skip={skip} count={count} iflag=direct status=none | grep -a -c {marker} || true"
    );
    Ok(guest.run(&command)?.trim().parse()?)
}

/// What the host signed of a lease's volume.
fn volume_receipt(guest: &mut Guest, lease: &str) -> Result<Receipt> {
    let text = guest.run(&format!("bulkhead host receipts --lease {lease} -o json"))?;
    let signed: Vec<SignedReceipt> = serde_json::from_str(&text)?;
    let all: Vec<Receipt> = signed.iter().map(|one| one.unchecked().unwrap()).collect();
    let volume = |receipt: &&Receipt| matches!(receipt.resource, Resource::Volume { .. });
    Ok(all.iter().rfind(volume).unwrap().clone())
}

#[test]
fn a_tenants_data_is_ciphertext_on_the_disk_and_gone_with_its_lease() -> Result<()> {
    scene("storage-volume", |scene, host| {
        let (holding, pid) = granted(scene, "vault")?;
        let held = holding.volumes.first().unwrap().clone();
        let guest = &mut host.guest;
        let (start, end) =
            (held.extents.first().unwrap().start, held.extents.last().unwrap().end());
        assert_eq!(held.extents.iter().map(|extent| extent.length).sum::<u64>(), 64 * MIB);

        // The tenant writes, in its own view, more than once.
        let marker = format!("marker-{}", guest.run("cat /proc/sys/kernel/random/uuid")?.trim());
        let file = format!("/proc/{pid}/root/volumes/scratch/secret");
        guest.run(&format!(
            "i=0; while [ $i -lt 1000 ]; do echo {marker}; i=$((i + 1)); done > {file}; sync"
        ))?;
        let mount = guest.run(&format!("grep ' /volumes/scratch ' /proc/{pid}/mountinfo"))?;
        assert!(mount.contains("nosuid") && mount.contains("nodev"), "{mount}");

        // Through the key it is there, so the file reached the mapping; without the key it is nowhere on the disk.
        let mapping = "/dev/mapper/bh-demo.vault.scratch";
        assert!(
            marked(guest, mapping, 0, 63 * MIB, &marker)? > 0,
            "written and not in the mapping"
        );
        assert_eq!(marked(guest, POOL, start, end - start, &marker)?, 0);
        // The same look finds a marker that was written raw, behind the volume.
        guest.run(&format!(
            "echo {marker} | dd of={POOL} bs=1M seek={} conv=sync,fsync status=none",
            end / MIB
        ))?;
        assert_eq!(marked(guest, POOL, start, end - start + 4 * MIB, &marker)?, 1);
        guest.run(&format!(
            "dd if=/dev/zero of={POOL} bs=1M count=1 seek={} conv=fsync status=none",
            end / MIB
        ))?;
        let keys = guest.run("grep logon /proc/keys || true")?;
        assert_eq!(keys, "", "dm-crypt has its own copy, nobody else one");

        scene.running.bulkhead(["delete", "lease", "demo/vault", "--wait"])?;
        let left = guest.run(
            "ls /dev/mapper | grep bh-; cat /sys/block/dm-*/dm/name | grep bh-; grep bh- /proc/mounts; \
             grep logon /proc/keys; true",
        )?;
        assert_eq!(left, "");
        assert_eq!(marked(guest, POOL, start, end - start, &marker)?, 0);
        let receipt = volume_receipt(guest, "demo/vault")?;
        assert_eq!(receipt.methods.first().map(String::as_str), Some("cryptoErase"));
        assert_eq!(receipt.weaker, None);
        let found: Vec<&str> = receipt.evidence.iter().map(|line| line.found.as_str()).collect();
        let [no_mapping, no_key, canary, _places] = found[..] else { panic!("{found:?}") };
        assert_eq!((no_mapping, no_key), ("none", "none"));
        assert!(canary.starts_with("zeros; its ciphertext was SHA-256 "), "{canary}");

        // The next one gets the same place, and nothing of what was there.
        let (next, pid) = granted(scene, "next")?;
        assert_eq!(next.volumes.first().unwrap().extents, held.extents);
        let files = guest.run(&format!("ls -A /proc/{pid}/root/volumes/scratch"))?;
        assert_eq!(files, "");
        assert_eq!(marked(guest, "/dev/mapper/bh-demo.next.scratch", 0, 63 * MIB, &marker)?, 0);
        Ok(())
    })
}

#[test]
fn a_volume_is_the_same_for_a_restarted_supervisor() -> Result<()> {
    scene("storage-restart", |scene, host| {
        let (_, pid) = granted(scene, "vault")?;
        let guest = &mut host.guest;
        guest.run(&format!("echo here > /proc/{pid}/root/volumes/scratch/file"))?;
        let number = guest.run("readlink /dev/mapper/bh-demo.vault.scratch")?;
        let old = guest.run("systemctl show -P MainPID bulkheadd")?;
        guest.run("systemctl kill -s KILL --kill-whom=main bulkheadd")?;
        until("a new supervisor", SOON, || {
            let new = guest.run("systemctl show -P MainPID bulkheadd")?;
            Ok((new != "0" && new != old).then_some(()))
        })?;
        scene.await_ready(server().mac, SOON)?;
        let after = scene.await_phase("vault", LeasePhase::Running, SOON)?.status.unwrap();
        assert_eq!(after.pid, Some(pid));
        assert_eq!(guest.run(&format!("cat /proc/{pid}/root/volumes/scratch/file"))?, "here");
        assert_eq!(guest.run("readlink /dev/mapper/bh-demo.vault.scratch")?, number);
        Ok(())
    })
}

#[test]
fn a_blank_disk_keeps_the_ledger_over_a_power_cut_and_volumes_come_back_empty() -> Result<()> {
    dark_scene("storage-power", |scene| {
        let config = VmConfig { lane: Lane::Direct, disk_gib: Some(1), ..server() };
        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        let (holding, pid) = granted(scene, "vault")?;
        let mut guest = vm.guest(SOON)?;
        guest.run(&format!("echo old > /proc/{pid}/root/volumes/scratch/file; sync"))?;
        let pool = pool_id(scene, &config)?;
        assert_eq!(holding.volumes.first().unwrap().pool, pool);
        let mounted = guest.run(&format!("grep ' {STATE} ' /proc/mounts"))?;
        for option in ["ext4", "nosuid", "nodev", "noexec"] {
            assert!(mounted.contains(option), "{mounted}");
        }
        ensure!(
            guest.run(&format!("ls {STATE}"))?.contains("ledger.json"),
            "no ledger on the disk"
        );
        let receipts = guest.run("bulkhead host receipts -o json | grep -c signature || true")?;
        vm.cut_power();

        let mut vm = scene.power_on(&config, 0)?;
        vm.wait_for(JOINED_SIGN, BOOT)?;
        let status = scene.await_phase("vault", LeasePhase::Running, SOON)?.status.unwrap();
        assert_eq!(pool_id(scene, &config)?, pool, "claimed once");
        // The ledger said where it is, and the volume's content ended with the boot.
        assert_eq!(status.holding.unwrap().volumes, holding.volumes);
        let mut guest = vm.guest(SOON)?;
        let pid = status.pid.unwrap();
        assert_eq!(guest.run(&format!("ls -A /proc/{pid}/root/volumes/scratch"))?, "");
        let now = guest.run("bulkhead host receipts -o json | grep -c signature || true")?;
        assert!(
            now.trim().parse::<u32>()? >= receipts.trim().parse::<u32>()?,
            "receipts were lost"
        );
        Ok(())
    })
}

/// The pool that the host reports of its only disk.
fn pool_id(scene: &Scene<'_>, config: &VmConfig) -> Result<String> {
    until("a disk that is a pool", SOON, || {
        let reported = scene.host(config.mac)?.and_then(|host| host.status.reported);
        let claims = reported.into_iter().flat_map(|status| status.inventory.disks);
        Ok(claims.into_iter().find_map(|disk| match disk.claim {
            DiskClaim::Pool { id, .. } => Some(id),
            DiskClaim::Unknown | DiskClaim::Blank | DiskClaim::Foreign { .. } => None,
        }))
    })
}

//! The ways a server comes up, from power-on to a tenant's running lease.

use anyhow::Result;
use bulkhead_api::inventory::Inventory;
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, dark_scene, lease, until};
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{Lane, VmConfig};

#[test]
fn a_server_with_secure_boot_and_tpm_boots_over_http_joins_and_runs_a_lease() -> Result<()> {
    dark_scene("lane-http", |scene| {
        let config = VmConfig {
            secure_boot: true,
            tpm: true,
            shell: true,
            credential: Some("planted"),
            ..VmConfig::numbered(1)
        };
        let mut vm = scene.power_on(&config, 1)?;
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        scene.await_ready(config.mac, SOON)?;
        let inventory = until("disk and TPM in the inventory", SOON, || {
            let reported = scene.host(config.mac)?.and_then(|host| host.status.reported);
            let whole = |i: &Inventory| i.tpm.is_some() && !i.disks.is_empty();
            Ok(reported.map(|reported| reported.inventory).filter(whole))
        })?;
        assert!(inventory.firmware.uefi && inventory.firmware.secure_boot, "{inventory:?}");
        assert_eq!(inventory.tpm.as_ref().map(|tpm| tpm.version_major), Some(2));
        assert_eq!(inventory.system_uuid, Some(config.uuid));
        assert_eq!(inventory.cpu.cores.len(), 4);
        assert_eq!(inventory.memory.len(), 2);
        assert!(inventory.disks.iter().any(|disk| disk.serial == "blank"), "{inventory:?}");
        // The credential was there to be taken, and systemd did not take it.
        let mut guest = vm.guest(SOON)?;
        let offered = "/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/planted/raw";
        let seen = guest.run(&format!("modprobe qemu_fw_cfg && cat {offered}"))?;
        assert_eq!(seen, "planted");
        assert_eq!(guest.ask("ls /run/credentials/@system 2>/dev/null")?.text, "");

        scene.running.apply(&lease("hello", 1, "64Mi"))?;
        scene.await_phase("hello", LeasePhase::Running, SOON)?;
        let log = scene.running.bulkhead(["logs", "demo/hello"])?;
        assert!(log.contains("demo tenant running"), "{log}");
        Ok(())
    })
}

#[test]
fn a_server_boots_by_pxe_and_tftp_and_joins() -> Result<()> {
    dark_scene("lane-pxe", |scene| {
        let config = VmConfig { lane: Lane::UefiPxe, nvme: true, ..VmConfig::numbered(1) };
        let mut vm = scene.power_on(&config, 1)?;
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        scene.await_ready(config.mac, SOON)?;
        // Drivers of what the boot does not need are loaded beside the supervisor, which looks again.
        let inventory = until("the NVMe disk in the inventory", SOON, || {
            let reported = scene.host(config.mac)?.and_then(|host| host.status.reported);
            let nvme = |i: &Inventory| i.disks.iter().any(|disk| disk.transport == "nvme");
            Ok(reported.map(|reported| reported.inventory).filter(nvme))
        })?;
        assert!(inventory.firmware.uefi && !inventory.firmware.secure_boot, "{inventory:?}");
        Ok(())
    })
}

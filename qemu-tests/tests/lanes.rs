//! The ways a server comes up, from power-on to a tenant's running lease.

use anyhow::Result;
use bulkhead_api::lease::LeasePhase;
use bulkhead_qemu_tests::fixture::{BOOT, SOON, dark_scene, lease};
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{Lane, VmConfig};

#[test]
fn a_server_with_secure_boot_and_tpm_boots_over_http_joins_and_runs_a_lease() -> Result<()> {
    dark_scene("lane-http", |scene| {
        let config =
            VmConfig { secure_boot: true, tpm: true, shell: true, ..VmConfig::numbered(1) };
        let mut vm = scene.power_on(&config, 1)?;
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        let host = scene.await_ready(config.mac, SOON)?;
        let inventory = &host.status.reported.as_ref().unwrap().inventory;
        assert!(inventory.firmware.uefi && inventory.firmware.secure_boot, "{inventory:?}");
        assert_eq!(inventory.tpm.as_ref().map(|tpm| tpm.version_major), Some(2));
        assert_eq!(inventory.system_uuid, Some(config.uuid));
        assert_eq!(inventory.cpu.cores.len(), 4);
        assert_eq!(inventory.memory.len(), 2);
        assert!(inventory.disks.iter().any(|disk| disk.serial == "blank"), "{inventory:?}");
        // Nothing that a boot loader, SMBIOS or fw_cfg could add reaches the running system.
        assert_eq!(vm.guest(SOON)?.ask("ls /run/credentials/@system 2>/dev/null")?.text, "");

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
        let host = scene.await_ready(config.mac, SOON)?;
        let inventory = &host.status.reported.as_ref().unwrap().inventory;
        assert!(!inventory.firmware.secure_boot);
        assert!(inventory.disks.iter().any(|disk| disk.transport == "nvme"), "{inventory:?}");
        Ok(())
    })
}

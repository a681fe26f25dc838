//! A damaged image never becomes a running system.

use std::fs;

use anyhow::{Context as _, Result};
use bulkhead_qemu_tests::fault::flip_bit;
use bulkhead_qemu_tests::fixture::{BOOT, dark_scene, server};
use bulkhead_qemu_tests::fleet::Program;
use bulkhead_qemu_tests::timeline::JOINED_SIGN;
use bulkhead_qemu_tests::vm::{DirectBoot, Lab, Lane, Lifetime, Vm, VmConfig};

#[test]
fn one_flipped_bit_of_the_image_is_refused_on_the_console_and_the_machine_tries_again() -> Result<()>
{
    dark_scene("image-bit", |scene| {
        // An image folder of its own, as that of the base is shared.
        scene.running.kill_program(Program::Site);
        let served = scene.running.fleet.served();
        let shared = fs::canonicalize(&served)?;
        fs::remove_file(&served)?;
        let copied = bulkhead_qemu_tests::cmd::Cmd::new("cp").arg("-a").arg(&shared).arg(&served);
        copied.run()?;
        let root = served.join("root.img");
        let middle = fs::metadata(&root)?.len() / 2;
        flip_bit(&root, middle, 3)?;
        scene.running.start_program(Program::Site)?;

        let config = VmConfig { lane: Lane::Direct, ..server() };
        let mut vm = scene.power_on(&config, 0)?;
        for attempt in ["first", "second"] {
            let said = vm.wait_for_any(&["verity", JOINED_SIGN], BOOT)?;
            let refused = said.text.contains("is corrupted") && said.text.contains("next try in");
            assert!(refused, "{attempt} try: {said}");
        }

        // The good image is there again: the machine comes up by itself.
        flip_bit(&root, middle, 3)?;
        vm.wait_for(JOINED_SIGN, BOOT * 2)?;
        Ok(())
    })
}

#[test]
fn words_appended_to_the_kernel_command_line_end_the_boot_with_a_reason() -> Result<()> {
    dark_scene("image-cmdline", |scene| {
        let signed = scene.lab.direct.context("kernel and initrd")?;
        let cmdline = format!("{} systemd.debug_shell", signed.cmdline);
        let direct = DirectBoot { cmdline, ..signed.clone() };
        let lab = Lab { direct: Some(&direct), ..scene.lab };
        let config = VmConfig { lane: Lane::Direct, ..server() };
        let mut vm = Vm::power_on(&config, lab, &scene.host_dir(0), Lifetime::Scoped)?;
        let said = vm.wait_for_any(&["BOOT FAILED", JOINED_SIGN], BOOT)?;
        let wanted = "kernel command line has `systemd.debug_shell` appended; reboot in 30 s";
        assert!(said.text.contains(wanted), "{said}");
        Ok(())
    })
}

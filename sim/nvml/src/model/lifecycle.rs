//! Reset of a GPU, reload of the driver, reboot of the machine.

use super::Machine;
use super::gpu::{ErrorCounts, Gpu};
use crate::code::Code;

impl Gpu {
    /// What a reset leaves: pending modes in force, no instances, volatile counts at nought.
    pub(super) fn after_reset(&mut self) {
        self.mig.current = self.mig.pending;
        self.instances.clear();
        self.processes.clear();
        self.ecc.enabled = self.ecc.pending;
        self.ecc.volatile = ErrorCounts::default();
        self.rows.pending = false;
        self.settings.graphics_lock = None;
        self.settings.memory_lock = None;
        self.settings.drained = false;
        self.faults.reset_required = false;
        self.faults.recovery = None;
    }

    /// A reset, as `nvidia-smi -r` or sysfs make it.
    ///
    /// # Errors
    /// [`Code::GPU_IS_LOST`], [`Code::IN_USE`] while a process has it or a slice of it.
    pub fn reset(&mut self) -> Result<(), Code> {
        self.present()?;
        if self.all_processes().next().is_some() {
            return Err(Code::IN_USE);
        }
        self.after_reset();
        Ok(())
    }
}

impl Machine {
    /// Takes the driver away and brings it back. Instances never survive that; MIG mode does on
    /// Ampere, where it is in the board's memory, and a pending one comes into force.
    pub fn reload_driver(&mut self) {
        self.driver.loaded = true;
        self.driver.load = self.driver.load.wrapping_add(1);
        for gpu in &mut self.gpus {
            let lost = gpu.faults;
            let keeps = gpu.model().is_ok_and(crate::profiles::Model::is_ampere);
            if !keeps {
                gpu.mig.pending = false;
            }
            gpu.after_reset();
            gpu.settings = super::gpu::Settings::default();
            // A reload is no reset of the board.
            gpu.faults = lost;
        }
    }

    /// Restarts the machine: a reload of the driver after which lost GPUs are back.
    pub fn reboot(&mut self) {
        self.reload_driver();
        for gpu in &mut self.gpus {
            gpu.faults.lost = false;
            gpu.faults.reset_required = false;
            gpu.faults.recovery = None;
        }
        self.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mig::Activation;
    use crate::model::{Platform, Process};
    use crate::profiles::model;

    fn process() -> Process {
        Process {
            pid: 7,
            name: String::new(),
            kind: crate::model::ProcessKind::Compute,
            memory_mib: 1,
            lock: None,
        }
    }

    #[test]
    fn a_hopper_loses_mode_and_instances_with_its_driver_and_an_ampere_only_instances() {
        let mut machine = Machine::with(&[model("h100-80").unwrap(), model("a100-40").unwrap()]);
        for index in 0..2 {
            let gpu = machine.gpu_mut(index).unwrap();
            assert_eq!(gpu.set_mig_mode(true), Ok(Activation::Done));
            gpu.create_instance(19, None).unwrap();
        }
        machine.reload_driver();
        assert_eq!(machine.gpus[0].mig_mode(), Ok((false, false)));
        assert_eq!(machine.gpus[1].mig_mode(), Ok((true, true)));
        assert!(machine.gpus.iter().all(|gpu| gpu.instances.is_empty()));
    }

    #[test]
    fn an_ampere_in_a_virtual_machine_waits_for_a_reset_and_says_why() {
        let mut gpu = Gpu::new(model("a100-80").unwrap(), 0);
        gpu.platform = Platform::Passthrough;
        assert_eq!(gpu.set_mig_mode(true), Ok(Activation::Pending(Code::NOT_SUPPORTED)));
        assert_eq!(gpu.mig_mode(), Ok((false, true)));
        gpu.reset().unwrap();
        assert_eq!(gpu.mig_mode(), Ok((true, true)));
    }

    #[test]
    fn a_used_gpu_keeps_its_mode_and_refuses_a_reset() {
        let mut gpu = Gpu::new(model("h100-80").unwrap(), 0);
        gpu.add_process(None, process()).unwrap();
        assert_eq!(gpu.set_mig_mode(true), Ok(Activation::Pending(Code::IN_USE)));
        assert_eq!(gpu.reset(), Err(Code::IN_USE));
        gpu.retain_processes(|_| false);
        gpu.reset().unwrap();
        assert_eq!(gpu.mig_mode(), Ok((true, true)));
    }

    #[test]
    fn only_a_reboot_brings_a_lost_gpu_back() {
        let mut machine = Machine::standard();
        machine.gpus[0].faults.lost = true;
        assert_eq!(machine.gpus[0].reset(), Err(Code::GPU_IS_LOST));
        machine.reload_driver();
        assert_eq!(machine.gpu(0).map(|_| ()), Err(Code::GPU_IS_LOST));
        machine.reboot();
        assert!(machine.gpu(0).is_ok());
    }
}

//! Kernel modules: the ones every machine needs, then drivers of the devices that are there.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use bulkhead_api::boot::{STAGE_ONE_MODULE_DIR, StageOneDriver, StageOneModules};
use nix::errno::Errno;

use crate::alias;
use crate::console::Console;
use crate::sys;

/// Buses that NICs are on.
const BUSES: [&str; 2] = ["/sys/bus/pci/devices", "/sys/bus/virtio/devices"];

/// A module that every machine needs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Its file.
    #[error("open module {0}")]
    Open(String, #[source] io::Error),
    /// The kernel refuses it.
    #[error("load module {0}")]
    Load(String, #[source] Errno),
}

/// Loads all that `modules` asks for on this machine. A driver that fails is said and left out: another NIC may do.
///
/// # Errors
/// A module of the list `always`.
pub fn load(modules: &StageOneModules, console: &Console) -> Result<(), ModuleError> {
    for name in &modules.always {
        load_one(name)?;
    }
    let mut waiting: Vec<&StageOneDriver> = modules.drivers.iter().collect();
    loop {
        let devices = devices();
        let (now, later): (Vec<&StageOneDriver>, Vec<&StageOneDriver>) =
            waiting.iter().partition(|driver| is_for(driver, &devices));
        for name in now.iter().flat_map(|driver| &driver.load) {
            if let Err(error) = load_one(name) {
                console.fault("driver left out", &error);
            }
        }
        // a driver may have brought a bus with more devices
        if now.is_empty() {
            return Ok(());
        }
        waiting = later;
    }
}

fn is_for(driver: &StageOneDriver, devices: &[String]) -> bool {
    driver.aliases.iter().any(|pattern| devices.iter().any(|name| alias::matches(pattern, name)))
}

fn load_one(name: &str) -> Result<(), ModuleError> {
    let file = File::open(format!("{STAGE_ONE_MODULE_DIR}/{name}.ko"))
        .map_err(|source| ModuleError::Open(name.to_owned(), source))?;
    sys::load_module(&file).map_err(|source| ModuleError::Load(name.to_owned(), source))
}

/// Names of all devices on [`BUSES`]. A bus or device that cannot be read has none.
fn devices() -> Vec<String> {
    BUSES.iter().flat_map(|bus| modaliases(Path::new(bus))).collect()
}

fn modaliases(bus: &Path) -> Vec<String> {
    let entries = fs::read_dir(bus).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| fs::read_to_string(entry.path().join("modalias")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_for_the_devices_that_its_aliases_match() {
        let bus = tempfile::tempdir().unwrap();
        let device = bus.path().join("virtio0");
        fs::create_dir(&device).unwrap();
        fs::write(device.join("modalias"), "virtio:d00000001v00001AF4\n").unwrap();
        fs::create_dir(bus.path().join("unreadable")).unwrap();
        let devices = modaliases(bus.path());
        let driver = |alias: &str| StageOneDriver { aliases: vec![alias.into()], load: vec![] };
        assert!(is_for(&driver("virtio:d00000001v*"), &devices));
        assert!(!is_for(&driver("virtio:d00000002v*"), &devices));
        assert!(modaliases(&bus.path().join("none")).is_empty());
    }
}

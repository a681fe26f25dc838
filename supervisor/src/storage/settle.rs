//! Waits until the disks that a machine starts with are there: drivers are loaded and probed beside us.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tracing::warn;

const PAUSE: Duration = Duration::from_millis(100);
/// Ten seconds: a controller that needs longer is broken, and its disk is seen by a later start.
const TRIES: u32 = 100;
/// Class of NVM Express controllers (PCI Code and ID Assignment Specification, 1.2).
const NVME_CLASS: &str = "0x010802";

/// Returns when udev has nothing to do and every NVMe controller is up, or after ten seconds.
pub fn settle(root: &Path) {
    for _ in 0..TRIES {
        if pending(root).is_none() {
            return;
        }
        sleep(PAUSE);
    }
    if let Some(what) = pending(root) {
        warn!(what, "disks are looked at before all are there");
    }
}

/// What there is still to wait for.
fn pending(root: &Path) -> Option<&'static str> {
    // udevd has this file while it works on events (systemd, `udevadm settle`).
    if root.join("run/udev/queue").exists() {
        return Some("udev events are under way");
    }
    let controllers = entries(&root.join("sys/bus/pci/devices"), |device| {
        is(device, "class", NVME_CLASS) && bound_to_nvme(device)
    });
    let up = entries(&root.join("sys/class/nvme"), |controller| {
        is(controller, "state", "live") || is(controller, "state", "dead")
    });
    (up < controllers).then_some("an NVMe controller is not up")
}

/// A controller without a driver yet counts as well; one that another driver has is a tenant's.
fn bound_to_nvme(device: &Path) -> bool {
    fs::read_link(device.join("driver")).map_or(true, |driver| driver.ends_with("nvme"))
}

fn is(dir: &Path, file: &str, value: &str) -> bool {
    fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == value)
}

fn entries(dir: &Path, wanted: impl Fn(&Path) -> bool) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter(|entry| wanted(&entry.path())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_controller_is_waited_for_until_it_is_live_or_dead() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pending(root.path()), None);
        put(root.path(), "sys/bus/pci/devices/0000:01:00.0/class", "0x010802\n");
        assert!(pending(root.path()).is_some());
        put(root.path(), "sys/class/nvme/nvme0/state", "connecting\n");
        assert!(pending(root.path()).is_some());
        for state in ["live\n", "dead\n"] {
            put(root.path(), "sys/class/nvme/nvme0/state", state);
            assert_eq!(pending(root.path()), None);
        }
        let driver = root.path().join("sys/bus/pci/devices/0000:01:00.0/driver");
        put(root.path(), "sys/class/nvme/nvme0/state", "new\n");
        std::os::unix::fs::symlink("../../drivers/vfio-pci", driver).unwrap();
        assert_eq!(pending(root.path()), None, "a tenant's");
    }

    #[test]
    fn udev_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "run/udev/queue", "");
        assert!(pending(root.path()).is_some());
    }
}

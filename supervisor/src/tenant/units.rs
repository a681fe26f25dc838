//! Properties of a lease's slice and service. Pure: names and types as in org.freedesktop.systemd1(5).

use std::path::Path;
use std::time::Duration;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::RestartPolicy;
use zbus::Variant;

use crate::host::cpulist;
use crate::host::systemd::Property;
use crate::tenant::files::LeaseDir;
use crate::tenant::model::Limits;
use crate::tenant::name::{self, Kind};
use crate::tenant::vm::files::VmDir;
use crate::tenant::vm::power;

const BULKHEADD: &str = "/usr/bin/bulkheadd";
const CRUN: &str = "/usr/bin/crun";
const SECOND_US: u64 = 1_000_000;

/// SIGTERM, and SIGKILL after this time (seconds).
pub const STOP_S: u64 = 10;

/// How long a guest has to switch itself off, before that.
pub const POWER_DOWN: Duration = Duration::from_secs(8);

/// Longest pause before a program that ended is started again (seconds).
pub const RESTART_MAX_S: u64 = 60;

/// `infinity` for systemd.
fn bound(value: Option<u64>) -> Variant<'static> {
    Variant::from(value.unwrap_or(u64::MAX))
}

/// The limits, for a new slice and for one that drifted.
#[must_use]
pub fn limits(limits: &Limits) -> Vec<Property> {
    vec![
        ("AllowedCPUs", Variant::from(cpulist::mask(&limits.cpus))),
        ("AllowedMemoryNodes", Variant::from(cpulist::mask(&limits.memory_nodes))),
        ("MemoryMax", bound(limits.memory.map(|memory| memory.get()))),
        ("MemorySwapMax", bound(limits.swap.map(|swap| swap.get()))),
        ("TasksMax", bound(limits.tasks)),
    ]
}

/// A new slice.
#[must_use]
pub fn slice(id: &LeaseId, wanted: &Limits) -> Vec<Property> {
    let mut properties = limits(wanted);
    properties.push(("Description", Variant::from(format!("Lease {id}"))));
    properties
}

/// One command: program, argument list, and whether its failure counts for nothing.
type Command = (String, Vec<String>, bool);

fn crun(runtime: &Path, arguments: &[&str], may_fail: bool) -> Vec<Command> {
    let root = runtime.to_string_lossy();
    let fixed = [CRUN, "--root", &root, "--cgroup-manager=disabled"];
    let line = fixed.iter().chain(arguments).map(|&word| word.to_owned()).collect();
    vec![(CRUN.to_owned(), line, may_fail)]
}

/// A new service: crun in the foreground, in the control group that systemd made for it.
///
/// crun makes no control group of its own (`--cgroup-manager=disabled`), so the container stays in the
/// service's and the slice's limits hold. Standard input is an empty file: crun gives it to the container's
/// user, which must not happen to `/dev/null`. Device access is bounded by systemd as by `DevicePolicy=closed`; of
/// a virtual machine, `disks` are the block devices that it has besides, and the KVM device. It is switched off by
/// its power button before the signals. `devices` are those of the lease, with access.
#[must_use]
pub fn service(
    id: &LeaseId,
    restart: RestartPolicy,
    dir: &LeaseDir,
    runtime: &Path,
    disks: Option<&[u64]>,
    devices: &[(String, String)],
) -> Vec<Property> {
    let text = |path: &Path| Variant::from(path.to_string_lossy().into_owned());
    let container = name::stem(id);
    let (bundle, pid_file) = (dir.path().to_string_lossy(), dir.pid_file());
    let pid_file = pid_file.to_string_lossy();
    let run = ["run", "--bundle", &bundle, "--pid-file", &pid_file, &container];
    let clean = crun(runtime, &["delete", "--force", &container], true);
    let policy = match restart {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "no",
    };
    let mut properties = vec![
        ("Description", Variant::from(format!("Program of lease {id}"))),
        ("Slice", Variant::from(name::unit(id, Kind::Slice))),
        ("Type", Variant::from("exec")),
        ("ExecStartPre", Variant::new(clean.clone())),
        ("ExecStart", Variant::new(crun(runtime, &run, false))),
        ("ExecStopPost", Variant::new(clean)),
        ("Restart", Variant::from(policy)),
        // 1 s, then longer each time; never given up, as only the tenant knows what helps.
        ("RestartUSec", Variant::from(SECOND_US)),
        ("RestartSteps", Variant::from(6_u32)),
        ("RestartMaxDelayUSec", Variant::from(RESTART_MAX_S * SECOND_US)),
        ("StartLimitIntervalUSec", Variant::from(0_u64)),
        // A program that is to be left ended stays visible; with `always` there is no such state.
        ("RemainAfterExit", Variant::from(restart != RestartPolicy::Always)),
        ("KillMode", Variant::from("control-group")),
        ("TimeoutStopUSec", Variant::from(STOP_S * SECOND_US)),
        ("DevicePolicy", Variant::from("closed")),
        // The slice's bound holds: systemd's own for a service is a share of what the host may have, which is less on a small one.
        ("TasksMax", bound(None)),
        ("LimitCORE", Variant::from(0_u64)),
        ("StandardInputFile", text(&dir.stdin())),
        ("StandardOutputFileToAppend", text(&dir.log())),
        ("StandardErrorFileToAppend", text(&dir.log())),
    ];
    let mut allowed = devices.to_vec();
    if let Some(disks) = disks {
        allowed.extend(of_machine(disks));
        properties.push(("ExecStop", Variant::new(vec![power_down(dir)])));
    }
    if !allowed.is_empty() {
        properties.push(("DeviceAllow", Variant::new(allowed)));
    }
    properties
}

/// Devices of a virtual machine: path and access. Block devices by number, whatever is at a path later.
fn of_machine(disks: &[u64]) -> Vec<(String, String)> {
    let numbered = |&device: &u64| {
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        (format!("/dev/block/{major}:{minor}"), "rw".to_owned())
    };
    let kvm = ("/dev/kvm".to_owned(), "rw".to_owned());
    std::iter::once(kvm).chain(disks.iter().map(numbered)).collect()
}

/// A guest that does not heed its button is no failure: the signals are next.
fn power_down(dir: &LeaseDir) -> Command {
    let socket = VmDir::new(dir.path()).socket();
    let words = power::Arguments::words(&socket, POWER_DOWN);
    let line = [BULKHEADD.to_owned(), power::COMMAND.to_owned()].into_iter().chain(words);
    (BULKHEADD.to_owned(), line.collect(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;
    use crate::tenant::plan::tests::id;

    fn property(disks: Option<&[u64]>, name: &str) -> Option<String> {
        with_devices(disks, &[], name)
    }

    fn with_devices(
        disks: Option<&[u64]>,
        devices: &[(String, String)],
        name: &str,
    ) -> Option<String> {
        let (id, paths) = (id("vm-a"), Paths::of_host());
        let dir = LeaseDir::new(&paths, &id);
        let runtime = Path::new("/run/bulkhead/crun");
        let properties = service(&id, RestartPolicy::Always, &dir, runtime, disks, devices);
        let found = properties.into_iter().find(|(found, _)| *found == name);
        found.map(|(_, value)| format!("{value:?}"))
    }

    #[test]
    fn a_machine_has_kvm_and_its_volumes_and_a_container_neither() {
        assert_eq!(property(None, "DeviceAllow"), None);
        assert!(property(None, "DevicePolicy").unwrap().contains("closed"));
        let device = nix::sys::stat::makedev(253, 7);
        let devices = property(Some(&[device]), "DeviceAllow").unwrap();
        assert!(devices.contains("/dev/kvm") && devices.contains("/dev/block/253:7"), "{devices}");
        assert!(property(Some(&[device]), "DevicePolicy").unwrap().contains("closed"));
    }

    #[test]
    fn a_container_has_the_devices_of_its_lease_and_no_other() {
        let gpu = [("/dev/char/195:0".to_owned(), "rw".to_owned())];
        let devices = with_devices(None, &gpu, "DeviceAllow").unwrap();
        assert!(devices.contains("/dev/char/195:0") && !devices.contains("kvm"), "{devices}");
        assert!(with_devices(None, &gpu, "DevicePolicy").unwrap().contains("closed"));
    }

    #[test]
    fn processes_are_bounded_by_the_slice_alone() {
        assert_eq!(property(None, "TasksMax").unwrap(), format!("{:?}", Variant::from(u64::MAX)));
        let of_slice = slice(&id("vm-a"), &Limits { tasks: Some(4096), ..Limits::default() });
        let bound = of_slice.into_iter().find(|(name, _)| *name == "TasksMax").unwrap().1;
        assert_eq!(bound, Variant::from(4096_u64));
    }

    #[test]
    fn a_machine_is_switched_off_before_it_is_killed() {
        assert_eq!(property(None, "ExecStop"), None);
        let stop = property(Some(&[]), "ExecStop").unwrap();
        for word in ["power-down", "/qmp/sock", "--within", "8s"] {
            assert!(stop.contains(word), "{word}: {stop}");
        }
        let timeout = property(Some(&[]), "TimeoutStopUSec").unwrap();
        assert!(timeout.contains(&(STOP_S * SECOND_US).to_string()));
        assert!(POWER_DOWN.as_secs() < STOP_S, "systemd ends the command after that time");
    }
}

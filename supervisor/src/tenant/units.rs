//! Properties of a lease's slice and service. Pure: names and types as in org.freedesktop.systemd1(5).

use std::path::Path;

use bulkhead_api::id::LeaseId;
use bulkhead_api::lease::RestartPolicy;
use zbus::Variant;

use crate::host::cpulist;
use crate::host::systemd::Property;
use crate::tenant::files::LeaseDir;
use crate::tenant::model::Limits;
use crate::tenant::name::{self, Kind};

const CRUN: &str = "/usr/bin/crun";
const SECOND_US: u64 = 1_000_000;

/// SIGTERM, and SIGKILL after this time (seconds).
pub const STOP_S: u64 = 10;

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
/// user, which must not happen to `/dev/null`. Device access is bounded by systemd as by `DevicePolicy=closed`.
#[must_use]
pub fn service(
    id: &LeaseId,
    restart: RestartPolicy,
    dir: &LeaseDir,
    runtime: &Path,
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
    vec![
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
        ("LimitCORE", Variant::from(0_u64)),
        ("StandardInputFile", text(&dir.stdin())),
        ("StandardOutputFileToAppend", text(&dir.log())),
        ("StandardErrorFileToAppend", text(&dir.log())),
    ]
}

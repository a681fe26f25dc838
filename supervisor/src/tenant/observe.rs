//! Looks at one lease: units, control group, files, mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use bulkhead_api::id::LeaseId;

use crate::host::systemd::{Systemd, UnitRow};
use crate::paths::Paths;
use crate::tenant::cgroup;
use crate::tenant::error::StepError;
use crate::tenant::files::LeaseDir;
use crate::tenant::model::{
    Exit, Limits, ObservedLease, ObservedService, ObservedSlice, ServiceState,
};
use crate::tenant::name::{self, Kind};

const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// Leases that have a control group, whoever made it.
#[must_use]
pub fn groups(root: &Path) -> BTreeSet<LeaseId> {
    // Without the parent there are none; units are listed by systemd besides.
    let Ok(entries) = fs::read_dir(cgroup::tenants(root)) else { return BTreeSet::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Some(name::lease(&name)?.0)).collect()
}

/// Removes a control group that systemd does not know, with the groups in it. None is fine.
///
/// # Errors
/// As the kernel says: a group with processes is busy.
pub fn remove_group(group: &Path) -> Result<(), StepError> {
    let error = |source| StepError::Files { doing: "remove", path: group.to_owned(), source };
    match fs::read_dir(group) {
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(()),
        entries => {
            for entry in entries.map_err(error)? {
                let entry = entry.map_err(error)?;
                if entry.file_type().map_err(error)?.is_dir() {
                    remove_group(&entry.path())?;
                }
            }
        }
    }
    match fs::remove_dir(group) {
        Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(()),
        // Who is in it is being killed.
        Err(busy) if busy.kind() == ErrorKind::ResourceBusy => Ok(()),
        removed => removed.map_err(error),
    }
}

/// What systemd says of a service.
#[must_use]
pub fn state(row: &UnitRow) -> ServiceState {
    match (row.active.as_str(), row.sub.as_str()) {
        ("active", "exited") => ServiceState::Ended,
        ("active" | "reloading" | "refreshing", _) => ServiceState::Running,
        ("failed", _) => ServiceState::Failed,
        ("activating", "auto-restart" | "auto-restart-queued") => ServiceState::Restarting,
        ("activating", _) => ServiceState::Starting,
        ("deactivating", _) => ServiceState::Stopping,
        _ => ServiceState::Stopped,
    }
}

/// One lease; `fetching`, `resources` and `pinned` are left empty.
///
/// # Errors
/// Whatever could not be read: the lease is then left alone.
pub async fn lease(
    paths: &Paths,
    systemd: &Systemd,
    rows: &[UnitRow],
    mountinfo: &io::Result<Vec<u8>>,
    id: &LeaseId,
) -> Result<ObservedLease, StepError> {
    let row = |kind| {
        let unit = name::unit(id, kind);
        rows.iter().find(|row| row.name == unit && row.active != "inactive")
    };
    let group = cgroup::tenants(&paths.root).join(name::unit(id, Kind::Slice));
    let active = row(Kind::Slice).is_some();
    let slice = match cgroup::slice(&group)? {
        Some(slice) => Some(ObservedSlice { active, ..slice }),
        // A unit without its group has no limit that holds.
        None if active => {
            let limits = Limits::default();
            Some(ObservedSlice { limits, hugepages: None, active, populated: false })
        }
        None => None,
    };
    let dir = LeaseDir::new(paths, id);
    let service = match row(Kind::Service) {
        Some(row) => Some(service(systemd, row, &dir, &group, id).await?),
        None => None,
    };
    let files = |source| StepError::Files { doing: "read", path: dir.path().to_owned(), source };
    let (found, image) = dir.observe().map_err(files)?;
    let mountinfo = mountinfo.as_ref().map_err(|error| StepError::Files {
        doing: "read",
        path: "/proc/self/mountinfo".into(),
        source: error.kind().into(),
    })?;
    Ok(ObservedLease {
        slice,
        service,
        mounts: dir.mounts(mountinfo).len(),
        files: found,
        fetching: false,
        image_digest: image.map(|image| image.digest),
        started: dir.pid().is_some(),
        resources: BTreeMap::new(),
        pinned: None,
    })
}

async fn service(
    systemd: &Systemd,
    row: &UnitRow,
    dir: &LeaseDir,
    group: &Path,
    id: &LeaseId,
) -> Result<ObservedService, StepError> {
    let state = state(row);
    let restarts: u32 = systemd.property(row, SERVICE, "NRestarts").await?;
    let inside = cgroup::processes(&group.join(name::unit(id, Kind::Service)))?;
    let ended =
        matches!(state, ServiceState::Ended | ServiceState::Failed | ServiceState::Restarting);
    let exit = if ended {
        let code: i32 = systemd.property(row, SERVICE, "ExecMainCode").await?;
        let status: i32 = systemd.property(row, SERVICE, "ExecMainStatus").await?;
        // CLD_EXITED, CLD_KILLED and CLD_DUMPED of waitid(2); 0 while it has not ended.
        match code {
            libc::CLD_EXITED => Some(Exit::Status(status)),
            libc::CLD_KILLED | libc::CLD_DUMPED => Some(Exit::Signal(status)),
            _ => None,
        }
    } else {
        None
    };
    let pid = dir.pid().filter(|pid| inside.contains(pid));
    Ok(ObservedService { state, pid, restarts, exit })
}

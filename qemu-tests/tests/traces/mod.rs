//! What of leases could be left on a host, to be compared with how it was before any came.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead_qemu_tests::fixture::until;
use bulkhead_qemu_tests::guest::Guest;

/// What is there, by kind.
pub(crate) type Traces = BTreeMap<&'static str, BTreeSet<String>>;

/// One line a thing. What is to be there (statements, receipts, the folder that came with the first volume, but not what is in
/// it) and what comes and goes by itself (numbers of processes) is left out.
const KINDS: [(&str, &str); 12] = [
    (
        "units",
        "systemctl list-units --all --plain --no-legend --type=service,slice,scope,mount | cut -d' ' -f1",
    ),
    ("groups", "find /sys/fs/cgroup/tenant.slice -type d"),
    ("partitions", "grep -r . /sys/fs/cgroup/tenant.slice/cpuset.cpus* 2>/dev/null"),
    ("processes", "cat /proc/[0-9]*/cgroup 2>/dev/null | grep tenant"),
    ("mounts", "cut -d' ' -f5 /proc/1/mountinfo"),
    ("disks", "ls /sys/block /dev/mapper"),
    ("keys", "grep -v keyring /proc/keys | cut -c 40-"),
    (
        "files",
        "find /var/lib/bulkhead /run/bulkhead /dev/shm /tmp -not -path '*/isolation/*' -not -path '*/receipts*' -not -path '*/state/volumes' -not -name 'systemd-private*'",
    ),
    (
        "namespaces",
        "for kind in mnt net pid user ipc uts cgroup; do echo $kind $(readlink /proc/[0-9]*/ns/$kind | sort -u | wc -l); done",
    ),
    ("ipc", "tail -qn +2 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg"),
    ("pages", "cat /sys/devices/system/node/node*/hugepages/*/nr_hugepages | paste -sd' '"),
    ("ledger", "bulkhead host ledger; bulkhead host quarantine"),
];

/// What is there now.
fn look(guest: &mut Guest) -> Result<Traces> {
    let mut traces = Traces::new();
    for (kind, command) in KINDS {
        let text = guest.ask(command)?.text;
        traces.insert(kind, text.lines().map(|line| line.trim().to_owned()).collect());
    }
    Ok(traces)
}

fn differences(before: &Traces, after: &Traces) -> Vec<String> {
    let mut found = Vec::new();
    let nothing = BTreeSet::new();
    for (kind, lines) in after {
        let known = before.get(kind).unwrap_or(&nothing);
        found.extend(lines.difference(known).map(|line| format!("{kind}: {line} is left")));
        found.extend(known.difference(lines).map(|line| format!("{kind}: {line} is gone")));
    }
    found
}

/// What is there once two looks see the same, or the same as `wanted`; at the latest after a minute.
pub(crate) fn settled(guest: &mut Guest, wanted: Option<&Traces>) -> Result<Traces> {
    let mut last = look(guest)?;
    let found = until("traces that stay", Duration::from_secs(60), || {
        let now = look(guest)?;
        let rest = differences(wanted.unwrap_or(&last), &now).is_empty();
        last = now;
        Ok(rest.then_some(()))
    });
    match (found, wanted) {
        (Err(error), None) => Err(error),
        // The comparison that follows says what is different.
        _ => Ok(last),
    }
}

/// Nothing is left and nothing is gone.
pub(crate) fn compare(fresh: &Traces, left: &Traces) -> Result<()> {
    let found = differences(fresh, left);
    ensure!(found.is_empty(), "not as on a fresh host:\n{}", found.join("\n"));
    Ok(())
}

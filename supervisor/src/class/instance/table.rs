//! Tables of the kernel in which something of a lease may be left. Pure.

use bulkhead_api::isolation::IdRange;

/// An object of System V IPC (proc_sysvipc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IpcObject {
    /// Its number.
    pub(super) id: i32,
    /// Owner and creator, users and groups.
    pub(super) owners: [u32; 4],
}

/// Reads `/proc/sysvipc/{shm,msg,sem}`; `None` where the text is not such a table. `number` is the name of the
/// column with the objects' numbers.
pub(super) fn ipc(text: &str, number: &str) -> Option<Vec<IpcObject>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split_whitespace().collect();
    let column = |name: &str| header.iter().position(|title| *title == name);
    let id = column(number)?;
    let owners = [column("uid")?, column("gid")?, column("cuid")?, column("cgid")?];
    let object = |line: &str| {
        let row: Vec<&str> = line.split_whitespace().collect();
        let owner = |at: usize| row.get(at)?.parse::<u32>().ok();
        let [uid, gid, cuid, cgid] = owners.map(owner);
        let owners = [uid?, gid?, cuid?, cgid?];
        Some(IpcObject { id: row.get(id)?.parse().ok()?, owners })
    };
    lines.map(object).collect()
}

/// Users with keys and how many, from `/proc/key-users` (keyrings(7)); `None` where the text is not such a table.
pub(super) fn key_users(text: &str) -> Option<Vec<(u32, u64)>> {
    let row = |line: &str| {
        let (user, rest) = line.split_once(':')?;
        let (keys, _) = rest.split_whitespace().nth(1)?.split_once('/')?;
        Some((user.trim().parse().ok()?, keys.parse().ok()?))
    };
    text.lines().map(row).collect()
}

/// What `status` of a process says of whose it is (proc_pid_status(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// User ids (real, effective, saved, file system), group ids likewise, and supplementary groups.
    pub(super) ids: Vec<u32>,
    /// It was killed, and sleeps where no signal reaches it.
    pub(super) unkillable: bool,
}

/// `SIGKILL` in the masks of pending signals.
const KILL: u64 = 1 << 8;

/// Reads the text of `status`. What is not in it is absent.
pub(super) fn process(text: &str) -> Process {
    let mut process = Process::default();
    let (mut asleep, mut killed) = (false, false);
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Uid" | "Gid" | "Groups" => {
                process
                    .ids
                    .extend(value.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            "State" => asleep = value.starts_with('D'),
            "SigPnd" | "ShdPnd" => {
                killed |= u64::from_str_radix(value, 16).is_ok_and(|mask| mask & KILL != 0);
            }
            _ => {}
        }
    }
    process.unkillable = asleep && killed;
    process
}

/// Whether ids of a namespace are among those of a lease. A map from the host's id 0 on is the host's own.
pub(super) fn maps_into(map: &[IdRange], range: IdRange) -> bool {
    map.iter().any(|ids| ids.first != 0 && ids.meets(range))
}

/// A mount of the host's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount<'a> {
    /// Where, as the kernel writes it.
    pub(super) point: &'a str,
    /// Kind of file system.
    pub(super) kind: &'a str,
}

/// Reads `mountinfo` (proc_pid_mountinfo(5)); lines of another form are left out.
pub(super) fn mounts(text: &str) -> Vec<Mount<'_>> {
    let mount = |line| {
        let (before, after): (&str, &str) = str::split_once(line, " - ")?;
        Some(Mount { point: before.split(' ').nth(4)?, kind: after.split(' ').next()? })
    };
    text.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHM: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n         0          3   600                  4096   812   812      0 268566528 268566529     0     0          0          0 1700000000                     0                     0\n";
    const SEM: &str =
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";

    #[test]
    fn objects_are_read_with_all_their_owners() {
        let object = IpcObject { id: 3, owners: [268_566_528, 268_566_529, 0, 0] };
        assert_eq!(ipc(SHM, "shmid"), Some(vec![object]));
        assert_eq!(ipc(SEM, "semid"), Some(Vec::new()));
        for bad in ["", "key semid uid gid cuid", &SHM.replace("268566528", "x")] {
            assert_eq!(ipc(bad, "shmid"), None, "{bad}");
        }
        for kind in ["shm", "msg", "sem"] {
            let text = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap();
            let number = if kind == "msg" { "msqid".to_owned() } else { format!("{kind}id") };
            ipc(&text, &number).expect("this kernel's own table");
        }
    }

    #[test]
    fn users_with_keys_are_read() {
        let text = "    0:     9 8/8 3/1000000 40/25000000\n268566528:     2 1/1 1/200 9/20000\n";
        assert_eq!(key_users(text), Some(vec![(0, 8), (268_566_528, 1)]));
        assert_eq!(key_users(""), Some(Vec::new()));
        assert_eq!(key_users("0: 9\n"), None);
        key_users(&std::fs::read_to_string("/proc/key-users").unwrap()).expect("this kernel's own");
    }

    #[test]
    fn a_process_is_told_by_any_of_its_ids() {
        let text = "Name:\tsh\nState:\tD (disk sleep)\nUid:\t0\t0\t7\t0\nGid:\t1\t1\t1\t1\n\
            Groups:\t4 99 \nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n";
        let seen = process(text);
        assert_eq!(seen.ids, [0, 0, 7, 0, 1, 1, 1, 1, 4, 99]);
        assert!(seen.unkillable);
        assert!(!process(&text.replace("D (disk sleep)", "S (sleeping)")).unkillable);
        assert!(!process(&text.replace("100\n", "000\n")).unkillable);
    }

    #[test]
    fn the_hosts_own_map_is_nobodys() {
        let lease = IdRange { first: 65_536 * 9, count: 65_536 };
        let range = |first, count| IdRange { first, count };
        assert!(!maps_into(&[range(0, u32::MAX)], lease));
        assert!(maps_into(&[range(65_536 * 10 - 1, 1)], lease));
        assert!(!maps_into(&[range(65_536 * 10, 1)], lease));
    }

    #[test]
    fn mounts_are_read_with_their_kind() {
        let text = "22 1 0:21 / /dev/mqueue rw,nosuid shared:5 - mqueue mqueue rw\nnot a mount\n";
        assert_eq!(mounts(text), [Mount { point: "/dev/mqueue", kind: "mqueue" }]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = (ipc(&text, "shmid"), key_users(&text), process(&text), mounts(&text));
            let below = format!("key shmid uid gid cuid cgid\n{text}");
            let _ = ipc(&below, "shmid");
        }
    }
}

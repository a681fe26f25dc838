//! A host as a directory tree, on which one thing after the other is left.

use std::os::unix::fs::chown;

use bulkhead_api::resource::Resource;

use super::*;
use crate::class::testing::{FIRST_ID, order};

const IPC: &str = "key shmid msqid semid perms uid gid cuid cgid\n";

struct Host {
    dir: tempfile::TempDir,
    class: Instance,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { class: Instance::new(Paths::below(dir.path())), dir };
        host.process(1, "0", "0 0 4294967295");
        host.write("proc/self/mountinfo", "40 1 0:40 / /dev/mqueue rw - mqueue mqueue rw\n");
        for kind in ["shm", "msg", "sem"] {
            host.write(&format!("proc/sysvipc/{kind}"), IPC);
        }
        host.write("proc/key-users", "    0:     9 8/8 3/1000000 40/25000000\n");
        for dir in ["dev/shm", "dev/mqueue", "tmp", "var/tmp", "run/bulkhead/crun"] {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        host
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn write(&self, below: &str, text: &str) {
        fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        fs::write(self.path(below), text).unwrap();
    }

    fn process(&self, pid: u32, user: &str, map: &str) {
        let status = format!("State:\tS (sleeping)\nUid:\t{user}\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
        self.write(&format!("proc/{pid}/status"), &status);
        for file in ["uid_map", "gid_map"] {
            self.write(&format!("proc/{pid}/{file}"), map);
        }
    }

    fn erase(&self) -> Result<Erased, ClassError> {
        self.class.erase(&order(Resource::Instance))
    }

    /// What is left, told as something to try again.
    fn left(&self) -> String {
        let error = self.erase().unwrap_err();
        let ClassError::Refused { doing, why } = error else { panic!("{error}") };
        assert_eq!(doing, "see that nothing of lease acme/a is left");
        why
    }
}

#[test]
fn a_host_on_which_nothing_is_left_says_so_line_by_line() {
    let erased = Host::new().erase().unwrap();
    assert_eq!(erased.methods, ["removeInstance"]);
    assert!(erased.evidence.iter().all(|line| line.found == "none"), "{erased:?}");
    assert_eq!(erased.evidence.len(), 14);
}

#[test]
fn a_process_with_any_id_of_the_lease_is_left() {
    let host = Host::new();
    host.process(77, &(FIRST_ID + 65_535).to_string(), "0 0 4294967295");
    let why = host.left();
    assert!(why.ends_with(&format!("process 77 has id {}", FIRST_ID + 65_535)), "{why}");
    // The next lease's first id is not ours.
    host.process(77, &(FIRST_ID + 65_536).to_string(), "0 0 4294967295");
    host.erase().unwrap();
    let ours = format!("0 {FIRST_ID} 65536");
    host.process(77, "0", &ours);
    let why = host.left();
    assert!(why.contains("process 77 is in a user namespace with the lease's ids"), "{why}");
    fs::remove_dir_all(host.path("proc/1")).unwrap();
    fs::remove_dir_all(host.path("proc/77")).unwrap();
    assert!(host.left().ends_with("/proc shows no process at all"));
}

#[test]
fn a_process_that_cannot_be_killed_holds_up_everything_that_it_may_still_have() {
    let host = Host::new();
    let status = format!("State:\tD (disk sleep)\nUid:\t{FIRST_ID}\nShdPnd:\t0000000000000100\n");
    host.write("proc/77/status", &status);
    // Not `ReadBack`: with the instance in quarantine its memory and cores would be given out.
    let why = host.left();
    assert!(
        why.contains("process 77 has id") && why.ends_with("reboot the host if it stays"),
        "{why}"
    );
}

#[test]
fn mounts_namespaces_and_files_are_left_by_their_names() {
    let dir = Paths::below(Path::new("/")).leases().join("acme/a");
    let point = |host: &Host| host.path(dir.strip_prefix("/").unwrap().to_str().unwrap());
    let host = Host::new();
    let mqueue = fs::read_to_string(host.path("proc/self/mountinfo")).unwrap();
    let mount = |point: &str, kind: &str| {
        host.write(
            "proc/self/mountinfo",
            &format!("{mqueue}41 1 0:41 / {point} rw - {kind} x rw\n"),
        );
    };
    mount(&format!("{}/volumes/v", point(&host).display()), "ext4");
    assert!(host.left().contains("mounts below "));
    mount("/run/netns/acme.a", "nsfs");
    assert_eq!(host.left(), "namespace files of the lease: /run/netns/acme.a");
    mount("/run/netns/acme.ab", "nsfs");
    host.erase().unwrap();
    for (below, what) in [
        (
            "sys/fs/cgroup/tenant.slice/tenant-acme.a.slice/cgroup.procs",
            "control group of the lease",
        ),
        ("var/lib/bulkhead/leases/acme/a/image.json", "directory of the lease"),
        ("run/bulkhead/crun/acme.a/status", "state and sockets in "),
        ("run/bulkhead/acme.a.sock", "state and sockets in "),
        ("run/bulkhead/vm/acme.a.qmp", "state and sockets in "),
    ] {
        host.write(below, "");
        let why = host.left();
        assert!(why.starts_with(what), "{below}: {why}");
        let top = host.path(below);
        fs::remove_file(&top).unwrap();
        if !top.parent().unwrap().ends_with("bulkhead") {
            fs::remove_dir_all(top.parent().unwrap()).unwrap();
        }
    }
    host.write("run/bulkhead/crun/acme.ab/status", "");
    host.erase().unwrap();
}

#[test]
fn temporary_files_and_queues_of_the_lease_are_removed_and_no_others() {
    let host = Host::new();
    let files = ["dev/shm/x", "tmp/deep/er/x", "var/tmp/x", "dev/mqueue/q"];
    for file in files {
        host.write(file, "secret");
        host.write(&format!("{file}.host"), "");
        chown(host.path(file), Some(FIRST_ID), None).expect("tests of the supervisor run as root");
    }
    fs::create_dir_all(host.path("tmp/dir/below")).unwrap();
    chown(host.path("tmp/dir"), None, Some(FIRST_ID + 9)).unwrap();
    let erased = host.erase().unwrap();
    assert_eq!(erased.methods, ["removeInstance", "removeMessageQueues", "removeTemporaryFiles"]);
    for file in files {
        assert!(!host.path(file).exists(), "{file}");
        assert!(host.path(&format!("{file}.host")).exists(), "{file}");
    }
    assert!(!host.path("tmp/dir").exists());
}

#[test]
fn a_link_of_the_lease_is_removed_and_not_followed() {
    let host = Host::new();
    host.write("outside/kept", "");
    std::os::unix::fs::symlink(host.path("outside"), host.path("tmp/link")).unwrap();
    std::os::unix::fs::lchown(host.path("tmp/link"), Some(FIRST_ID), None).unwrap();
    host.erase().unwrap();
    assert!(host.path("outside/kept").exists());
    assert!(fs::symlink_metadata(host.path("tmp/link")).is_err());
}

#[test]
fn objects_and_keys_that_stay_are_told() {
    let host = Host::new();
    // An object of this number is in no real table; removing it changes nothing here.
    host.write(
        "proc/sysvipc/sem",
        &format!("{IPC}0 2147483647 2147483647 2147483647 600 0 0 {FIRST_ID} 0\n"),
    );
    let why = host.left();
    assert!(why.ends_with("semid 2147483647"), "{why}");
    host.write("proc/sysvipc/sem", IPC);
    host.write("proc/sysvipc/msg", "nothing that is known\n");
    let error = host.erase().unwrap_err().to_string();
    assert!(error.contains("expected a table"), "{error}");
    host.write("proc/sysvipc/msg", IPC);
    host.write("proc/key-users", &format!("{}: 1 1/1 1/200 9/20000\n", FIRST_ID + 1));
    let why = host.left();
    assert_eq!(why, format!("kernel keys of the lease's users: user {}", FIRST_ID + 1));
}

#[test]
fn a_host_where_queues_cannot_be_seen_is_not_clean() {
    let host = Host::new();
    host.write("proc/self/mountinfo", "\n");
    let why = host.left();
    assert!(why.ends_with("start dev-mqueue.mount"), "{why}");
}

#[test]
fn keys_of_a_user_are_gone_soon_after() {
    use std::time::{Duration, Instant};
    // A real user of no lease and its real keyrings.
    let user = 0x7fff_0000;
    let keys = || {
        let text = fs::read_to_string("/proc/key-users").unwrap();
        let users = table::key_users(&text).unwrap();
        users.iter().find(|(id, _)| *id == user).map_or(0, |(_, keys)| *keys)
    };
    sys::invalidate_keyrings(user).unwrap();
    // The kernel collects them in the background.
    let patience = Instant::now() + Duration::from_secs(60);
    while keys() > 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(keys(), 0);
}

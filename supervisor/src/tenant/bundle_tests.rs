use std::collections::BTreeSet;

use bulkhead_api::units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::tenant::plan::tests::{id, spec};

const PASSWD: &str =
    "root:x:0:0:root:/:/bin/sh\ntenant:x:1000:1001::/:/bin/sh\nfar:x:70000:1::/:\n";
const GROUP: &str = "root:x:0:\nvideo:x:44:\n";

fn entry() -> Entry {
    let holding = Holding {
        cpus: BTreeSet::from([2, 3]),
        memory_nodes: BTreeSet::from([0]),
        memory: Bytes::new(64 << 20),
        ..Holding::default()
    };
    Entry::granted(id("llm-a"), spec(1, 64), holding)
}

fn program() -> Program {
    Program { entrypoint: vec!["/bin/app".to_owned()], ..Program::default() }
}

/// The configuration as crun reads it.
fn json_of(entry: &Entry, program: &Program) -> Value {
    let dir = Path::new("/leases/acme/llm-a");
    serde_json::to_value(config(entry, program, User::default(), dir).unwrap()).unwrap()
}

#[test]
fn a_container_has_nothing_that_it_was_not_given() {
    let config = json_of(&entry(), &program());
    assert_eq!(config["hostname"], "llm-a");
    assert_eq!(config["root"]["readonly"], true);
    assert_eq!(config["process"]["noNewPrivileges"], true);
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(config["process"]["capabilities"][set], json!([]), "{set}");
    }
    let namespaces: BTreeSet<&str> = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| {
            assert!(namespace.get("path").is_none(), "of its own: {namespace}");
            namespace["type"].as_str().unwrap()
        })
        .collect();
    let all = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
    assert_eq!(namespaces, BTreeSet::from(all));
    assert!(config["linux"].get("devices").is_none_or(|devices| devices == &json!([])));
    for mount in config["mounts"].as_array().unwrap() {
        let kind = mount["type"].as_str().unwrap();
        assert!(
            ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"].contains(&kind),
            "nothing of the host: {mount}"
        );
        let options = mount["options"].as_array().unwrap();
        assert!(options.contains(&json!("nosuid")), "{mount}");
        let bounded = options.iter().any(|option| option.as_str().unwrap().starts_with("size="));
        assert!(kind != "tmpfs" || bounded, "{mount}");
    }
}

#[test]
fn dev_is_small_and_read_only_and_open_files_are_bounded() {
    let config = json_of(&entry(), &program());
    let mounts = config["mounts"].as_array().unwrap();
    let dev = mounts.iter().find(|mount| mount["destination"] == "/dev").unwrap();
    for option in ["ro", "nr_inodes=1024", "size=65536"] {
        assert!(dev["options"].as_array().unwrap().contains(&json!(option)), "{dev}");
    }
    let limits = config["process"]["rlimits"].as_array().unwrap();
    let files = limits.iter().find(|limit| limit["type"] == "RLIMIT_NOFILE").unwrap();
    assert_eq!((&files["soft"], &files["hard"]), (&json!(1024), &json!(65_536)));
    let seen = u64::try_from(crate::proof::reach::MOST_OPEN).unwrap();
    assert!(MOST_OPEN_FILES < seen, "one process alone is always seen whole");
}

#[test]
fn a_volume_is_bound_where_the_lease_wants_it_and_nothing_else_is() {
    let mut entry = entry();
    for (name, path) in [("data", None), ("scratch", Some("/tmp/big"))] {
        entry.spec.volumes.push(Volume {
            name: name.parse().unwrap(),
            size: Bytes::new(64 << 20),
            local: true,
            path: path.map(ToOwned::to_owned),
        });
    }
    let config = json_of(&entry, &program());
    let mounts = config["mounts"].as_array().unwrap();
    let binds: Vec<(&str, &str)> = mounts
        .iter()
        .filter(|mount| mount["type"] == "bind")
        .map(|mount| {
            for option in ["nosuid", "nodev"] {
                assert!(mount["options"].as_array().unwrap().contains(&json!(option)), "{mount}");
            }
            (mount["source"].as_str().unwrap(), mount["destination"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("/leases/acme/llm-a/volumes/data", "/volumes/data"),
        ("/leases/acme/llm-a/volumes/scratch", "/tmp/big"),
    ];
    assert_eq!(binds, expected);
    assert!(mounts.last().unwrap()["destination"] == "/tmp/big", "over what is mounted at /tmp");
}

#[test]
fn nothing_of_the_configuration_is_lost_on_its_way_through_the_types() {
    let written = json_of(&entry(), &program());
    let seccomp: Value = serde_json::from_str(include_str!("seccomp.json")).unwrap();
    let (ours, theirs) = (&seccomp["syscalls"], &written["linux"]["seccomp"]["syscalls"]);
    let (ours, theirs) = (ours.as_array().unwrap(), theirs.as_array().unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        for key in ["names", "action", "errnoRet"] {
            assert_eq!(ours[key], theirs[key]);
        }
        assert_eq!(ours["args"][0]["value"], theirs["args"][0]["value"]);
    }
    assert_eq!(written["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    assert_eq!(written["process"]["oomScoreAdj"], 500);
}

/// Whether the profile refuses the call with this first argument, read as libseccomp does: unsigned, 64 bits.
fn refused(call: &str, argument: u64) -> bool {
    let config = json_of(&entry(), &program());
    let rules = config["linux"]["seccomp"]["syscalls"].as_array().unwrap().clone();
    rules.iter().filter(|rule| rule["names"].as_array().unwrap().contains(&json!(call))).any(
        |rule| {
            assert_eq!(rule["action"], "SCMP_ACT_ERRNO");
            rule["args"].as_array().into_iter().flatten().all(|arg| {
                let value = arg["value"].as_u64().unwrap();
                match arg["op"].as_str().unwrap() {
                    "SCMP_CMP_EQ" => argument == value,
                    "SCMP_CMP_GT" => argument > value,
                    "SCMP_CMP_MASKED_EQ" => argument & value == arg["valueTwo"].as_u64().unwrap(),
                    other => panic!("{other}"),
                }
            })
        },
    )
}

#[test]
fn sockets_are_local_ip_or_netlink_however_the_family_is_written() {
    let allowed = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    for call in ["socket", "socketpair"] {
        for family in 1..64 {
            let allowed = allowed.contains(&family);
            assert_eq!(refused(call, u64::try_from(family).unwrap()), !allowed, "{call} {family}");
        }
        // The kernel takes the lower half of the argument for the family.
        for family in [libc::AF_ALG, libc::AF_VSOCK] {
            let disguised = 1 << 32 | u64::try_from(family).unwrap();
            assert!(refused(call, disguised), "{call} {disguised:#x}");
        }
    }
}

#[test]
fn no_namespace_can_be_made() {
    assert!(refused("unshare", 0) && refused("setns", 0) && refused("clone3", 0));
    assert!(!refused("clone", u64::try_from(libc::CLONE_VM | libc::CLONE_THREAD).unwrap()));
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        assert!(refused("clone", u64::try_from(flag | libc::CLONE_VM).unwrap()), "{flag:#x}");
    }
}

#[test]
fn two_leases_share_no_ids() {
    let mut other = entry();
    other.holding.cpus = BTreeSet::from([4]);
    let base = |entry: &Entry| {
        json_of(entry, &program())["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap()
    };
    assert!(base(&other) - base(&entry()) >= u64::from(IDS));
    assert!(first_id(&Holding::default()).is_err());
}

#[test]
fn arguments_and_environment_are_the_images_unless_the_lease_has_its_own() {
    let mut program = program();
    program.cmd = vec!["run".to_owned()];
    program.cwd = "/srv".to_owned();
    let config = json_of(&entry(), &program);
    assert_eq!(config["process"]["args"], json!(["/bin/app", "run"]));
    assert_eq!(config["process"]["cwd"], "/srv");
    let mut entry = entry();
    entry.spec.workload.args = vec!["other".to_owned()];
    program.env = vec!["PATH=/bin".to_owned()];
    let config = json_of(&entry, &program);
    assert_eq!(config["process"]["args"], json!(["/bin/app", "other"]));
    assert_eq!(config["process"]["env"], json!(["PATH=/bin"]));
}

#[test]
fn users_are_found_by_name_and_number() {
    for (text, expected) in [
        ("", Some((0, 0))),
        ("tenant", Some((1000, 1001))),
        ("tenant:video", Some((1000, 44))),
        ("7", Some((7, 0))),
        ("7:8", Some((7, 8))),
        ("nobody", None),
        ("tenant:nogroup", None),
        ("70000", None),
        ("far", None),
        ("-1", None),
    ] {
        let found = user(text, PASSWD, GROUP).ok().map(|user| (user.user, user.group));
        assert_eq!(found, expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_users_and_files_of_an_image_are_read_or_refused(
        text in ".{0,20}", passwd in "[a-z0-9:\n]{0,60}", group in "[a-z0-9:\n]{0,60}",
    ) {
        if let Ok(user) = user(&text, &passwd, &group) {
            prop_assert!(user.user < IDS && user.group < IDS);
        }
    }
}

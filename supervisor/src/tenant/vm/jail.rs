//! The jail of a virtual machine: QEMU in the same container that a tenant's program would run in. Pure.
//!
//! ```text
//!  /usr        the host's, read-only: QEMU and its libraries      /image   the lease's image, read-only
//!  /lib64 …    links into it                                      /disks   block devices of the lease's volumes
//!  /dev        as a container's, and kvm                          /qmp     where QEMU makes its socket
//! ```
//!
//! Namespaces, ids, system calls and limits are the container's ([`crate::tenant::bundle`]). A guest that breaks out of QEMU is
//! where a tenant's own program would have been from the start.

use std::path::PathBuf;

use bulkhead_api::id::VolumeName;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::tenant::bundle::{self, BundleError, Process};
use crate::tenant::vm::files::VmDir;
use crate::tenant::vm::guest::{DISKS, Guest, IMAGE, QMP};
use crate::tenant::vm::image::Boot;

/// Links of the jail's root, as Debian's root has them.
pub const LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// Folders of the jail's root that are mounted over, parents first.
pub const FOLDERS: [&str; 8] = ["dev", "disks", "image", "proc", "qmp", "usr", "var", "var/tmp"];

/// What a guest can write to the disk that it boots from until it is switched off; lies in the lease's memory.
const SCRATCH: u64 = 64 << 20;

fn mounts(dir: &VmDir, scratch: u64, disks: &[Disk]) -> Value {
    let bind = |from: &str, to: &str, options: &[&str]| {
        let options: Vec<&str> = ["bind", "nosuid"].iter().chain(options).copied().collect();
        json!({ "destination": to, "type": "bind", "source": from, "options": options })
    };
    let tmpfs = |to: &str, options: &[&str], size: u64| {
        let mut options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        options.extend(["nosuid".to_owned(), "noexec".to_owned(), format!("size={size}")]);
        json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": options })
    };
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let plain = ["nosuid", "noexec", "nodev"];
    let fixed = [
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": plain }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": bundle::DEV }),
        bind("/dev/kvm", "/dev/kvm", &["noexec"]),
        bind("/usr", "/usr", &["ro", "nodev"]),
        bind(&text(dir.image()), IMAGE, &["ro", "nodev", "noexec"]),
        bind(&text(dir.qmp()), QMP, &["nodev", "noexec"]),
        // QEMU's files of a moment (QEMU block.c, create_tmp_file).
        tmpfs("/var/tmp", &["nodev", "mode=1777"], scratch),
    ];
    let disk = |Disk { name, path }: &Disk| {
        bind(&path.to_string_lossy(), &format!("{DISKS}/{name}"), &["noexec"])
    };
    fixed.into_iter().chain(disks.iter().map(disk)).collect()
}

/// A volume of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name.
    pub name: VolumeName,
    /// Its block device on the host, the lease's own. What is there when the machine starts is bound.
    pub path: PathBuf,
}

/// `config.json` of a virtual machine.
///
/// # Errors
/// [`BundleError`].
pub fn config(
    dir: &VmDir,
    guest: &Guest,
    disks: &[Disk],
    first_id: u32,
) -> Result<Spec, BundleError> {
    let scratch = match guest.boot {
        Boot::Disk { .. } => SCRATCH,
        Boot::Kernel { .. } => 1 << 20,
    };
    let process = Process {
        args: guest.command(),
        env: vec!["TMPDIR=/var/tmp".to_owned()],
        cwd: "/",
        user: bundle::User::default(),
    };
    let config = json!({
        "ociVersion": "1.0.2",
        "hostname": guest.id.name,
        "root": { "path": dir.jail(), "readonly": true },
        "process": bundle::process(process),
        "mounts": mounts(dir, scratch, disks),
        "linux": bundle::linux(first_id)?,
    });
    serde_json::from_value(config).map_err(BundleError::Form)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::tenant::vm::guest::tests::guest;

    fn json_of(guest: &Guest) -> Value {
        let dir = VmDir::new(Path::new("/leases/acme/vm"));
        let path = PathBuf::from("/dev/mapper/bh-acme.vm.data");
        let disks = [Disk { name: "data".parse().unwrap(), path }];
        serde_json::to_value(config(&dir, guest, &disks, 1 << 28).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_is_kept_in_as_a_container_is() {
        let config = json_of(&guest());
        assert_eq!(config["root"], json!({ "path": "/leases/acme/vm/jail", "readonly": true }));
        assert_eq!(config["process"]["noNewPrivileges"], true);
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(config["process"]["capabilities"][set], json!([]), "{set}");
        }
        let kinds: BTreeSet<&str> = config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| namespace["type"].as_str().unwrap())
            .collect();
        let all = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
        assert_eq!(kinds, BTreeSet::from(all));
        assert_eq!(config["linux"]["uidMappings"][0]["hostID"], 1 << 28);
        assert!(config["linux"]["seccomp"]["syscalls"].as_array().unwrap().len() > 4);
    }

    #[test]
    fn of_the_host_it_sees_programs_read_only_kvm_and_what_the_lease_has() {
        let config = json_of(&guest());
        let mut binds = BTreeSet::new();
        for mount in config["mounts"].as_array().unwrap() {
            let option = |name: &str| mount["options"].as_array().unwrap().contains(&json!(name));
            assert!(option("nosuid"), "{mount}");
            if mount["destination"] == "/dev" {
                assert!(option("ro") && option("nr_inodes=1024"), "{mount}");
            }
            if mount["type"] == "bind" {
                let from = mount["source"].as_str().unwrap().to_owned();
                let writable = !option("ro");
                let devices = !option("nodev");
                binds.insert((from, writable, devices));
            }
        }
        for mount in config["mounts"].as_array().unwrap() {
            let to = mount["destination"].as_str().unwrap().trim_start_matches('/');
            let made = FOLDERS.contains(&to) || to == "disks/data" || to == "dev/kvm";
            assert!(made, "crun may not make {to}");
        }
        let of = |from: &str, writable, devices| (from.to_owned(), writable, devices);
        let expected = [
            of("/dev/kvm", true, true),
            of("/usr", false, false),
            of("/leases/acme/vm/rootfs", false, false),
            of("/dev/mapper/bh-acme.vm.data", true, true),
            of("/leases/acme/vm/qmp", true, false),
        ];
        assert_eq!(binds, BTreeSet::from(expected));
    }
}

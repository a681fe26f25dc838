//! The container's configuration for crun (OCI runtime spec 1.2, `config.md`, `config-linux.md`). Pure, but for [`make`].
//!
//! Every namespace of its own (network: loopback only), users and groups of its own on the host, no
//! capability, no new privileges, a read-only root; what can be written lies in memory and is charged to the
//! lease. System calls: `seccomp.json` refuses what reaches beyond a container (modules, mounts, namespaces,
//! keys, tracing of the kernel, io_uring), every family of sockets but local, IP and netlink (each other one
//! is a module of the kernel that a tenant would load), and every call of another ABI than x86-64. A family
//! is compared with all 64 bits of the argument, of which the kernel takes the lower half: hence "greater
//! than netlink" and not a list.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bulkhead_api::lease::{Holding, InstanceKind, Volume};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::ledger::Entry;
use crate::oci::manifest::{ManifestError, Program};
use crate::oci::pull::Image;
use crate::oci::root::{IDS, Root};
use crate::paths::Paths;
use crate::tenant::cdi::{self, CdiError, Edits, Numbers};
use crate::tenant::files::LeaseDir;
use crate::tenant::vm::{self, VmError};

/// Reads no more of a tenant's file than this.
const SMALL: u64 = 1 << 20;

/// Folder of the mounted volumes in a lease's directory.
const VOLUMES: &str = "volumes";

/// Below this, ids belong to the host's own users and to systemd.
const FIRST_ID: u32 = 0x1000_0000;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Nothing to run.
    #[error(transparent)]
    Program(#[from] ManifestError),
    /// The image's user is not in its files.
    #[error("the image's user {user:?} is not in its /etc/passwd and /etc/group")]
    User {
        /// As the image says.
        user: String,
    },
    /// No room for ids.
    #[error("no user ids for a container on CPUs {cpus:?}")]
    Ids {
        /// The lease's lowest CPU, if it has any.
        cpus: Option<u32>,
    },
    /// What a virtual machine is made of.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// What a vendor's device is to a container.
    #[error(transparent)]
    Cdi(#[from] CdiError),
    /// Where vendors describe their devices.
    #[error("list the CDI specs in {path}")]
    Specs {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A lease of the whole host runs nothing here.
    #[error("a bareMetal lease is no program of this host's")]
    WholeHost,
    /// The image's files.
    #[error("read the image in {path}")]
    Image {
        /// The lease's directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configuration's own form.
    #[error("write the container's configuration")]
    Form(#[source] serde_json::Error),
}

/// User and group in the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// First host id of a lease's users and groups: its lowest CPU is no other lease's, so the range is not
/// either.
///
/// # Errors
/// [`BundleError::Ids`].
pub fn first_id(holding: &Holding) -> Result<u32, BundleError> {
    let cpu = holding.cpus.first().copied();
    cpu.and_then(|cpu| cpu.checked_mul(IDS))
        .and_then(|offset| offset.checked_add(FIRST_ID))
        .ok_or(BundleError::Ids { cpus: cpu })
}

/// Finds the image's user; `passwd` and `group` are the image's files, empty where it has none.
///
/// # Errors
/// [`BundleError::User`].
pub fn user(text: &str, passwd: &str, group: &str) -> Result<User, BundleError> {
    let unknown = || BundleError::User { user: text.to_owned() };
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id < IDS);
    // Lines of name:password:id:..., passwd(5) and group(5).
    let field = |line: &str, at: usize| line.split(':').nth(at).and_then(number);
    let line = |file: &str, name: &str| -> Option<String> {
        file.lines().find(|line| line.split(':').next() == Some(name)).map(ToOwned::to_owned)
    };
    if text.is_empty() {
        return Ok(User::default());
    }
    let (name, group_name) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let entry = line(passwd, name);
    let by_name = entry.as_ref().and_then(|line| field(line, 2));
    let user = by_name.or_else(|| number(name)).ok_or_else(unknown)?;
    let group = match group_name {
        Some(name) => {
            let by_name = line(group, name).and_then(|line| field(&line, 2));
            by_name.or_else(|| number(name)).ok_or_else(unknown)?
        }
        None => entry.as_ref().and_then(|line| field(line, 3)).unwrap_or(0),
    };
    Ok(User { user, group })
}

/// Open files of one process of a tenant, at most. Of a whole lease there is no such bound in the kernel: see
/// [`crate::proof::crowd`].
pub const MOST_OPEN_FILES: u64 = 65_536;

/// How the file system of `/dev` is mounted. What is in it is made before it is read-only; a tenant adds nothing, as everything
/// there is looked at for the isolation statement.
pub(super) const DEV: [&str; 7] =
    ["nosuid", "noexec", "strictatime", "ro", "mode=755", "size=65536", "nr_inodes=1024"];

/// Mounts of a container; `dir` is its lease's directory.
fn mounts(memory: u64, volumes: &[Volume], dir: &Path) -> Value {
    let scratch = |mode: &str, size: u64| {
        json!(["nosuid", "nodev", format!("mode={mode}"), format!("size={size}")])
    };
    let plain = json!(["nosuid", "noexec", "nodev"]);
    let read_only = json!(["nosuid", "noexec", "nodev", "ro"]);
    let pts = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]);
    let rows = [
        ("/proc", "proc", plain.clone()),
        ("/dev", "tmpfs", json!(DEV)),
        ("/dev/pts", "devpts", pts),
        ("/dev/shm", "tmpfs", scratch("1777", memory / 2)),
        ("/dev/mqueue", "mqueue", plain),
        ("/sys", "sysfs", read_only.clone()),
        ("/sys/fs/cgroup", "cgroup", read_only),
        ("/tmp", "tmpfs", scratch("1777", memory / 2)),
        ("/run", "tmpfs", scratch("755", memory / 8)),
    ];
    let row = |(destination, kind, options): (&str, &str, Value)| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    // Later mounts lie over earlier ones: a volume at /tmp is there instead of the memory.
    let volume = |volume: &Volume| {
        let source = dir.join(VOLUMES).join(volume.name.as_str());
        let options = ["bind", "rw", "nosuid", "nodev"];
        json!({ "destination": volume.mount_path(), "type": "bind", "source": source, "options": options })
    };
    rows.into_iter().map(row).chain(volumes.iter().map(volume)).collect()
}

/// What runs, besides how it is kept in.
#[derive(Debug)]
pub(super) struct Process<'a> {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: &'a str,
    pub(super) user: User,
}

/// `process` of the configuration: no capability, no new privileges.
pub(super) fn process(of: Process<'_>) -> Value {
    let Process { args, env, cwd, user } = of;
    let rlimit =
        |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    let none: [&str; 0] = [];
    json!({
        "terminal": false,
        "user": { "uid": user.user, "gid": user.group },
        "args": args,
        "env": env,
        "cwd": cwd,
        "noNewPrivileges": true,
        // Before the host's own processes when memory runs out.
        "oomScoreAdj": 500,
        "capabilities": { "bounding": none, "effective": none, "permitted": none },
        "rlimits": [
            rlimit("RLIMIT_NOFILE", 1024, MOST_OPEN_FILES),
            rlimit("RLIMIT_CORE", 0, 0),
        ],
    })
}

/// `linux` of the configuration: namespaces, ids from `base` on, system calls, what is hidden of `/proc` and `/sys`.
pub(super) fn linux(base: u32) -> Result<Value, BundleError> {
    let ids = json!([{ "containerID": 0, "hostID": base, "size": IDS }]);
    let namespaces: Value = ["pid", "ipc", "uts", "mount", "network", "cgroup", "user"]
        .map(|kind| json!({ "type": kind }))
        .into_iter()
        .collect();
    let seccomp: Value =
        serde_json::from_str(include_str!("seccomp.json")).map_err(BundleError::Form)?;
    Ok(json!({
        "uidMappings": ids,
        "gidMappings": ids,
        "namespaces": namespaces,
        "seccomp": seccomp,
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
            "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
            "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }))
}

/// `config.json` of a container; `dir` is its lease's directory.
///
/// # Errors
/// [`BundleError`].
pub fn config(
    entry: &Entry,
    program: &Program,
    user: User,
    dir: &Path,
) -> Result<Spec, BundleError> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = program.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push(PATH.to_owned());
    }
    let args = program.command(&entry.spec.workload.args)?;
    let cwd = if program.cwd.starts_with('/') { &program.cwd } else { "/" };
    let config = json!({
        "ociVersion": "1.0.2",
        "hostname": entry.id.name,
        "root": { "path": "rootfs", "readonly": true },
        "process": process(Process { args, env, cwd, user }),
        "mounts": mounts(entry.holding.memory.get(), &entry.spec.volumes, dir),
        "linux": linux(first_id(&entry.holding)?)?,
    });
    serde_json::from_value(config).map_err(BundleError::Form)
}

/// `config.json` of a lease, by what runs in it; for a virtual machine its files are made as well. The image is there.
///
/// # Errors
/// [`BundleError`].
pub fn make(
    paths: &Paths,
    dir: &LeaseDir,
    entry: &Entry,
    image: &Image,
) -> Result<Spec, BundleError> {
    match entry.spec.instance {
        InstanceKind::Container => {
            let path = dir.rootfs();
            let root = Root::open(&path, 0)
                .map_err(|source| BundleError::Image { path: path.clone(), source })?;
            let (passwd, group) = (small(&root, "etc/passwd"), small(&root, "etc/group"));
            let user = user(&image.program.user, &passwd, &group)?;
            let mut config = config(entry, &image.program, user, dir.path())?;
            if let Some(edits) = edits(&paths.root, &entry.holding)? {
                cdi::apply(&mut config, &edits, &|path| numbers(&paths.root, path))?;
            }
            Ok(config)
        }
        InstanceKind::Vm => vm::make(&paths.root, dir.path(), entry),
        InstanceKind::BareMetal => Err(BundleError::WholeHost),
    }
}

/// What a container's unit may use of its lease's devices, as systemd's `DeviceAllow`; nothing of other instances.
///
/// # Errors
/// [`BundleError::Cdi`], [`BundleError::Specs`].
pub fn devices(root: &Path, entry: &Entry) -> Result<Vec<(String, String)>, BundleError> {
    if entry.spec.instance != InstanceKind::Container {
        return Ok(Vec::new());
    }
    let Some(edits) = edits(root, &entry.holding)? else { return Ok(Vec::new()) };
    Ok(cdi::allow(&edits, &|path| numbers(root, path))?)
}

/// What the CDI specs of the host say of held devices. Without such a device nothing is read.
fn edits(root: &Path, holding: &Holding) -> Result<Option<Edits>, BundleError> {
    let names = cdi::names(holding);
    if names.is_empty() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for (folder, path) in cdi::FOLDERS.iter().map(|folder| root.join(folder)).enumerate() {
        let specs = |source| BundleError::Specs { path: path.clone(), source };
        let mut found = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found.and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(specs)?,
        };
        found.retain(|entry| entry.path().extension().is_some_and(|end| end == "json"));
        found.sort_by_key(fs::DirEntry::file_name);
        files.extend(found.iter().map(|entry| {
            let text = spec(&entry.path()).map_err(|error| error.to_string());
            cdi::File { folder, path: entry.path(), text }
        }));
    }
    Ok(Some(cdi::edits(&files, &names)?))
}

fn spec(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(SMALL).read_to_end(&mut text)?;
    Ok(text)
}

/// A device node of the host; links are not followed, as nobody else follows them.
fn numbers(root: &Path, path: &Path) -> io::Result<Numbers> {
    let about = fs::symlink_metadata(root.join(path.strip_prefix("/").unwrap_or(path)))?;
    let kind = match about.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "it is no device node")),
    };
    let (major, minor) = (nix::sys::stat::major(about.rdev()), nix::sys::stat::minor(about.rdev()));
    Ok(Numbers { kind, major, minor })
}

/// A small file of an image; empty where there is none that can be read.
fn small(root: &Root, path: &str) -> String {
    let mut text = Vec::new();
    // An image without users, or with a file of another kind in its place, has none to look up.
    if let Ok(file) = root.read(Path::new(path))
        && file.take(SMALL).read_to_end(&mut text).is_err()
    {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;

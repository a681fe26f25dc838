//! Where everything is, by value: a test gives another root.

use std::path::{Path, PathBuf};

/// As the driver's user space is installed.
const NVML: &str = "libnvidia-ml.so.1";

/// Directories of the supervisor.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `/`: sysfs, procfs and devices are below it.
    pub root: PathBuf,
    /// `/run/bulkhead`: what outlives the supervisor and not the boot.
    pub run: PathBuf,
    /// Where the ledger is. The same as `run` until a host has a state disk.
    pub state: PathBuf,
    /// `/var/lib/bulkhead`: files of leases.
    pub data: PathBuf,
    /// NVIDIA's library: a name that the loader looks for, or a path.
    pub nvml: PathBuf,
}

impl Paths {
    /// Those of a host.
    #[must_use]
    pub fn of_host() -> Self {
        Self {
            root: PathBuf::from("/"),
            run: PathBuf::from("/run/bulkhead"),
            state: PathBuf::from("/run/bulkhead"),
            data: PathBuf::from("/var/lib/bulkhead"),
            nvml: PathBuf::from(NVML),
        }
    }

    /// All of them below a directory.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: root.join("run/bulkhead"),
            state: root.join("run/bulkhead"),
            data: root.join("var/lib/bulkhead"),
            nvml: root.join("usr/lib").join(NVML),
        }
    }

    /// What stage 1 left.
    #[must_use]
    pub fn boot_facts(&self) -> PathBuf {
        self.run.join("boot.json")
    }

    /// Certificates that the image trusts.
    #[must_use]
    pub fn fleet_ca(&self) -> PathBuf {
        self.run.join("trust/ca.pem")
    }

    /// Keys that specs may be signed with.
    #[must_use]
    pub fn spec_keys(&self) -> PathBuf {
        self.run.join("trust/spec-keys.json")
    }

    /// The host's key and certificate.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.run.join("identity")
    }

    /// What was given to whom.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger.json")
    }

    /// The spec accepted last.
    #[must_use]
    pub fn accepted_spec(&self) -> PathBuf {
        self.state.join("accepted-spec.json")
    }

    /// Receipts of what was sanitised.
    #[must_use]
    pub fn receipts(&self) -> PathBuf {
        self.state.join("receipts")
    }

    /// Isolation statements of this boot.
    #[must_use]
    pub fn isolation(&self) -> PathBuf {
        self.run.join("isolation")
    }

    /// Moments of this boot.
    #[must_use]
    pub fn milestones(&self) -> PathBuf {
        self.run.join("milestones.json")
    }

    /// REST over a unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }

    /// One directory a tenant, in it one a lease.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.data.join("leases")
    }
}

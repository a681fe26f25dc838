//! Why a step failed.

use std::path::PathBuf;

use bulkhead_api::id::LeaseId;
use bulkhead_api::resource::Resource;
use bulkhead_api::time::Timestamp;

use crate::class::ClassError;
use crate::host::systemd::SystemdError;
use crate::ledger::LedgerError;
use crate::oci::client::ClientError;
use crate::oci::pull::PullError;
use crate::oci::reference::ReferenceError;
use crate::receipts::ReceiptError;
use crate::tenant::bundle::BundleError;
use crate::tenant::cgroup::CgroupError;
use crate::tenant::model::Deed;

/// A step that could not be done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// By systemd.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A control group's file.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The ledger could not be written: nothing is handed over.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The image did not come.
    #[error(transparent)]
    Pull(PullError),
    /// The image's name.
    #[error(transparent)]
    Reference(ReferenceError),
    /// The container's configuration.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A resource besides cores and memory.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// What was sanitised has no receipt, so that nobody gets it.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A file.
    #[error("{doing} {path}")]
    Files {
        /// `read`, `write`, `remove`, ...
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Set, and read back otherwise.
    #[error("limits of {unit} do not hold: {drift}")]
    ReadBack {
        /// The slice.
        unit: String,
        /// What is not as it was set.
        drift: String,
    },
    /// Nowhere to fetch from yet.
    #[error("fetch the image: this host is not attached to its site yet")]
    NoSite,
    /// It is under way beside the loop, and makes no progress: a device does not answer.
    #[error(
        "{deed} of {resource} of {lease} has made no progress since {since} and is waited for: see the kernel's log \
         for its device; where it stays so, repair the device and reboot the host"
    )]
    Silent {
        /// What is done.
        deed: Deed,
        /// With what.
        resource: Box<Resource>,
        /// Whose it is.
        lease: LeaseId,
        /// When it went on last.
        since: Timestamp,
    },
    /// A step before the ledger knows.
    #[error("lease {0} is not in the ledger")]
    NotRecorded(LeaseId),
}

impl StepError {
    /// One word for conditions.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Systemd(_) => "SystemdRefused",
            Self::Cgroup(_) => "ControlGroupUnreadable",
            Self::Ledger(error) => error.label(),
            Self::Pull(error) => error.label(),
            Self::Reference(_) => "SpecUnsupported",
            Self::Bundle(_) => "ImageUnusable",
            Self::Class(ClassError::Unsupported(_)) => "ResourceUnsupported",
            Self::Class(_) => "ResourceRefused",
            Self::Receipt(error) => error.label(),
            Self::Files { .. } => "HostFiles",
            Self::ReadBack { .. } => "LimitsNotHeld",
            Self::NoSite => "NotAttached",
            Self::Silent { .. } => "DeviceSilent",
            Self::NotRecorded(_) => "NotRecorded",
        }
    }

    /// Who can help.
    #[must_use]
    pub fn owner(&self) -> &'static str {
        match self {
            Self::Pull(PullError::Client(ClientError::Absent { .. }))
            | Self::Pull(PullError::Manifest(_) | PullError::Unpack(_))
            | Self::Reference(_)
            | Self::Bundle(_) => "tenant",
            Self::Pull(PullError::Client(_) | PullError::Corrupt { .. }) | Self::NoSite => "site",
            Self::Ledger(_)
            | Self::Pull(_)
            | Self::Files { .. }
            | Self::Class(_)
            | Self::Silent { .. }
            | Self::Receipt(_) => "operator",
            Self::Systemd(_) | Self::Cgroup(_) | Self::ReadBack { .. } | Self::NotRecorded(_) => {
                "supervisor"
            }
        }
    }
}

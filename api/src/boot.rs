//! How a machine comes up: what the image build, stage 1, the site and the supervisor tell each other.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::id::{LeaseId, MacAddr, SiteName, SystemUuid, TicketSecret};
use crate::lease::Workload;

/// Where the image build puts [`StageOneConfig`] in the initrd.
pub const STAGE_ONE_CONFIG: &str = "/bulkhead/boot.json";
/// Where the image build puts [`StageOneModules`] in the initrd.
pub const STAGE_ONE_MODULES: &str = "/bulkhead/modules.json";
/// Folder of the kernel modules in the initrd: `NAME.ko`.
pub const STAGE_ONE_MODULE_DIR: &str = "/bulkhead/modules";
/// Where trust anchors are in the initrd.
pub const STAGE_ONE_TRUST: &str = "/bulkhead/trust";
/// Where stage 1 leaves [`BootFacts`] for the supervisor.
pub const BOOT_FACTS: &str = "/run/bulkhead/boot.json";
/// Where stage 1 leaves the trust anchors of the initrd for the supervisor.
pub const TRUST_DIR: &str = "/run/bulkhead/trust";
/// DHCP option 60 of stage 1.
pub const STAGE_ONE_CLASS: &str = "bulkhead-stage1";

/// A file system image followed by its dm-verity hash tree, in one file of 4096-byte blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerityImage {
    /// `root`, or the extension layer's name.
    pub name: String,
    /// SHA-256 root hash, 64 hexadecimal digits. The file is served as `{rootHash}.img`.
    pub root_hash: String,
    /// Salt, hexadecimal.
    pub salt: String,
    /// Data blocks of 4096 bytes; the hash tree begins behind them.
    pub data_blocks: u64,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// CRC-32 (ISO-HDLC) of the whole file: finds accidents of storage and transport at once, where a hash of everything would
    /// be slow. Against forgery there is the hash tree. Absent: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<u32>,
}

/// What stage 1 trusts. It is in the initrd, which the UKI's signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StageOneConfig {
    /// Version of the image.
    pub image_version: String,
    /// The root file system.
    pub root: VerityImage,
    /// Extension layers that may be asked for.
    pub extensions: Vec<VerityImage>,
    /// The kernel command line must be this text; absent in builds for the direct kernel lane of tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_cmdline: Option<String>,
}

/// Kernel modules of stage 1, by name without `.ko`, each list in load order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StageOneModules {
    /// Loaded on every machine.
    pub always: Vec<String>,
    /// Loaded where a device asks for them.
    pub drivers: Vec<StageOneDriver>,
}

/// A driver and the devices that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StageOneDriver {
    /// Patterns of `modalias` (`*`, `?` and `[...]` as in `modules.alias`); any of them will do.
    pub aliases: Vec<String>,
    /// What to load, the driver last.
    pub load: Vec<String>,
}

/// One release: what a site serves. Signed beside it (`image.json.sig`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageManifest {
    /// Version of the image.
    pub image_version: String,
    /// Kernel release, `6.12.N+deb13-amd64`.
    pub kernel: String,
    /// The root file system.
    pub root: VerityImage,
    /// Extension layers.
    pub extensions: Vec<VerityImage>,
    /// SHA-256 of the unsigned UKI, hexadecimal.
    pub uki_sha256: String,
    /// Size of the UKI that is served, in bytes.
    pub uki_size: u64,
}

/// What a site tells stage 1 (`GET {base}boot.json`). Nothing in it is trusted for integrity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteBoot {
    /// The site's name.
    pub site: SiteName,
    /// For enrolment: one use.
    pub ticket: TicketSecret,
    /// `address:port` of the site's link.
    pub link: String,
    /// Names of the extension layers that this host should have.
    pub extensions: Vec<String>,
    /// Counts boots of this machine up, from 1.
    pub boot: u64,
    /// The machine comes back from the tenant of this `bareMetal` lease: it is sanitised before anything else,
    /// whatever the registry remembers. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<LeaseId>,
}

/// What stage 1 leaves for the supervisor. Mode 0600: it holds the ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootFacts {
    /// As the site said.
    #[serde(flatten)]
    pub site: SiteBoot,
    /// Version of the image that runs.
    pub image_version: String,
    /// Interface that was booted from.
    pub nic: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// System UUID; absent where the firmware has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<SystemUuid>,
    /// Address given by DHCP.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Default gateway; absent if none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Milliseconds since the kernel started at which each phase ended, in order.
    pub marks: Vec<(String, u64)>,
}

/// Where a UKI is in the OCI image of a `bareMetal` lease: the first of these files, in this order.
pub const TENANT_UKI: [&str; 2] = ["boot/uki.efi", "EFI/BOOT/BOOTX64.EFI"];
/// OCI host that stands for the site's own cache.
pub const SITE_IMAGES: &str = "oci://bulkhead.site/";

/// When the machine of a `bareMetal` lease boots the UKI of the lease's image: `workload.args`.
///
/// | `args` | |
/// |---|---|
/// | `[]` | at every boot |
/// | `["once"]` | until it was fetched whole once: an installer. From then on the site offers no boot file, and the firmware goes on to its next boot entry: the local disk |
///
/// There is no form without a UKI: the disks of a host are blank when a tenant gets them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetalBoot {
    /// At every boot.
    #[default]
    Always,
    /// Once; then the local disk.
    Once,
}

impl MetalBoot {
    /// As a lease's workload says.
    ///
    /// # Errors
    /// The field's path and a sentence.
    pub fn of(workload: &Workload) -> Result<Self, (&'static str, String)> {
        if !workload.image.starts_with(SITE_IMAGES) {
            let message = format!(
                "{:?}: a bareMetal lease boots over the network, from an image of its site: \
                 {SITE_IMAGES}NAME:TAG",
                workload.image
            );
            return Err(("spec.workload.image", message));
        }
        match workload.args.as_slice() {
            [] => Ok(Self::Always),
            [word] if word == "once" => Ok(Self::Once),
            other => {
                let message = format!("{other:?} of a bareMetal lease: expected [] or [\"once\"]");
                Err(("spec.workload.args", message))
            }
        }
    }
}

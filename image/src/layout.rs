//! Where everything is.
//!
//! ```text
//!  OUT/            root.img vmlinuz cmdline sysext/ oci/ keys/ vars-sb.fd   what others use
//!      toolbox/    Debian chroot with every build tool
//!      qemu/       QEMU, qemu-img and swtpm, run by their own loader
//!      debs/       packages, kept between runs
//!      sbom/       package lists of the image's parts
//!      work/       trees on the way, stamps
//!  BOOT/           stage1.initrd uki.efi uki-unsigned.efi image.json          depends on the trust folder; OUT by default
//! ```

use std::path::{Path, PathBuf};

/// Time stamp of every file that is built, seconds since 1970: 2025-10-09.
pub const EPOCH: u64 = 1_760_000_000;

/// Release of Debian that the image is made of.
pub const SUITE: &str = "trixie";

/// The folders of one build.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Root of the source tree.
    pub repo: PathBuf,
    /// Folder with `toolbox`, `qemu`, `debs` and `keys`.
    pub tools: PathBuf,
    /// Folder of everything built.
    pub out: PathBuf,
}

impl Layout {
    /// Everything in one folder. Both paths must be absolute.
    #[must_use]
    pub fn new(repo: &Path, out: &Path) -> Self {
        Self { repo: repo.to_owned(), tools: out.to_owned(), out: out.to_owned() }
    }

    /// The same tools and packages, everything else built anew in `out`.
    #[must_use]
    pub fn elsewhere(&self, out: &Path) -> Self {
        Self { out: out.to_owned(), ..self.clone() }
    }

    /// Data files of the image.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.repo.join("image")
    }

    /// The chroot with the build tools.
    #[must_use]
    pub fn toolbox(&self) -> PathBuf {
        self.tools.join("toolbox")
    }

    /// The QEMU tree.
    #[must_use]
    pub fn qemu(&self) -> PathBuf {
        self.tools.join("qemu")
    }

    /// Packages kept between runs.
    #[must_use]
    pub fn debs(&self) -> PathBuf {
        self.tools.join("debs")
    }

    /// Keys made once on this machine.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.tools.join("keys")
    }

    /// Trees on the way.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.out.join("work")
    }

    /// Stamps of the parts built.
    #[must_use]
    pub fn stamps(&self) -> PathBuf {
        self.work().join("stamps")
    }

    /// Stamps of the parts of [`Layout::tools`].
    #[must_use]
    pub fn tool_stamps(&self) -> PathBuf {
        self.tools.join("work/stamps")
    }

    /// Lists of the packages in the image's parts.
    #[must_use]
    pub fn sbom(&self) -> PathBuf {
        self.out.join("sbom")
    }

    /// A data file of the image.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.source().join(name)
    }
}

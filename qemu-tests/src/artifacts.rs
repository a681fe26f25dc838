//! Where the things that are built lie, and what to run when one is missing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The checkout and its target directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory: everything that is built or kept lies below it.
    pub target: PathBuf,
}

impl Workspace {
    /// The workspace that holds the current directory.
    ///
    /// # Errors
    /// No folder above has a `Cargo.toml` with `[workspace]`.
    pub fn find() -> Result<Self> {
        let here = env::current_dir().context("find the current directory")?;
        let is_root = |dir: &&Path| {
            fs::read_to_string(dir.join("Cargo.toml"))
                .is_ok_and(|text| text.contains("[workspace]"))
        };
        let Some(root) = here.ancestors().find(is_root).map(Path::to_owned) else {
            bail!("{} is not inside the Bulkhead checkout", here.display());
        };
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self { target: here.join(target), root })
    }

    /// A program of this workspace in its debug build.
    ///
    /// # Errors
    /// It was not built: the message names the command.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("debug").join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("{} is missing: run `cargo build --workspace --bins`", path.display())
    }
}

/// A file of the image or its tools that must exist.
///
/// # Errors
/// It does not: the message names the command that makes it.
pub fn required(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    bail!("{} is missing: run `cargo xtask image`", path.display())
}

/// What a virtual server needs to start: paths that were seen to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// OVMF's code, mapped read-only.
    pub code: PathBuf,
    /// The variable store that a server starts from.
    pub vars: PathBuf,
}

/// The build tools beside the image.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Root of the unpacked QEMU.
    pub qemu: PathBuf,
    /// Root of the toolbox: OVMF, swtpm.
    pub toolbox: PathBuf,
    /// Variable store with our Secure Boot keys; only the Secure Boot lane needs it.
    pub secure_vars: PathBuf,
}

impl Tools {
    /// The tools as the image build leaves them; `served` is the folder of one fleet's image.
    #[must_use]
    pub fn of(workspace: &Workspace, served: &Path) -> Self {
        let image = workspace.target.join("image");
        Self {
            qemu: image.join("qemu"),
            toolbox: image.join("toolbox"),
            secure_vars: served.join("vars-sb.fd"),
        }
    }

    /// OVMF, with Secure Boot on and our keys in it, or without.
    ///
    /// # Errors
    /// A file is missing.
    pub fn firmware(&self, secure_boot: bool) -> Result<Firmware> {
        let ovmf = self.toolbox.join("usr/share/OVMF");
        let (code, vars) = if secure_boot {
            (ovmf.join("OVMF_CODE_4M.secboot.fd"), self.secure_vars.clone())
        } else {
            (ovmf.join("OVMF_CODE_4M.fd"), ovmf.join("OVMF_VARS_4M.fd"))
        };
        Ok(Firmware { code: required(code)?, vars: required(vars)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_names_the_command_that_makes_it() {
        let error = required(PathBuf::from("/nowhere/root.img")).unwrap_err().to_string();
        assert_eq!(error, "/nowhere/root.img is missing: run `cargo xtask image`");
    }
}

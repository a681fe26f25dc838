//! Programs: those of e2fsprogs make and check file systems.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit status; absent where a signal ended it.
    pub status: Option<i32>,
    /// Both outputs, one after the other.
    pub text: String,
}

/// Runs a program to its end, with nothing of ours in its environment.
///
/// # Errors
/// It could not be run.
pub(super) fn output(program: &str, args: &[&OsStr]) -> io::Result<Output> {
    #[expect(clippy::disallowed_methods, reason = "this is the seam for programs of storage")]
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
}

fn run(program: &str, args: &[&OsStr]) -> io::Result<Said> {
    output(program, args).map(|output| Said::of(&output))
}

/// Makes an ext4 file system of 4 KiB blocks, without blocks kept for root, whose root directory belongs to
/// `owner`. The device is not discarded first: it is not the file system's to say what lies below.
///
/// # Errors
/// It could not be run, or said no.
pub fn make_ext4(device: &Path, label: &str, owner: u32) -> io::Result<()> {
    let options = format!("nodiscard,root_owner={owner}:{owner}");
    let args = ["-q", "-F", "-b", "4096", "-m", "0", "-L", label, "-E", &options];
    let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    args.push(device.as_os_str());
    let said = run("/usr/sbin/mkfs.ext4", &args)?;
    if said.status == Some(0) { Ok(()) } else { Err(io::Error::other(said.text)) }
}

/// Checks an ext4 file system that is not mounted and repairs what is safe to repair.
///
/// # Errors
/// It could not be run.
pub fn check_ext4(device: &Path) -> io::Result<Said> {
    run("/usr/sbin/e2fsck", &[OsStr::new("-p"), device.as_os_str()])
}

impl Said {
    /// What a program that ended said.
    pub(super) fn of(output: &Output) -> Self {
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Self { status: output.status.code(), text }
    }

    /// Whether a check left a good file system: bits 1 (errors corrected) and 2 (the system should be rebooted,
    /// which concerns mounted ones) of e2fsck(8)'s status may be set.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| status & !3 == 0)
    }

    /// Whether a check did not get as far as to say what is wrong: bit 8 (operational error) of e2fsck(8)'s status, which
    /// stands for a device whose node is not there as well as for one without a file system.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.status.is_none_or(|status| status & 8 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_made_checked_and_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 32 << 20]).unwrap();
        assert!(!check_ext4(&path).unwrap().is_good());
        make_ext4(&path, "test", 100_000).unwrap();
        let said = check_ext4(&path).unwrap();
        assert!(said.is_good(), "{said:?}");
        assert!(make_ext4(Path::new("/nowhere"), "test", 0).is_err());
        let said = check_ext4(&dir.path().join("gone")).unwrap();
        assert!(!said.is_good() && said.is_unsure(), "{said:?}");
    }

    #[test]
    fn a_check_that_left_errors_or_was_killed_is_not_good() {
        let said = |status| Said { status, text: String::new() };
        assert!(said(Some(0)).is_good() && said(Some(1)).is_good() && said(Some(3)).is_good());
        assert!(!said(Some(4)).is_good() && !said(Some(8)).is_good() && !said(None).is_good());
        assert!(!said(Some(4)).is_unsure() && said(Some(8)).is_unsure() && said(None).is_unsure());
    }
}

//! What a virtual machine boots, from the files of its image.
//!
//! | form | files | booted by | `workload.args` |
//! |---|---|---|---|
//! | disk | one of `/disk/*.raw`, `/disk/*.qcow2` | UEFI, from a copy that lasts as long as the machine runs | refused |
//! | kernel | `/boot/vmlinuz`, `/boot/initrd`, and `/boot/cmdline` if it likes | the emulator itself | behind `/boot/cmdline` |

use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::oci::root::Root;

/// What the kernel of an image without `/boot/cmdline` is told: its console is the lease's log.
pub const CMDLINE: &str = "console=ttyS0";

/// Longest command line that the kernel reads whole: `COMMAND_LINE_SIZE` of x86 less the final zero (Linux,
/// arch/x86/include/asm/setup.h).
const MOST_CMDLINE: usize = 2047;

const KERNEL: &str = "boot/vmlinuz";
const INITRD: &str = "boot/initrd";

/// Why an image is none of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither form.
    #[error(
        "the image is none of a vm: it has neither a disk (/disk/*.raw or /disk/*.qcow2) nor a kernel (/boot/vmlinuz and /boot/initrd)"
    )]
    Neither,
    /// Both forms.
    #[error(
        "the image has both a disk (/disk/{disk}) and a kernel (/boot/vmlinuz): expected one of them"
    )]
    Both {
        /// The disk's file name.
        disk: String,
    },
    /// More than one disk.
    #[error("the image has {} disks in /disk ({}): expected one", .0.len(), .0.join(", "))]
    Disks(Vec<String>),
    /// A name that cannot be told to the emulator.
    #[error("the image's disk is called {0:?}: expected letters, digits, `.`, `_` and `-`")]
    DiskName(String),
    /// A kernel alone.
    #[error("the image has /boot/vmlinuz and no /boot/initrd")]
    NoInitrd,
    /// Arguments that nobody would read.
    #[error(
        "the lease has args, which a vm gets on its kernel's command line: the image has no /boot/vmlinuz, it boots from /disk/{disk}"
    )]
    ArgsOfDisk {
        /// The disk's file name.
        disk: String,
    },
    /// A command line that the kernel would not read as it is.
    #[error("the kernel's command line (/boot/cmdline and the lease's args): {0}")]
    Cmdline(String),
}

/// Form of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's name of it.
    #[must_use]
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What the machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A disk, by UEFI.
    Disk {
        /// File name in `/disk` of the image.
        file: String,
        /// Its form.
        format: DiskFormat,
    },
    /// `/boot/vmlinuz` with `/boot/initrd` of the image.
    Kernel {
        /// The command line.
        cmdline: String,
    },
}

/// The files of an image that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// File names in `/disk` that end as a disk's does, ascending.
    pub disks: Vec<String>,
    /// There is `/boot/vmlinuz`.
    pub kernel: bool,
    /// There is `/boot/initrd`.
    pub initrd: bool,
    /// `/boot/cmdline`, cut off behind what a kernel could read.
    pub cmdline: Option<Vec<u8>>,
}

fn disk_format(file: &str) -> Option<DiskFormat> {
    match file.rsplit_once('.')?.1 {
        "raw" => Some(DiskFormat::Raw),
        "qcow2" => Some(DiskFormat::Qcow2),
        _ => None,
    }
}

/// Looks at an image.
///
/// # Errors
/// As the file system says.
pub fn look(root: &Root) -> io::Result<Files> {
    let there = |path: &str| match root.read(Path::new(path)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    let mut disks: Vec<String> = root
        .names(Path::new("disk"))?
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|file| disk_format(file).is_some())
        .collect();
    disks.sort();
    let cmdline = match root.read(Path::new("boot/cmdline")) {
        Ok(file) => {
            let mut bytes = Vec::new();
            let most = u64::try_from(MOST_CMDLINE).unwrap_or(u64::MAX).saturating_add(2);
            file.take(most).read_to_end(&mut bytes)?;
            Some(bytes)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Files { disks, kernel: there(KERNEL)?, initrd: there(INITRD)?, cmdline })
}

/// Chooses the form.
///
/// # Errors
/// Every variant of [`ImageError`].
pub fn boot(files: &Files, args: &[String]) -> Result<Boot, ImageError> {
    match (files.disks.as_slice(), files.kernel) {
        ([], false) => Err(ImageError::Neither),
        ([], true) if !files.initrd => Err(ImageError::NoInitrd),
        ([], true) => Ok(Boot::Kernel { cmdline: cmdline(files.cmdline.as_deref(), args)? }),
        ([disk, ..], true) => Err(ImageError::Both { disk: disk.clone() }),
        ([disk], false) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let format = disk_format(disk).ok_or(ImageError::Neither)?;
            if !disk.chars().all(plain) {
                return Err(ImageError::DiskName(disk.clone()));
            }
            if !args.is_empty() {
                return Err(ImageError::ArgsOfDisk { disk: disk.clone() });
            }
            Ok(Boot::Disk { file: disk.clone(), format })
        }
        (many, false) => Err(ImageError::Disks(many.to_vec())),
    }
}

fn cmdline(own: Option<&[u8]>, args: &[String]) -> Result<String, ImageError> {
    let wrong = |what: &str| ImageError::Cmdline(what.to_owned());
    let own = match own {
        None => CMDLINE,
        Some(bytes) => std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?.trim(),
    };
    let words: Vec<&str> = std::iter::once(own)
        .chain(args.iter().map(String::as_str))
        .filter(|w| !w.is_empty())
        .collect();
    let line = words.join(" ");
    if line.chars().any(char::is_control) {
        return Err(wrong("it has control characters, expected one line of text"));
    }
    if line.len() > MOST_CMDLINE {
        return Err(wrong(&format!("longer than the {MOST_CMDLINE} bytes that a kernel reads")));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kernel() -> Files {
        Files { kernel: true, initrd: true, ..Files::default() }
    }

    fn disks(names: &[&str]) -> Files {
        Files { disks: names.iter().map(ToString::to_string).collect(), ..Files::default() }
    }

    #[test]
    fn a_kernel_gets_its_images_command_line_and_the_leases_arguments_behind_it() {
        let line = |own: Option<&str>, args: &[&str]| {
            let files = Files { cmdline: own.map(|own| own.as_bytes().to_vec()), ..kernel() };
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            boot(&files, &args)
        };
        let kernel = |cmdline: &str| Ok(Boot::Kernel { cmdline: cmdline.to_owned() });
        assert_eq!(line(None, &[]), kernel("console=ttyS0"));
        assert_eq!(line(Some("quiet\n"), &["a=1", "b"]), kernel("quiet a=1 b"));
        assert_eq!(line(Some(""), &[]), kernel(""));
        for bad in ["a\nb", "a\0b", &"x".repeat(3000)] {
            assert!(matches!(line(Some(bad), &[]), Err(ImageError::Cmdline(_))), "{bad:?}");
            assert!(matches!(line(None, &[bad]), Err(ImageError::Cmdline(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_disk_boots_by_itself_and_takes_no_arguments() {
        let disk = |file: &str, format| Ok(Boot::Disk { file: file.to_owned(), format });
        assert_eq!(boot(&disks(&["a.raw"]), &[]), disk("a.raw", DiskFormat::Raw));
        assert_eq!(boot(&disks(&["a-1.qcow2"]), &[]), disk("a-1.qcow2", DiskFormat::Qcow2));
        let args = ["quiet".to_owned()];
        let refused = boot(&disks(&["a.raw"]), &args).unwrap_err();
        assert_eq!(refused, ImageError::ArgsOfDisk { disk: "a.raw".to_owned() });
        let refused = boot(&disks(&["a,b.raw"]), &[]).unwrap_err();
        assert_eq!(refused, ImageError::DiskName("a,b.raw".to_owned()));
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let why = |files: &Files| boot(files, &[]).unwrap_err().to_string();
        assert!(why(&Files::default()).contains("neither a disk (/disk/*.raw or /disk/*.qcow2)"));
        assert!(why(&Files { initrd: false, ..kernel() }).ends_with("no /boot/initrd"));
        assert!(why(&disks(&["a.raw", "b.raw"])).contains("2 disks in /disk (a.raw, b.raw)"));
        let both = Files { kernel: true, ..disks(&["a.raw"]) };
        assert!(why(&both).contains("both a disk (/disk/a.raw) and a kernel"));
    }

    #[test]
    fn an_image_is_looked_at_inside_its_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |below: &str| dir.path().join(below);
        std::fs::create_dir_all(path("boot")).unwrap();
        std::fs::create_dir_all(path("disk")).unwrap();
        let root = Root::open(dir.path(), 0).unwrap();
        assert_eq!(look(&root).unwrap(), Files::default());
        for file in ["disk/a.raw", "disk/readme", "boot/initrd"] {
            std::fs::write(path(file), b"x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", path("boot/vmlinuz")).unwrap();
        let seen = look(&root).unwrap();
        assert_eq!(seen, Files { initrd: true, ..disks(&["a.raw"]) });
        std::fs::write(path("boot/cmdline"), vec![b'x'; 9000]).unwrap();
        let seen = look(&root).unwrap().cmdline.unwrap();
        assert!(seen.len() > MOST_CMDLINE && seen.len() < 9000);
    }

    proptest! {
        #[test]
        fn any_command_line_is_one_line_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..64), args in prop::collection::vec(".{0,9}", 0..3),
        ) {
            if let Ok(line) = cmdline(Some(&bytes), &args) {
                prop_assert!(line.len() <= MOST_CMDLINE && !line.chars().any(char::is_control));
            }
        }
    }
}

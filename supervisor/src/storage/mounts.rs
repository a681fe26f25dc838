//! What is mounted where: `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::disk::DeviceNumber;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which file system.
    pub device: DeviceNumber,
    /// Where.
    pub point: PathBuf,
}

/// All of them, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(pub Vec<Mount>);

impl Mounts {
    /// Those that this process sees.
    ///
    /// # Errors
    /// As the file system says.
    pub fn read(root: &Path) -> io::Result<Self> {
        fs::read(root.join("proc/self/mountinfo")).map(|text| Self::parse(&text))
    }

    /// From the text of the file. Lines of another form are left out.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mount = |line: &[u8]| {
            let mut fields = line.split(|&byte| byte == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let point = fields.nth(1)?;
            let device = DeviceNumber::parse(device)?;
            Some(Mount { device, point: PathBuf::from(OsString::from_vec(unescape(point))) })
        };
        Self(text.split(|&byte| byte == b'\n').filter_map(mount).collect())
    }

    /// Where a file system is mounted, the latest first.
    pub fn of(&self, device: DeviceNumber) -> impl Iterator<Item = &Path> {
        self.0.iter().rev().filter(move |mount| mount.device == device).map(|m| m.point.as_path())
    }

    /// What is mounted at a place: the uppermost.
    #[must_use]
    pub fn at(&self, point: &Path) -> Option<DeviceNumber> {
        self.0.iter().rev().find(|mount| mount.point == point).map(|mount| mount.device)
    }
}

/// Blank, tab, line feed and backslash are written as three octal digits after a backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        rest = after;
        if let ([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..], b'\\') =
            (after, first)
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            plain.push(*first);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_latest_mount_of_a_place_is_the_one_that_is_seen() {
        let mounts = Mounts::parse(
            b"22 1 0:21 / /var rw - tmpfs tmpfs rw\n\
              30 22 254:1 / /var/a\\040b rw - ext4 /dev/vda1 rw\n\
              31 22 254:2 / /var/a\\040b rw - ext4 /dev/vda2 rw\nshort line\n",
        );
        let number = |text| DeviceNumber::parse(text).unwrap();
        assert_eq!(mounts.0.len(), 3);
        assert_eq!(mounts.at(Path::new("/var/a b")), Some(number("254:2")));
        assert_eq!(mounts.at(Path::new("/var/a")), None);
        let places: Vec<&Path> = mounts.of(number("254:1")).collect();
        assert_eq!(places, [Path::new("/var/a b")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Mounts::parse(&bytes);
        }

        #[test]
        fn any_number_is_read_or_refused(text in ".{0,20}") {
            if let Some(number) = DeviceNumber::parse(&text) {
                prop_assert_eq!(DeviceNumber::parse(&number.to_string()), Some(number));
            }
        }
    }
}

//! Mounts of a process as `/proc/PID/mountinfo` tells them (proc_pid_mountinfo(5)): pure.
//!
//! A line of another form is refused and not left out: it might be the mount that matters.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the file system: a block device's, or 0 and a number of its own.
    pub device: (u32, u32),
    /// Where, below the root of the process.
    pub point: PathBuf,
    /// Device files in it cannot be opened.
    pub nodev: bool,
    /// Type of file system.
    pub kind: String,
}

/// Reads the text of the file; `None` where it is of another form.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Vec<Mount>> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    // Number, parent, device, root, point, options, optional fields to a dash, type.
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let nodev = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"nodev");
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount { device: (major.parse().ok()?, minor.parse().ok()?), point, nodev, kind })
}

/// Blank, tab, line feed and backslash are written as three octal digits after a backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts_are_read_with_their_device_and_whether_device_files_open() {
        let text = b"36 35 253:4 / /vol\\040umes/a rw,nosuid,nodev - ext4 /dev/dm-4 rw\n\
            37 35 0:6 /null /dev/null rw,nosuid shared:2 master:1 - devtmpfs udev rw\n";
        let mounts = parse(text).unwrap();
        let kinds: Vec<&str> = mounts.iter().map(|mount| mount.kind.as_str()).collect();
        assert_eq!(kinds, ["ext4", "devtmpfs"]);
        assert_eq!(mounts[0].point, PathBuf::from("/vol umes/a"));
        assert_eq!((mounts[0].device, mounts[0].nodev), ((253, 4), true));
        assert!(!mounts[1].nodev);
    }

    #[test]
    fn one_line_of_another_form_refuses_all() {
        assert_eq!(parse(b"36 35 253:4 / /a rw - ext4 x rw\n37 35 0:6\n"), None);
        assert_eq!(parse(b"36 35 253:4 / /a rw ext4 x rw\n"), None, "no dash");
        assert_eq!(parse(b"36 35 b:4 / /a rw - ext4 x rw\n"), None);
        assert_eq!(parse(b""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}

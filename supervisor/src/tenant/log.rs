//! A lease's console log: appended to by its program, bounded from the front, read from the end.
//!
//! The file lies in memory. Its pages are charged to the control group of the process that writes them, so
//! that a flood costs its own lease and not the host, even while no supervisor runs. The front is given back
//! by punching a hole: no line is lost between copying and cutting, and the writer notices nothing.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// What is kept of a log at least, and what can be read of it at most.
pub const KEEP: u64 = 512 << 10;

/// A log that takes more memory is cut to [`KEEP`] at the next pass.
pub const LIMIT: u64 = 1 << 20;

/// Gives back the front of a log that takes more than [`LIMIT`]. None is fine.
///
/// # Errors
/// As the file system says.
pub fn bound(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let metadata = file.metadata()?;
    // st_blocks counts 512 bytes each and, unlike the length, leaves the hole out (stat(2)).
    if metadata.blocks().saturating_mul(512) <= LIMIT {
        return Ok(());
    }
    let cut = i64::try_from(metadata.len().saturating_sub(KEEP)).unwrap_or(i64::MAX);
    if cut > 0 {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, hole, 0, cut)?;
    }
    Ok(())
}

/// The last `lines` lines, of what [`KEEP`] bytes hold. A line that is not whole yet counts as one.
///
/// # Errors
/// As the file system says.
pub fn tail(path: &Path, lines: u32) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(KEEP);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(KEEP).read_to_end(&mut bytes)?;
    if from > 0 {
        // The first line is cut off somewhere.
        let begin =
            bytes.iter().position(|&byte| byte == b'\n').map_or(0, |at| at.saturating_add(1));
        bytes.drain(..begin);
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let before = body.iter().rposition({
        let mut left = wanted;
        move |&byte| {
            if byte == b'\n' {
                left = left.saturating_sub(1);
            }
            left == 0
        }
    });
    match before {
        _ if wanted == 0 => Ok(Vec::new()),
        Some(at) => Ok(bytes.split_off(at.saturating_add(1))),
        None => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flooded_log_gives_its_front_back_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for number in 0..40_000 {
            writeln!(writer, "line {number} of a program that has much to say, more than is kept")
                .unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 > LIMIT);
        bound(&path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= LIMIT);
        writeln!(writer, "after").unwrap();
        let text = String::from_utf8(tail(&path, 2).unwrap()).unwrap();
        assert!(text.starts_with("line 39999 of") && text.ends_with("after\n"), "{text}");
        let all = tail(&path, u32::MAX).unwrap();
        assert!(all.starts_with(b"line ") && !all.contains(&0), "neither cut lines nor the hole");
    }

    #[test]
    fn a_log_that_never_was_is_bounded_and_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        bound(&dir.path().join("none")).unwrap();
        assert_eq!(tail(&dir.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn the_tail_is_the_last_lines(text in "[ab\n]{0,60}", lines in 0_u32..8) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            std::fs::write(&path, &text).unwrap();
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let from = all.len().saturating_sub(lines as usize);
            prop_assert_eq!(tail(&path, lines).unwrap(), all[from..].concat().into_bytes());
        }
    }
}

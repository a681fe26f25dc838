//! The initrd's archive format: cpio "newc" (kernel `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Written here so that the bytes depend on nothing but names, modes and contents.

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Entries appear in the order added; folders must come before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

/// An entry that the format cannot hold: 4 GiB or more.
#[derive(Debug, thiserror::Error)]
#[error("{0} is too large for the initrd")]
pub struct TooLarge(String);

impl Archive {
    /// Adds a folder with mode 0755. `path` has no leading slash.
    ///
    /// # Errors
    /// [`TooLarge`] for a name of 4 GiB.
    pub fn folder(&mut self, path: &str) -> Result<(), TooLarge> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds a file with these permission bits.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), TooLarge> {
        self.entry(path, REGULAR | mode, content)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Never for the trailer.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLarge> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), TooLarge> {
        let too_large = |_| TooLarge(path.to_owned());
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, check sum
        let inode = self.inode;
        self.inode += 1;
        self.bytes.extend(b"070701");
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_and_contents_end_on_four_bytes() {
        let mut archive = Archive::default();
        archive.folder("a").unwrap();
        archive.file("a/b", 0o755, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<_> = bytes
            .windows(6)
            .enumerate()
            .filter(|(_, w)| w == b"070701")
            .map(|(at, _)| at)
            .collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("000081ED"), "mode of a/b");
        assert!(text.contains("a/b\0"));
    }
}

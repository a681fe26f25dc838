//! The directory of a lease, `leases/TENANT/NAME/`:
//!
//! ```text
//!  image.json  rootfs/     the image, complete when image.json is there
//!  bundle.json config.json the container, complete when bundle.json is there
//!  console.log stdin pid   of the running program
//! ```
//!
//! Only the supervisor and crun enter it; a tenant's program sees `rootfs` read-only and has the console
//! as open files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bulkhead_api::id::LeaseId;

use crate::files::{read_if_there, replace};
use crate::ledger::Entry;
use crate::oci::pull::{IMAGE, Image, ROOTFS};
use crate::paths::Paths;
use crate::storage::mounts::Mounts;
use crate::tenant::model::ObservedFiles;

const BUNDLE: &str = "bundle.json";

/// A lease's directory, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDir(PathBuf);

impl LeaseDir {
    /// Of a lease.
    #[must_use]
    pub fn new(paths: &Paths, id: &LeaseId) -> Self {
        Self(paths.leases().join(id.tenant.as_str()).join(id.name.as_str()))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Root of the container.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.0.join(ROOTFS)
    }

    /// What the program writes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// An empty file.
    #[must_use]
    pub fn stdin(&self) -> PathBuf {
        self.0.join("stdin")
    }

    /// crun writes the program's process id here.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// Its files and its image.
    ///
    /// # Errors
    /// As the file system says. Files that cannot be understood are [`ObservedFiles::Partial`].
    pub fn observe(&self) -> io::Result<(ObservedFiles, Option<Image>)> {
        if !self.0.try_exists()? {
            return Ok((ObservedFiles::Absent, None));
        }
        let Some(image) = self.image()? else {
            return Ok((ObservedFiles::Partial, None));
        };
        let bundle = read_if_there(&self.0.join(BUNDLE))?;
        let entry = bundle.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        let files =
            entry.map_or(ObservedFiles::Fetched, |entry| ObservedFiles::Bundled(Box::new(entry)));
        Ok((files, Some(image)))
    }

    /// The image, if complete.
    ///
    /// # Errors
    /// As the file system says.
    pub fn image(&self) -> io::Result<Option<Image>> {
        let bytes = read_if_there(&self.0.join(IMAGE))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Takes back what says that image and bundle are complete, before either is made anew.
    ///
    /// # Errors
    /// As the file system says.
    pub fn begin(&self) -> io::Result<()> {
        for name in [BUNDLE, IMAGE] {
            match fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the container's configuration and its console files; what says so comes last.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_bundle(&self, config: &[u8], entry: &Entry) -> io::Result<()> {
        replace(&self.0.join("config.json"), config, 0o600)?;
        replace(&self.stdin(), b"", 0o600)?;
        fs::OpenOptions::new().append(true).create(true).open(self.log())?;
        replace(&self.0.join(BUNDLE), &serde_json::to_vec(entry)?, 0o600)
    }

    /// Process id that crun wrote, whether it lives or not.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        // Absent before the first start; half written for a moment: both are "not known yet".
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// Removes the directory, and its tenant's when that was the last. None is fine.
    ///
    /// # Errors
    /// As the file system says.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match self.0.parent().map(fs::remove_dir) {
            Some(Err(error))
                if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Mount points at or below the directory, the deepest first.
    #[must_use]
    pub fn mounts(&self, mountinfo: &[u8]) -> Vec<PathBuf> {
        let all = Mounts::parse(mountinfo).0.into_iter().map(|mount| mount.point);
        let mut mounts: Vec<PathBuf> = all.filter(|point| point.starts_with(&self.0)).collect();
        mounts.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        mounts
    }
}

/// Leases that have a directory.
///
/// # Errors
/// As the file system says. Names that no lease can have are left alone.
pub fn found(paths: &Paths) -> io::Result<BTreeSet<LeaseId>> {
    let mut ids = BTreeSet::new();
    for tenant in names(&paths.leases())? {
        let Ok(parsed) = tenant.parse::<bulkhead_api::id::TenantName>() else { continue };
        for name in names(&paths.leases().join(&tenant))? {
            if let Ok(name) = name.parse() {
                ids.insert(LeaseId { tenant: parsed.clone(), name });
            }
        }
    }
    Ok(ids)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            Ok(entries?.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dir(root: &Path, tenant: &str) -> (Paths, LeaseDir) {
        let id = LeaseId { tenant: tenant.parse().unwrap(), name: "a".parse().unwrap() };
        let paths = Paths::below(root);
        let dir = LeaseDir::new(&paths, &id);
        (paths, dir)
    }

    #[test]
    fn a_directory_comes_is_found_and_goes_with_its_tenants() {
        let root = tempfile::tempdir().unwrap();
        let (paths, dir) = dir(root.path(), "acme");
        assert_eq!(dir.observe().unwrap(), (ObservedFiles::Absent, None));
        fs::create_dir_all(dir.rootfs().join("deep/er")).unwrap();
        assert_eq!(dir.observe().unwrap(), (ObservedFiles::Partial, None));
        assert_eq!(found(&paths).unwrap().len(), 1);
        for _ in 0..2 {
            dir.remove().unwrap();
            assert!(!paths.leases().join("acme").exists());
        }
    }

    #[test]
    fn a_damaged_description_is_an_incomplete_image() {
        let root = tempfile::tempdir().unwrap();
        let (_, dir) = dir(root.path(), "acme");
        fs::create_dir_all(dir.path()).unwrap();
        fs::write(dir.path().join(IMAGE), b"{").unwrap();
        assert_eq!(dir.observe().unwrap(), (ObservedFiles::Partial, None));
    }

    #[test]
    fn mounts_below_are_found_deepest_first_and_no_others() {
        let (_, dir) = dir(Path::new("/"), "acme");
        let mountinfo = b"22 1 0:21 / /var rw - tmpfs tmpfs rw\n\
            30 22 0:30 / /var/lib/bulkhead/leases/acme/a/rootfs rw - tmpfs x rw\n\
            31 30 0:31 / /var/lib/bulkhead/leases/acme/a/rootfs/b\\040c rw - tmpfs x rw\n\
            32 22 0:32 / /var/lib/bulkhead/leases/acme/ab rw - tmpfs x rw\n";
        let below = |rest: &str| PathBuf::from(format!("/var/lib/bulkhead/leases/acme/a/{rest}"));
        assert_eq!(dir.mounts(mountinfo), [below("rootfs/b c"), below("rootfs")]);
    }

    proptest! {
        #[test]
        fn any_mountinfo_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_, dir) = dir(Path::new("/"), "acme");
            for point in dir.mounts(&bytes) {
                prop_assert!(point.starts_with(dir.path()));
            }
        }
    }
}

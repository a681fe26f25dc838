//! The lock file: which packages of which version and content the image is made of.
//!
//! Locked versions are preferred while the archive has them. Debian removes superseded versions, so a build on a new machine
//! may find newer ones: it goes on and names each difference (`--locked` makes that an error, `--update-lock` accepts it).
//! A package of the locked version with other content is always an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::cache::sha256_hex;
use crate::files::{self, FileError};

/// Where the lock file is, relative to this crate's folder.
pub const LOCK_FILE: &str = "packages.lock";

const HEAD: &str = "# Packages of the image: set, name, version, SHA-256 of the .deb. Written by `bulkhead-image build --update-lock`.\n";

/// One package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Version.
    pub version: String,
    /// SHA-256 of the .deb, hexadecimal.
    pub sha256: String,
}

/// The packages of one set (`root`, `vm`, `kernel`, `demo`) by name.
pub type Set = BTreeMap<String, Package>;

/// The lock file: sets by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock(pub BTreeMap<String, Set>);

/// The lock file or what it is compared with cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A line that is not `set name version sha256`.
    #[error("{LOCK_FILE} line {line}: expected `set name version sha256`, found `{text}`")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The archive served something else under a locked version.
    #[error(
        "{name} {version}: {LOCK_FILE} says SHA-256 {locked}, the package in hand has {found}: do not trust it"
    )]
    Content {
        /// Package.
        name: String,
        /// Version.
        version: String,
        /// Locked digest.
        locked: String,
        /// Digest found.
        found: String,
    },
    /// `--locked` was given and packages differ.
    #[error("{} packages of the image differ from {LOCK_FILE}: accept them with --update-lock", .0.len())]
    Drift(Vec<Drift>),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A package that is not the locked one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    set: String,
    name: String,
    locked: Option<String>,
    found: Option<String>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, name, .. } = self;
        match (&self.locked, &self.found) {
            (Some(old), Some(new)) => write!(f, "{set}: {name} {old} is locked, got {new}"),
            (Some(old), None) => write!(f, "{set}: {name} {old} is locked, no longer part of it"),
            (None, Some(new)) => write!(f, "{set}: {name} {new} is not locked"),
            (None, None) => write!(f, "{set}: {name}"),
        }
    }
}

impl Lock {
    /// Reads the lock file; a missing one is empty.
    ///
    /// # Errors
    /// [`LockError::Line`] or the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        if path.exists() { Self::parse(&files::read_text(path)?) } else { Ok(Self::default()) }
    }

    /// Reads the text of a lock file.
    ///
    /// # Errors
    /// [`LockError::Line`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let mut lock = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let [set, name, version, sha256] = *words.as_slice() else {
                return Err(LockError::Line { line: number, text: line.to_owned() });
            };
            let package = Package { version: version.to_owned(), sha256: sha256.to_owned() };
            lock.0.entry(set.to_owned()).or_default().insert(name.to_owned(), package);
        }
        Ok(lock)
    }

    /// The lock file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for (set, packages) in &self.0 {
            text += &render_set(set, packages);
        }
        text
    }

    /// One set; an unknown one is empty.
    #[must_use]
    pub fn set(&self, name: &str) -> Set {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// The lines of one set.
#[must_use]
pub fn render_set(set: &str, packages: &Set) -> String {
    packages
        .iter()
        .map(|(name, Package { version, sha256 })| format!("{set} {name} {version} {sha256}\n"))
        .collect()
}

/// apt preferences that prefer the locked versions over all others, where the archive has them.
#[must_use]
pub fn preferences(set: &Set) -> String {
    let pin = |(name, package): (&String, &Package)| {
        format!("Package: {name}\nPin: version {}\nPin-Priority: 1001\n\n", package.version)
    };
    set.iter().map(pin).collect()
}

/// What `found` has otherwise than `locked`.
///
/// # Errors
/// [`LockError::Content`].
pub fn compare(set: &str, locked: &Set, found: &Set) -> Result<Vec<Drift>, LockError> {
    let mut names: Vec<_> = locked.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let mut drift = Vec::new();
    for name in names {
        let (old, new) = (locked.get(name), found.get(name));
        if old == new {
            continue;
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.version == new.version
        {
            return Err(LockError::Content {
                name: name.clone(),
                version: old.version.clone(),
                locked: old.sha256.clone(),
                found: new.sha256.clone(),
            });
        }
        drift.push(Drift {
            set: set.to_owned(),
            name: name.clone(),
            locked: old.map(|p| p.version.clone()),
            found: new.map(|p| p.version.clone()),
        });
    }
    Ok(drift)
}

/// The packages that a dpkg `status` file lists as unpacked or installed, with the digests of their .debs in `debs`.
///
/// # Errors
/// A .deb cannot be read.
pub fn installed(status: &str, debs: &Path) -> Result<Set, FileError> {
    let mut set = Set::new();
    for stanza in status.split("\n\n") {
        let field = |key: &str| {
            stanza.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": ")).unwrap_or("")
        };
        let (name, version) = (field("Package"), field("Version"));
        let here =
            field("Status").ends_with(" installed") || field("Status").ends_with(" unpacked");
        if name.is_empty() || !here {
            continue;
        }
        let file = format!("{name}_{}_{}.deb", version.replace(':', "%3a"), field("Architecture"));
        let sha256 = sha256_hex(&files::read(&debs.join(file))?);
        set.insert(name.to_owned(), Package { version: version.to_owned(), sha256 });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(packages: &[(&str, &str, &str)]) -> Set {
        let package = |v: &str, s: &str| Package { version: v.to_owned(), sha256: s.to_owned() };
        packages.iter().map(|(n, v, s)| ((*n).to_owned(), package(v, s))).collect()
    }

    #[test]
    fn a_lock_file_reads_back_as_written() {
        let lock =
            Lock([("root".to_owned(), set(&[("dbus", "1:1.16-2", "ab"), ("a", "2", "c")]))].into());
        assert_eq!(Lock::parse(&lock.render()).unwrap(), lock);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let error = Lock::parse("# head\nroot dbus 1\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn changed_new_and_gone_packages_are_each_named() {
        let locked = set(&[("a", "1", "x"), ("b", "1", "x"), ("same", "1", "x")]);
        let found = set(&[("a", "2", "y"), ("c", "1", "z"), ("same", "1", "x")]);
        let lines: Vec<_> =
            compare("root", &locked, &found).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "root: a 1 is locked, got 2",
                "root: b 1 is locked, no longer part of it",
                "root: c 1 is not locked"
            ]
        );
    }

    #[test]
    fn other_content_under_a_locked_version_is_an_error() {
        let error =
            compare("root", &set(&[("a", "1", "x")]), &set(&[("a", "1", "y")])).unwrap_err();
        assert!(matches!(error, LockError::Content { .. }), "{error}");
    }

    #[test]
    fn a_status_file_is_read_with_epochs_and_without_removed_packages() {
        let debs = tempfile::tempdir().unwrap();
        files::write(&debs.path().join("dbus_1%3a2-3_amd64.deb"), "deb").unwrap();
        let status = "Package: dbus\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
        let found = installed(status, debs.path()).unwrap();
        assert_eq!(found, set(&[("dbus", "1:2-3", &sha256_hex(b"deb"))]));
    }
}

//! File operations whose errors name the operation and the path.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file operation that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {}", path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Gives an [`io::Result`] the operation and the path that it lacks.
pub trait Naming<T> {
    /// Names the operation (`read`, `rename`) and its object.
    ///
    /// # Errors
    /// The error of `self`, named.
    fn named(self, verb: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Naming<T> for io::Result<T> {
    fn named(self, verb: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { verb, path: path.to_owned(), source })
    }
}

/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).named("read", path)
}

/// # Errors
/// The file cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).named("read", path)
}

/// # Errors
/// There is no such file.
pub fn size(path: &Path) -> Result<u64, FileError> {
    Ok(fs::metadata(path).named("look at", path)?.len())
}

/// Creates the folder and its parents; an existing folder is fine.
///
/// # Errors
/// The folder cannot be created.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).named("create", path)
}

/// Writes by a temporary file and a rename, so that no reader sees half a file and hard links to the old content keep it.
///
/// # Errors
/// A folder on the way or the file cannot be written.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), FileError> {
    write_mode(path, bytes, 0o644)
}

/// As [`write`], with the permission bits `mode` from the first moment.
///
/// # Errors
/// As [`write`].
pub fn write_mode(path: &Path, bytes: impl AsRef<[u8]>, mode: u32) -> Result<(), FileError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)
        .named("create", &new)?;
    file.write_all(bytes.as_ref()).named("write", &new)?;
    // the mode given at creation passes the umask
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).named("set mode of", &new)?;
    rename(&new, path)
}

/// # Errors
/// The file cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).named("rename", from)
}

/// # Errors
/// The file cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    if let Some(parent) = to.parent() {
        create_folder(parent)?;
    }
    fs::copy(from, to).named("copy", from).map(|_| ())
}

/// Removes a file, a link or a whole folder; what is not there is fine.
///
/// # Errors
/// Something below `path` cannot be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.named("remove", path),
    }
}

/// Makes `link` a symbolic link to `target`, replacing a link that is there.
///
/// # Errors
/// The link cannot be made.
pub fn link(target: &str, link: &Path) -> Result<(), FileError> {
    if let Some(parent) = link.parent() {
        create_folder(parent)?;
    }
    remove(link)?;
    std::os::unix::fs::symlink(target, link).named("link", link)
}

/// Every file, link and folder below `root`, as paths relative to it, sorted by bytes.
///
/// # Errors
/// A folder cannot be read.
pub fn walk(root: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).named("read", &folder)? {
            let entry = entry.named("read", &folder)?;
            let path = entry.path();
            if entry.file_type().named("look at", &path)?.is_dir() {
                folders.push(path.clone());
            }
            if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Lines of a list file without comments (`#` to the end of line) and blank lines.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_mode_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/key");
        write_mode(&path, "secret", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(walk(folder.path()).unwrap(), [PathBuf::from("a"), PathBuf::from("a/key")]);
    }

    #[test]
    fn writing_does_not_change_what_a_hard_link_shows() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        write(&one, "old").unwrap();
        fs::hard_link(&one, &two).unwrap();
        write(&two, "new").unwrap();
        assert_eq!(read_text(&one).unwrap(), "old");
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        remove(Path::new("/nonexistent/for/sure")).unwrap();
    }

    #[test]
    fn entries_skip_comments_and_blank_lines() {
        let list: Vec<_> = entries("# head\n\n a b # why\nc\n").collect();
        assert_eq!(list, ["a b", "c"]);
    }
}

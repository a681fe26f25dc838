//! Small files of the kernel, read and written whole.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::ClassError;

pub(super) fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ClassError + use<'a> {
    move |source| ClassError::Files { doing, path: path.to_owned(), source }
}

/// The trimmed text; what is no UTF-8 is replaced.
pub(super) fn read(path: &Path) -> Result<String, ClassError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// As [`read`]; `None` where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, ClassError> {
    match read(path) {
        Err(ClassError::Files { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A number alone in a file.
pub(super) fn number(path: &Path) -> Result<u64, ClassError> {
    let text = read(path)?;
    text.parse().map_err(|_| odd(path, "a number", &text))
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), ClassError> {
    fs::write(path, text).map_err(failed("write", path))
}

/// Names in a directory, sorted; none where it is absent.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, ClassError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", dir))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Text of another form than the kernel gives. The kernel is asked again later.
pub(super) fn odd(path: &Path, expected: &str, text: &str) -> ClassError {
    ClassError::Refused {
        doing: format!("read {}", path.display()),
        why: format!("expected {expected}, found {text:?}"),
    }
}

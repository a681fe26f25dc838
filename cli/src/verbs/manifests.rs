//! Reads the files of `-f`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::VerbError;
use crate::console::Console;
use crate::manifest::{self, Manifest};

/// Every document of every file, before anything is done with one.
pub(super) fn read(files: &[PathBuf], console: &mut Console) -> Result<Vec<Manifest>, VerbError> {
    let mut manifests = Vec::new();
    for path in files {
        let (name, text) = if path == Path::new("-") {
            let mut text = Vec::new();
            console.input.read_to_end(&mut text).map(|_| ("-".to_owned(), text))
        } else {
            fs::read(path).map(|text| (path.display().to_string(), text))
        }
        .map_err(|source| VerbError::File { verb: "read", path: path.clone(), source })?;
        // What is not UTF-8 shows as U+FFFD in the fault that it leads to, at its place.
        manifests.extend(manifest::read(&name, &String::from_utf8_lossy(&text))?);
    }
    Ok(manifests)
}

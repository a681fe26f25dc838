//! Parts are built once for the same inputs.
//!
//! A part's key is the SHA-256 of everything that can change its bytes (file contents, versions, the source text of its
//! recipe). After a build the key is written to `stamps/<part>`; the next run finds the same key there and the outputs in
//! place and builds nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::files::{self, FileError};

/// Collects the inputs of a part.
#[derive(Debug, Clone, Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Begins with the recipe: the source text of the code that builds the part.
    #[must_use]
    pub fn of_recipe(source: &str) -> Self {
        Self::default().bytes("recipe", source.as_bytes())
    }

    /// Adds a named value. Name and value are length-prefixed: no two lists of inputs give the same key by accident.
    #[must_use]
    pub fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a named text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(self, path: &Path) -> Result<Self, FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(self.bytes(&name, &files::read(path)?))
    }

    /// Adds every file below a folder: path, mode bits and content. A missing folder counts as empty.
    ///
    /// # Errors
    /// Something below it cannot be read.
    pub fn folder(mut self, root: &Path) -> Result<Self, FileError> {
        use crate::files::Naming as _;
        use std::os::unix::fs::PermissionsExt as _;
        if !root.exists() {
            return Ok(self);
        }
        for relative in files::walk(root)? {
            let path = root.join(&relative);
            let meta = path.symlink_metadata().named("look at", &path)?;
            let content = if meta.is_symlink() {
                path.read_link().named("read", &path)?.to_string_lossy().into_owned().into_bytes()
            } else if meta.is_dir() {
                Vec::new()
            } else {
                files::read(&path)?
            };
            self = self
                .text("path", &relative.to_string_lossy())
                .bytes("mode", &meta.permissions().mode().to_le_bytes())
                .bytes("content", &content);
        }
        Ok(self)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of `bytes` in hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// One thing that the build makes.
#[derive(Debug)]
pub struct Part<'a> {
    /// What progress lines call it.
    pub name: &'a str,
    /// Folder of the stamps.
    pub stamps: &'a Path,
    /// What must be in place for the part to count as built.
    pub outputs: &'a [PathBuf],
}

impl Part<'_> {
    /// Runs `build` unless the part was built from the same inputs; prints one line with the time taken or `cached`.
    /// Returns the key.
    ///
    /// # Errors
    /// Those of `build`; the part then counts as not built.
    pub fn make<E: From<FileError>>(
        &self,
        inputs: &Inputs,
        build: impl FnOnce() -> Result<(), E>,
    ) -> Result<String, E> {
        let key = inputs.key();
        let stamp = self.stamps.join(self.name.replace(' ', "-"));
        let same = files::read_text(&stamp).is_ok_and(|old| old == key);
        if same && self.outputs.iter().all(|path| path.exists()) {
            println!("image: {} cached", self.name);
            return Ok(key);
        }
        // while it is rebuilt, and after a failure, it is not built
        files::remove(&stamp)?;
        println!("image: {} ...", self.name);
        let start = Instant::now();
        build()?;
        files::write(&stamp, &key)?;
        println!("image: {} {:.1} s", self.name, start.elapsed().as_secs_f64());
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(stamps: &'a Path, outputs: &'a [PathBuf]) -> Part<'a> {
        Part { name: "a part", stamps, outputs }
    }

    #[test]
    fn a_part_is_built_again_when_an_input_or_its_output_is_gone_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let outputs = [folder.path().join("out")];
        let part = part(folder.path(), &outputs);
        let mut built = 0;
        let mut make = |value: &str, leave: bool| {
            let inputs = Inputs::of_recipe("r").text("value", value);
            part.make::<FileError>(&inputs, || {
                built += 1;
                if leave { files::write(&outputs[0], value) } else { files::remove(&outputs[0]) }
            })
            .unwrap();
            built
        };
        assert_eq!(make("1", true), 1);
        assert_eq!(make("1", true), 1);
        assert_eq!(make("2", true), 2);
        assert_eq!(make("3", false), 3);
        assert_eq!(make("3", true), 4);
    }

    #[test]
    fn a_failed_build_is_not_stamped() {
        let folder = tempfile::tempdir().unwrap();
        let part = part(folder.path(), &[]);
        let inputs = Inputs::of_recipe("r");
        let fails = || files::read(Path::new("/nonexistent")).map(|_| ());
        part.make::<FileError>(&inputs, || Ok(())).unwrap();
        let other = Inputs::of_recipe("s");
        part.make::<FileError>(&other, fails).unwrap_err();
        let mut again = false;
        part.make::<FileError>(&inputs, || {
            again = true;
            Ok(())
        })
        .unwrap();
        assert!(again, "the stamp of the build before the failure was trusted");
    }

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let one = Inputs::default().text("a", "bc").key();
        let two = Inputs::default().text("ab", "c").key();
        assert_ne!(one, two);
    }
}

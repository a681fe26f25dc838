//! Which registry to speak to, and with which token: one file that only its owner may read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What `login` remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Login {
    /// `https://HOST[:PORT]`, without a slash at its end.
    pub server: String,
    /// Certificate of the fleet CA, PEM.
    pub ca: String,
    /// Who speaks.
    pub token: Token,
}

/// A bearer token. `Debug` does not show it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

/// The text cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected one line of visible ASCII characters")]
pub struct NotAToken;

impl TryFrom<String> for Token {
    type Error = NotAToken;

    fn try_from(text: String) -> Result<Self, NotAToken> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(NotAToken);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Token {
    /// The secret itself, for the wire.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither `--config` nor a home folder says where it is.
    #[error("no folder for the configuration: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// There is none.
    #[error("not logged in to a registry: {} is not there", .0.display())]
    NotLoggedIn(PathBuf),
    /// Others could read the token.
    #[error("{} can be read by others (mode {mode:o}), and it holds a token", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its text is not that of a configuration.
    #[error("read {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The file system refuses.
    #[error("{verb} {}", path.display())]
    File {
        /// What was done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ConfigError {
    /// The way out; none where the cause says it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoHome => Some("name the file with --config FILE".to_owned()),
            Self::NotLoggedIn(_) | Self::Content { .. } => {
                Some("bulkhead login --server URL --ca FILE --token-file FILE".to_owned())
            }
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::File { .. } => None,
        }
    }
}

/// The file: as named, else `bulkhead/config.json` in the folder of configurations.
///
/// # Errors
/// [`ConfigError::NoHome`].
pub fn path(named: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let usual = || home.map(|home| home.join("bulkhead/config.json"));
    named.map(Path::to_owned).or_else(usual).ok_or(ConfigError::NoHome)
}

/// Reads the file.
///
/// # Errors
/// It is not there, others may read it, or it is not one that `login` wrote.
pub fn load(path: &Path) -> Result<Login, ConfigError> {
    let failed = |source| ConfigError::File { verb: "read", path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::NotLoggedIn(path.to_owned()));
        }
        other => other.map_err(failed)?,
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|source| ConfigError::Content { path: path.to_owned(), source })
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// [`ConfigError::File`], [`ConfigError::Content`].
pub fn save(path: &Path, login: &Login) -> Result<(), ConfigError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| ConfigError::File {
            verb: "make folder",
            path: folder.to_owned(),
            source,
        })?;
    }
    let mut text = serde_json::to_vec_pretty(login)
        .map_err(|source| ConfigError::Content { path: path.to_owned(), source })?;
    text.push(b'\n');
    write_private(path, &text).map_err(|source| ConfigError::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

/// Writes a file of mode 0600 in the place of what was there. Its content is never readable by others, nor
/// is there ever half of it.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The error of writing is what is told; a left-over says nothing that the user needs.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Removes the file; whether there was one.
///
/// # Errors
/// [`ConfigError::File`].
pub fn remove(path: &Path) -> Result<bool, ConfigError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ConfigError::File { verb: "remove", path: path.to_owned(), source }),
    }
}

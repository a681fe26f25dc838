//! Why the kernel did not do something.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::plan::LinkRef;

/// Why the kernel did not do something, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It said no.
    #[error("{0}")]
    Refused(Refused),
    /// A call of the operating system.
    #[error("{call}")]
    Call {
        /// Which, with what it was for.
        call: String,
        /// Its error.
        source: io::Error,
    },
    /// An answer that is none.
    #[error("answer of netlink: {0}")]
    Answer(String),
    /// No answer in time.
    #[error("no answer of netlink within {0} s")]
    Silent(u64),
}

/// The kernel's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its error number.
    pub errno: Errno,
    /// The attribute at fault; absent where it does not say.
    pub attribute: Option<String>,
    /// Its own words; absent where it has none.
    pub message: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno.desc())?;
        if let Some(attribute) = &self.attribute {
            write!(f, ", attribute {attribute}")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl KernelError {
    /// A no without further words.
    #[must_use]
    pub const fn refused(errno: Errno) -> Self {
        Self::Refused(Refused { errno, attribute: None, message: None })
    }

    /// With the link that it is about, where the kernel has no words of its own.
    #[must_use]
    pub fn named(self, link: &LinkRef) -> Self {
        match self {
            Self::Refused(mut refused) => {
                refused.message.get_or_insert_with(|| format!("link {link}"));
                Self::Refused(refused)
            }
            other @ (Self::Call { .. } | Self::Answer(_) | Self::Silent(_)) => other,
        }
    }

    /// The kernel's error number, where it said no.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refused) => Some(refused.errno),
            Self::Call { .. } | Self::Answer(_) | Self::Silent(_) => None,
        }
    }
}

/// A change that was not made. Those before it are made; of those behind it in its phase, some may be.
#[derive(Debug, thiserror::Error)]
#[error("{change}")]
pub struct ApplyError {
    /// The change.
    pub change: String,
    /// Why not.
    pub source: KernelError,
}

//! Sockets: decode, ask, encode, send. No decision is taken here.

pub mod dhcp;
pub mod http;
pub(crate) mod places;
pub mod tftp;

use std::path::PathBuf;

/// Why a service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A socket cannot be made or bound.
    #[error("{service}: {doing} {target}")]
    Socket {
        /// Which service.
        service: &'static str,
        /// What was attempted.
        doing: &'static str,
        /// Address or interface.
        target: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A served file cannot be read.
    #[error("{service}: read {}", path.display())]
    File {
        /// Which service.
        service: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

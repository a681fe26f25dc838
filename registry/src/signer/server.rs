//! The signer's process: answers [`SignerRequest`]s on a unix socket that its own user may open.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_api::chain::Chain;
use bulkhead_api::time::Timestamp;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::authority::Authority;
use super::frame::{self, FrameError};
use super::protocol::{Refusal, SignerReply, SignerRequest};

/// Clients at once; the registry uses one connection.
const MAX_CLIENTS: usize = 8;

/// Why the signer cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The socket could not be made.
    #[error("open signer socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket stopped giving connections.
    #[error("accept on the signer socket")]
    Accept(#[source] io::Error),
}

/// Makes the socket, mode 0600. A socket that a killed signer left is taken over; one that answers is not.
///
/// # Errors
/// [`SignerError::Socket`].
pub fn listen(path: &Path) -> Result<UnixListener, SignerError> {
    let bind = || -> io::Result<UnixListener> {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another signer answers"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|source| SignerError::Socket { path: path.to_owned(), source })
}

/// Serves until `shutdown` ends.
///
/// # Errors
/// [`SignerError::Accept`].
pub async fn run(
    listener: UnixListener,
    authority: Authority,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SignerError> {
    let authority = Arc::new(authority);
    let mut clients = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    info!("signer serves");
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => {
                let (stream, _) = accepted.map_err(SignerError::Accept)?;
                clients.spawn(serve_client(stream, Arc::clone(&authority)));
            }
        }
    }
}

async fn serve_client(mut stream: UnixStream, authority: Arc<Authority>) {
    // The mode of the socket holds off other users; this holds even where the mode was changed.
    if !is_own_user(&stream) {
        warn!("signer client of another user turned away");
        return;
    }
    loop {
        let reply = match frame::read::<SignerRequest>(&mut stream).await {
            Ok(None) => return,
            Ok(Some(request)) => answer(&authority, &request, Timestamp::now()),
            Err(error @ (FrameError::Socket(_) | FrameError::TooLong(_))) => {
                warn!(error = %Chain(&error), "signer client dropped");
                return;
            }
            Err(error @ FrameError::Body(_)) => SignerReply::Refused {
                refusal: Refusal::Spec { message: Chain(&error).to_string() },
            },
        };
        if let Err(error) = frame::write(&mut stream, &reply).await {
            warn!(error = %Chain(&error), "signer reply not delivered");
            return;
        }
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    let own = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    matches!((own, stream.peer_cred()), (Ok(own), Ok(peer)) if peer.uid() == own)
}

/// One request.
#[must_use]
pub fn answer(authority: &Authority, request: &SignerRequest, now: Timestamp) -> SignerReply {
    let done = match request {
        SignerRequest::SignSpec { spec } => {
            let done = authority.sign_spec(spec).map(|signed| SignerReply::Spec { signed });
            if done.is_ok() {
                info!(host = %spec.host, generation = spec.generation, "host spec signed");
            }
            done
        }
        SignerRequest::IssueCertificate { identity, csr, names } => {
            let done = authority.issue(identity, &csr.0, names, now);
            if done.is_ok() {
                info!(%identity, "certificate issued");
            }
            done.map(|chain_pem| SignerReply::Certificate { chain_pem })
        }
    };
    done.unwrap_or_else(|refusal| {
        warn!(%refusal, "request refused");
        SignerReply::Refused { refusal }
    })
}

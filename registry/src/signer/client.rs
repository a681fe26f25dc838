//! The registry's side of the signer's socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_api::spec::{Base64, HostSpec, SignedSpec};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::frame::{self, FrameError};
use super::protocol::{Refusal, SignerReply, SignerRequest};
use crate::identity::Identity;

/// The signer answers in milliseconds; its disk may be slow.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Nobody listens.
    #[error("connect to signer at {}", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The exchange broke.
    #[error("ask the signer")]
    Exchange(#[source] FrameError),
    /// It closed the socket instead of answering.
    #[error("signer closed the socket without an answer")]
    Closed,
    /// No answer in time.
    #[error("no answer of the signer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// It answered another question.
    #[error("signer gave an answer of the wrong kind")]
    Kind,
    /// It said no.
    #[error("signer refuses")]
    Refused(#[source] Refusal),
}

/// A connection that is made when it is needed and again after it broke.
#[derive(Debug)]
pub struct SignerClient {
    path: PathBuf,
    stream: Mutex<Option<UnixStream>>,
}

impl SignerClient {
    /// For a socket, not opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stream: Mutex::new(None) }
    }

    /// See [`SignerRequest::SignSpec`].
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn sign_spec(&self, spec: HostSpec) -> Result<SignedSpec, SignError> {
        match self.ask(&SignerRequest::SignSpec { spec }).await? {
            SignerReply::Spec { signed } => Ok(signed),
            SignerReply::Refused { refusal } => Err(SignError::Refused(refusal)),
            SignerReply::Certificate { .. } => Err(SignError::Kind),
        }
    }

    /// See [`SignerRequest::IssueCertificate`].
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn issue_certificate(
        &self,
        identity: Identity,
        csr: &[u8],
        names: Vec<String>,
    ) -> Result<String, SignError> {
        let request =
            SignerRequest::IssueCertificate { identity, csr: Base64(csr.to_vec()), names };
        match self.ask(&request).await? {
            SignerReply::Certificate { chain_pem } => Ok(chain_pem),
            SignerReply::Refused { refusal } => Err(SignError::Refused(refusal)),
            SignerReply::Spec { .. } => Err(SignError::Kind),
        }
    }

    async fn ask(&self, request: &SignerRequest) -> Result<SignerReply, SignError> {
        let mut kept = self.stream.lock().await;
        let reused = kept.is_some();
        // A request may be repeated: signing the same spec again gives the same signature.
        match self.exchange(&mut kept, request).await {
            Err(SignError::Exchange(FrameError::Socket(_)) | SignError::Closed) if reused => {
                self.exchange(&mut kept, request).await
            }
            done => done,
        }
    }

    async fn exchange(
        &self,
        kept: &mut Option<UnixStream>,
        request: &SignerRequest,
    ) -> Result<SignerReply, SignError> {
        let connect = || async {
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| SignError::Connect { path: self.path.clone(), source })
        };
        // Taken out: a stream is put back only between two whole exchanges.
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect().await?,
        };
        let talk = async {
            frame::write(&mut stream, request).await.map_err(SignError::Exchange)?;
            frame::read(&mut stream).await.map_err(SignError::Exchange)?.ok_or(SignError::Closed)
        };
        let reply = timeout(DEADLINE, talk).await.map_err(|_| SignError::Deadline)??;
        *kept = Some(stream);
        Ok(reply)
    }
}

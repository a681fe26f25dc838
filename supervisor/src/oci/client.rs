//! A connection to the site: OCI distribution over TLS with the host's certificate.
//!
//! HTTP/2 or HTTP/1.1 as the site chooses. Every wait has a deadline, so that a site that stops answering
//! is an error and not a hang.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::tenant::SiteAccess;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// What can be asked for as a manifest.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The site did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host's own certificate, key or trust cannot be used.
    #[error("use {what} for the site's link: {why}")]
    Identity {
        /// Which part.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// No connection.
    #[error("connect to the site at {link}")]
    Connect {
        /// Its address.
        link: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The site stopped answering.
    #[error("no answer from the site within {} s while {doing}", .limit.as_secs())]
    Timeout {
        /// What was going on.
        doing: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Not HTTP as it should be.
    #[error("get {path} from the site")]
    Http {
        /// Which path.
        path: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// The site has no such thing.
    #[error("the site has no {path}")]
    Absent {
        /// Which path.
        path: String,
    },
    /// The site does not give it.
    #[error("the site answered {status} to {path}")]
    Status {
        /// Its answer.
        status: StatusCode,
        /// Which path.
        path: String,
    },
    /// More bytes than there should be.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// Which path.
        path: String,
        /// How many were expected at most.
        limit: u64,
    },
}

enum Sender {
    Http1(http1::SendRequest<String>),
    Http2(http2::SendRequest<String>),
}

/// An open connection.
pub struct Client {
    sender: Sender,
    link: String,
    /// Drives the connection; ends with this value.
    _driver: JoinSet<()>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("link", &self.link).finish_non_exhaustive()
    }
}

fn tls(access: &SiteAccess) -> Result<ClientConfig, ClientError> {
    let identity = |what: &'static str| {
        move |error: &dyn std::fmt::Display| ClientError::Identity { what, why: error.to_string() }
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(access.ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|e| identity("the fleet's CA")(&e))?;
        roots.add(certificate).map_err(|e| identity("the fleet's CA")(&e))?;
    }
    let chain = CertificateDer::pem_slice_iter(access.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| identity("the host's certificate")(&e))?;
    let key = PrivateKeyDer::from_pem_slice(access.key_pem.as_bytes())
        .map_err(|e| identity("the host's key")(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| identity("TLS versions")(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| identity("the host's certificate")(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    future: impl Future<Output = T>,
) -> Result<T, ClientError> {
    let timeout = |_| ClientError::Timeout { doing: doing.to_owned(), limit };
    tokio::time::timeout(limit, future).await.map_err(timeout)
}

impl Client {
    /// Connects with the host's certificate.
    ///
    /// # Errors
    /// [`ClientError::Identity`], [`ClientError::Connect`], [`ClientError::Timeout`], [`ClientError::Http`].
    pub async fn connect(access: &SiteAccess) -> Result<Self, ClientError> {
        let link = access.link.clone();
        let no_connection = |source| ClientError::Connect { link: link.clone(), source };
        let address = link.rsplit_once(':').map_or(link.as_str(), |(address, _)| address);
        let name = ServerName::try_from(address.trim_matches(['[', ']']).to_owned())
            .map_err(|e| no_connection(std::io::Error::other(e)))?;
        let connector = TlsConnector::from(Arc::new(tls(access)?));
        let stream = within(CONNECT, "connecting", async {
            connector.connect(name, TcpStream::connect(&link).await?).await
        })
        .await?
        .map_err(no_connection)?;
        let http = |source| ClientError::Http { path: "/".to_owned(), source };
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let mut driver = JoinSet::new();
        let sender = if h2 {
            let (sender, connection) =
                within(CONNECT, "connecting", http2::handshake(TokioExecutor::new(), io))
                    .await?
                    .map_err(http)?;
            // Its error reaches the request that is under way.
            driver.spawn(async { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) =
                within(CONNECT, "connecting", http1::handshake(io)).await?.map_err(http)?;
            driver.spawn(async { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Self { sender, link, _driver: driver })
    }

    async fn get(&mut self, path: &str, accept: &str) -> Result<Response<Incoming>, ClientError> {
        let http = |source| ClientError::Http { path: path.to_owned(), source };
        let uri = match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("https://{}{path}", self.link),
        };
        let mut request = Request::get(uri).header(ACCEPT, accept);
        if let Sender::Http1(_) = self.sender {
            request = request.header(HOST, &self.link);
        }
        let request = request.body(String::new()).map_err(|error| ClientError::Identity {
            what: "the address",
            why: error.to_string(),
        })?;
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let answer = within(ANSWER, path, answer).await?.map_err(http)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(ClientError::Absent { path: path.to_owned() }),
            status => Err(ClientError::Status { status, path: path.to_owned() }),
        }
    }

    /// A manifest or index, whole.
    ///
    /// # Errors
    /// Every variant of [`ClientError`] but those of connecting.
    pub async fn document(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        let mut body = self.get(path, DOCUMENTS).await?.into_body();
        while let Some(chunk) = chunk(&mut body, path).await? {
            bytes.extend_from_slice(&chunk);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
                return Err(ClientError::TooLarge { path: path.to_owned(), limit });
            }
        }
        Ok(bytes)
    }

    /// A blob, to be read by [`chunk`].
    ///
    /// # Errors
    /// Every variant of [`ClientError`] but those of connecting.
    pub async fn blob(&mut self, path: &str) -> Result<Incoming, ClientError> {
        Ok(self.get(path, "application/octet-stream").await?.into_body())
    }
}

/// The next bytes of a body; `None` at its end.
///
/// # Errors
/// [`ClientError::Http`], [`ClientError::Timeout`].
pub async fn chunk(body: &mut Incoming, path: &str) -> Result<Option<Bytes>, ClientError> {
    loop {
        let next = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        match within(ANSWER, path, next).await? {
            None => return Ok(None),
            Some(Err(source)) => return Err(ClientError::Http { path: path.to_owned(), source }),
            // Trailers are of no interest.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

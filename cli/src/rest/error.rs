//! Why a registry did not do what it was asked, and what helps.

use std::io;

use bulkhead_api::document::{ApiError, FieldError};

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The URL is not one of a registry.
    #[error("server {url:?}: {problem}: expected https://HOST or https://HOST:PORT")]
    Server {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificate of the fleet CA cannot be used.
    #[error("certificate of the fleet CA: {0}")]
    Ca(String),
    /// No connection, or it broke.
    #[error("registry {server} cannot be reached")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Somebody else answers there.
    #[error("registry {server} does not prove itself with a certificate of the fleet CA")]
    NotOfFleet {
        /// Its URL.
        server: String,
        /// What is wrong with the certificate.
        source: rustls::Error,
    },
    /// The token is not known, or no longer.
    #[error("registry {server} does not accept the token")]
    Unauthorized {
        /// Its URL.
        server: String,
    },
    /// The registry says no.
    #[error("{}", sentence(.0))]
    Refused(Box<ApiError>),
    /// A refusal without a reason: not a registry, or something before it.
    #[error("{server} answers with status {status}, not as a registry")]
    Status {
        /// Its URL.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// The reply is not what was asked for.
    #[error("reply of registry {server}")]
    Reply {
        /// Its URL.
        server: String,
        /// Where it is not.
        source: FieldError,
    },
    /// A document cannot be written as JSON.
    #[error("write the document as JSON")]
    Write(#[source] serde_json::Error),
}

impl RestError {
    /// From a failure below HTTP.
    #[must_use]
    pub fn transport(server: &str, error: ureq::Error) -> Self {
        let server = server.to_owned();
        match not_of_fleet(&error) {
            Some(source) => Self::NotOfFleet { server, source },
            None => Self::Unreachable { server, source: Box::new(error) },
        }
    }

    /// The object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.reason == "NotFound")
    }

    /// It may work a moment later without anybody doing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let unavailable = self.refusal().is_some_and(|refusal| refusal.reason == "Unavailable");
        unavailable || matches!(self, Self::Unreachable { .. })
    }

    /// What the registry said.
    #[must_use]
    pub fn refusal(&self) -> Option<&ApiError> {
        if let Self::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// The way out; none where the message says it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "is the registry running, and is the way to it open? \
                 another one: bulkhead login --server URL --ca FILE"
                    .to_owned(),
            ),
            Self::NotOfFleet { server, .. } => Some(format!(
                "nothing was sent to it; if the fleet's CA is a new one: \
                 bulkhead login --server {server} --ca FILE"
            )),
            Self::Unauthorized { server } => Some(format!(
                "bulkhead login --server {server} --ca FILE --token-file FILE, with a valid token"
            )),
            Self::Status { .. } => Some("is this the URL of a registry?".to_owned()),
            Self::Reply { .. } => {
                Some("the registry may be of another version: bulkhead version".to_owned())
            }
            Self::Ca(_) => Some("--ca wants the fleet's ca.pem".to_owned()),
            Self::Server { .. } | Self::Refused(_) | Self::Write(_) => None,
        }
    }
}

/// A refusal with its field and, host by host, what is short.
fn sentence(refusal: &ApiError) -> String {
    let field = refusal.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    format!("{field}{}{}", refusal.message, shortages(refusal))
}

/// What is short, a line a host; empty where nothing is.
#[must_use]
pub fn shortages(refusal: &ApiError) -> String {
    let lines = refusal
        .shortages
        .iter()
        .map(|host| format!("\n  {}: {}", host.host, host.short.join("; ")));
    lines.collect()
}

/// What is wrong with the server's certificate, where that is why there is no connection.
fn not_of_fleet(error: &ureq::Error) -> Option<rustls::Error> {
    // The handshake reports through the socket's errors.
    let tls = if let ureq::Error::Rustls(tls) = error {
        tls
    } else if let ureq::Error::Io(io) = error {
        io_cause(io)?
    } else {
        return None;
    };
    let certificate = matches!(
        tls,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
    );
    certificate.then(|| tls.clone())
}

fn io_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

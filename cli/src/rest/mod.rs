//! The registry's REST interface, with the fleet CA as the only root of trust.

pub mod error;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use bulkhead_api::document::{ApiError, Document, Kind, from_json};
use bulkhead_api::fit::Fit;
use bulkhead_api::id::{HostId, LeaseId, SiteName, TenantName};
use bulkhead_api::time::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, RequestBuilder};

use self::error::RestError;
use self::watch::Watch;
use crate::config::Login;
use crate::verbs::target::Target;

/// The longest reply that is read: a list of 50,000 hosts with their hardware is a third of it.
const MAX_REPLY: u64 = 1 << 30;
/// An order waits for the end of a pass of the host, and then for a look at the whole of it.
const ORDER: Duration = Duration::from_secs(350);
/// A watch that says nothing for so long, not even a blank line, is dead.
const SILENCE: Duration = Duration::from_secs(90);

/// A registry that was logged in to.
#[derive(Debug)]
pub struct Registry {
    agent: Agent,
    server: String,
    authorization: String,
}

/// What became of a document that was put.
#[derive(Debug)]
pub struct Written {
    /// It was not there before.
    pub created: bool,
    /// It as it is now.
    pub document: Document,
}

/// A secret with which a site joins, once.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTicket {
    /// The secret.
    pub ticket: bulkhead_api::id::TicketSecret,
    /// It is worthless from then on.
    pub expires: Timestamp,
}

impl Registry {
    /// Prepares to speak to a registry; connects to nothing yet.
    ///
    /// # Errors
    /// [`RestError::Server`], [`RestError::Ca`].
    pub fn new(login: &Login) -> Result<Self, RestError> {
        let server = server(&login.server)?;
        let roots = RootCerts::new_with_certs(&certificates(&login.ca)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            // A redirect would carry the token to somebody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Registries are reached directly; a proxy for the Web knows no edge fleet.
            .proxy(None)
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build()
            .new_agent();
        let authorization = format!("Bearer {}", login.token.expose());
        Ok(Self { agent, server, authorization })
    }

    /// Its URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Every object of a kind; of leases, those of one tenant where it is named.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn list(
        &self,
        kind: Kind,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Document>, RestError> {
        self.read(&list_path(kind, tenant, false))
    }

    /// One object.
    ///
    /// # Errors
    /// [`RestError::Refused`] with `NotFound` where it is not there.
    pub fn get(&self, target: &Target) -> Result<Document, RestError> {
        self.read(&target.path())
    }

    /// One object, if it is there.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn find(&self, target: &Target) -> Result<Option<Document>, RestError> {
        match self.get(target) {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or changes an object.
    ///
    /// # Errors
    /// [`RestError::Refused`] where it is not accepted.
    pub fn put(&self, document: &Document) -> Result<Written, RestError> {
        let path = Target::of(document).path();
        let body = serde_json::to_vec(document).map_err(RestError::Write)?;
        let request = self.with_token(self.agent.put(self.url(&path)));
        let reply = request.content_type("application/json").send(&body[..]);
        let mut reply = self.accepted(reply)?;
        let created = reply.status() == StatusCode::CREATED;
        Ok(Written { created, document: self.json(&mut reply)? })
    }

    /// Asks which host would take a lease; nothing is kept.
    ///
    /// # Errors
    /// [`RestError::Refused`] where the lease would not be accepted on any host.
    pub fn fit(&self, lease: &Document) -> Result<Fit, RestError> {
        let body = serde_json::to_vec(lease).map_err(RestError::Write)?;
        let request = self.with_token(self.agent.post(self.url("/v1/fit")));
        let reply = request.content_type("application/json").send(&body[..]);
        self.json(&mut self.accepted(reply)?)
    }

    /// Deletes an object, or asks for it: a lease is gone when its host was observed without it.
    ///
    /// # Errors
    /// [`RestError::Refused`] with `NotFound` where it is not there.
    pub fn delete(&self, target: &Target) -> Result<(), RestError> {
        let request = self.with_token(self.agent.delete(self.url(&target.path())));
        self.accepted(request.call()).map(|_| ())
    }

    /// The last lines of a lease's console log.
    ///
    /// # Errors
    /// [`RestError::Refused`] where its host cannot be asked.
    pub fn log(&self, lease: &LeaseId, lines: u32) -> Result<String, RestError> {
        let path = format!("{}/log?lines={lines}", Target::Lease(lease.clone()).path());
        let mut reply = self.ask(&path)?;
        let bytes = self.bytes(&mut reply)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a host's supervisor answers to a path of its own interface.
    ///
    /// # Errors
    /// [`RestError::Refused`] where it is out of reach, or says no.
    pub fn ask_host<T: DeserializeOwned>(&self, host: &HostId, path: &str) -> Result<T, RestError> {
        self.read(&supervisor_path(host, path))
    }

    /// Orders something of a host's supervisor; gives what became of it.
    ///
    /// # Errors
    /// [`RestError::Refused`] where it is out of reach, or says no.
    pub fn order_host<T: DeserializeOwned>(
        &self,
        host: &HostId,
        path: &str,
        order: &impl Serialize,
    ) -> Result<T, RestError> {
        let body = serde_json::to_vec(order).map_err(RestError::Write)?;
        let request = self.with_token(self.agent.post(self.url(&supervisor_path(host, path))));
        let request = request.config().timeout_recv_response(Some(ORDER)).build();
        let reply = request.content_type("application/json").send(&body[..]);
        self.json(&mut self.accepted(reply)?)
    }

    /// A new ticket for a site.
    ///
    /// # Errors
    /// [`RestError::Refused`] where there is no such site.
    pub fn join_ticket(&self, site: &SiteName) -> Result<JoinTicket, RestError> {
        let url = self.url(&format!("/v1/sites/{site}/join-tickets"));
        let mut reply = self.accepted(self.with_token(self.agent.post(url)).send_empty())?;
        self.json(&mut reply)
    }

    /// Follows every object of a kind; of leases, those of one tenant where it is named.
    ///
    /// # Errors
    /// [`RestError`] where the watch does not begin.
    pub fn watch(&self, kind: Kind, tenant: Option<&TenantName>) -> Result<Watch, RestError> {
        let reply = self.ask(&list_path(kind, tenant, true))?;
        let body = reply.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Watch::new(self.server.clone(), Box::new(body)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        request.header("authorization", &self.authorization)
    }

    fn ask(&self, path: &str) -> Result<Response<Body>, RestError> {
        self.accepted(self.with_token(self.agent.get(self.url(path))).call())
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, RestError> {
        let mut reply = self.ask(path)?;
        self.json(&mut reply)
    }

    /// The reply, unless it is a refusal.
    fn accepted(
        &self,
        reply: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, RestError> {
        let mut reply = reply.map_err(|error| RestError::transport(&self.server, error))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let body = self.bytes(&mut reply)?;
        let refusal = serde_json::from_slice::<ApiError>(&body).ok();
        Err(match refusal {
            _ if status == StatusCode::UNAUTHORIZED => {
                RestError::Unauthorized { server: self.server.clone() }
            }
            Some(refusal) => RestError::Refused(Box::new(refusal)),
            None => RestError::Status { server: self.server.clone(), status: status.as_u16() },
        })
    }

    fn bytes(&self, reply: &mut Response<Body>) -> Result<Vec<u8>, RestError> {
        let body = reply.body_mut().with_config().limit(MAX_REPLY);
        body.read_to_vec().map_err(|error| RestError::transport(&self.server, error))
    }

    fn json<T: DeserializeOwned>(&self, reply: &mut Response<Body>) -> Result<T, RestError> {
        let bytes = self.bytes(reply)?;
        from_json(&bytes).map_err(|source| RestError::Reply { server: self.server.clone(), source })
    }
}

/// The supervisor's `/v1/…`, as the registry passes it on.
fn supervisor_path(host: &HostId, path: &str) -> String {
    format!("/v1/hosts/{host}/supervisor/{}", path.trim_start_matches("/v1/"))
}

fn list_path(kind: Kind, tenant: Option<&TenantName>, watch: bool) -> String {
    let tenant = tenant.map(|tenant| format!("tenant={tenant}"));
    let query: Vec<String> = tenant.into_iter().chain(watch.then(|| "watch=true".into())).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/{}{mark}{}", kind.plural(), query.join("&"))
}

/// Checks a registry's URL, and takes off the slash at its end.
fn server(url: &str) -> Result<String, RestError> {
    let bad = |problem| RestError::Server { url: url.to_owned(), problem };
    let plain = url.strip_suffix('/').unwrap_or(url);
    let uri: ureq::http::Uri = plain.parse().map_err(|_| bad("not a URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("not https"));
    }
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || plain != format!("https://{authority}") {
        return Err(bad("more than a name and a port"));
    }
    Ok(plain.to_owned())
}

/// The certificates of a PEM text, each usable as a root.
fn certificates(pem: &str) -> Result<Vec<Certificate<'static>>, RestError> {
    let mut found = Vec::new();
    let mut store = RootCertStore::empty();
    for item in parse_pem(pem.as_bytes()) {
        match item {
            Ok(PemItem::Certificate(certificate)) => {
                let der = CertificateDer::from(certificate.der());
                store.add(der.into_owned()).map_err(|e| RestError::Ca(e.to_string()))?;
                found.push(certificate);
            }
            Ok(_) => {}
            Err(error) => return Err(RestError::Ca(error.to_string())),
        }
    }
    if found.is_empty() {
        return Err(RestError::Ca("no certificate in it".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{certificates, server};

    #[test]
    fn a_server_is_a_name_or_address_with_a_port() {
        for url in ["https://r.example", "https://10.0.0.1:8443/", "https://[::1]:8443"] {
            assert_eq!(server(url).unwrap(), url.trim_end_matches('/'));
        }
    }

    #[test]
    fn a_server_without_tls_or_with_more_than_a_name_is_refused() {
        for url in [
            "http://r.example",
            "r.example:8443",
            "https://",
            "https://me:pw@r.example",
            "https://r.example/v1",
            "https://r.example?x",
            "https://r.example/#x",
            "https://r.example//",
            "",
        ] {
            assert!(server(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_no_ca() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            assert!(certificates(text).is_err(), "{text:?}");
        }
    }
}

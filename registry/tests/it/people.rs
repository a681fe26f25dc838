//! The REST interface as a person's program uses it.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Nothing here takes a second; a loaded machine takes the rest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rest {
    agent: Agent,
    base: String,
    pub(crate) token: String,
}

/// Status and body.
pub(crate) type Answer = (u16, Value);

impl Rest {
    pub(crate) fn new(address: SocketAddr, ca_pem: &str, token: &str) -> Self {
        let roots = [Certificate::from_pem(ca_pem.as_bytes()).unwrap()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_per_read(Some(PATIENCE))
            .build()
            .new_agent();
        Self { agent, base: format!("https://{address}"), token: token.to_owned() }
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> ureq::http::Response<ureq::Body> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .body(body.to_vec())
            .unwrap();
        self.agent.run(request).unwrap()
    }

    pub(crate) fn text(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut reply = self.call(method, path, body);
        (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let (status, text) = self.text(method, path, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[])
    }

    pub(crate) fn put(&self, path: &str, document: &Value) -> Answer {
        self.ask("PUT", path, document.to_string().as_bytes())
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get(path);
            if wanted(status, &body) {
                return body;
            }
            assert!(Instant::now() < end, "{path} stays {status}: {body:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn watch(&self, path: &str) -> Watch {
        let reply = self.call("GET", path, &[]);
        assert_eq!(reply.status().as_u16(), 200);
        assert_eq!(reply.headers()["content-type"], "application/x-ndjson");
        let reader: Box<dyn Read> = Box::new(reply.into_body().into_reader());
        Watch(BufReader::new(reader))
    }

    /// Creates a site, a tenant and a ticket for the site.
    pub(crate) fn prepare(&self, site: &str) -> String {
        let (status, _) = self.put(&format!("/v1/sites/{site}"), &site_document(site));
        assert_eq!(status, 201);
        self.put("/v1/tenants/acme", &tenant_document("acme"));
        self.ticket(site)
    }

    pub(crate) fn ticket(&self, site: &str) -> String {
        let (status, ticket) = self.ask("POST", &format!("/v1/sites/{site}/join-tickets"), &[]);
        assert_eq!(status, 201);
        ticket["ticket"].as_str().unwrap().to_owned()
    }
}

pub(crate) struct Watch(BufReader<Box<dyn Read>>);

impl Watch {
    /// The next event; blank lines are passed over.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the watch ended");
            if line != "\n" {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// The next event that is as wanted.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn ended(&mut self) -> bool {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).is_ok()
    }
}

pub(crate) fn site_document(name: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Site", "metadata": { "name": name },
        "spec": { "admission": { "mode": "auto" } },
    })
}

pub(crate) fn tenant_document(name: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Tenant", "metadata": { "name": name }, "spec": {},
    })
}

pub(crate) fn lease_document(name: &str, cpus: u32, memory: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Lease",
        "metadata": { "name": name, "tenant": "acme" },
        "spec": {
            "instance": "container", "cpus": cpus, "memory": memory,
            "workload": { "image": "oci://bulkhead.site/demo:1" },
        },
    })
}

/// The condition of that type.
pub(crate) fn condition<'a>(document: &'a Value, kind: &str) -> &'a Value {
    let all = document["status"]["conditions"].as_array().unwrap();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

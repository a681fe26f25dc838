//! The real program, killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bulkhead_registry::config::RegistryConfig;
use bulkhead_registry::files;

use crate::fleet::Fleet;
use crate::joined::{LEASE, MAC, SITE, UUID};
use crate::people::{Rest, condition, lease_document};
use crate::site::{FakeHost, attach, enrol_host, join};

/// `bulkhead-registry serve` as a process.
struct Process {
    child: Child,
    address: std::net::SocketAddr,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "the test starts the program as systemd would")]
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-registry"))
            .args(["serve", "--config"])
            .arg(folder.join("any-port.json"))
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("the registry ended at once").unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        // Its log must not fill up and hold it.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    /// SIGKILL: no last word.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Killed before, or now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_registry_comes_back_as_it_was_and_uses_no_generation_twice() {
    // Of this fleet only keys and signer are used: the registry is a process of its own.
    let mut fleet = Fleet::start();
    let folder = fleet.folder.path().to_owned();
    let config = RegistryConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        database: "process.db".into(),
        signer: "signer.sock".into(),
        trust: "trust".into(),
        tls_certificate: "tls/registry.pem".into(),
        tls_key: "tls/registry.key".into(),
        ..RegistryConfig::load(&folder.join("registry.json")).unwrap()
    };
    let text = serde_json::to_vec(&config).unwrap();
    files::replace(&folder.join("any-port.json"), &text, 0o600).unwrap();

    let mut process = Process::start(&folder);
    fleet.address = process.address;
    let ticket = fleet.rest().prepare(SITE);
    let site = join(&fleet, &ticket).await;
    let mut stream = attach(&fleet, &site).await;
    let id = enrol_host(&fleet, &site, MAC, UUID).await.unwrap();
    let mut host = FakeHost::new(&fleet, &id);
    host.take(&stream.signed_spec(&id).await);
    host.settle();
    host.report(&stream).await;
    let ready = |rest: &Rest| {
        rest.until("/v1/hosts/sjc-01-000001", |_, host| host["status"]["phase"] == "Ready");
    };
    ready(&fleet.rest());
    assert_eq!(fleet.rest().put(LEASE, &lease_document("llm", 1, "64Mi")).0, 201);
    host.take(&stream.signed_spec(&id).await);
    host.settle();
    host.report(&stream).await;
    let running = fleet.rest().until(LEASE, |_, lease| lease["status"]["phase"] == "Running");

    process.kill();
    let mut process = Process::start(&folder);
    fleet.address = process.address;
    let rest = fleet.rest();
    let (_, again) = rest.get(LEASE);
    assert_eq!(again["status"]["holding"], running["status"]["holding"]);
    assert_eq!(again["status"]["phase"], "Running");

    // The site comes back, is told what it knows, and what it says again changes nothing.
    let mut stream = attach(&fleet, &site).await;
    let same = stream.signed_spec(&id).await;
    let mut reader = FakeHost::new(&fleet, &id);
    assert_eq!(reader.take(&same).generation, 2);
    host.hello(&stream).await;
    host.report(&stream).await;
    ready(&rest);

    // Killed again between the request and its way to the host.
    assert_eq!(rest.delete(LEASE).0, 202);
    process.kill();
    let process = Process::start(&folder);
    fleet.address = process.address;
    let mut stream = attach(&fleet, &site).await;
    let spec = loop {
        let signed = stream.signed_spec(&id).await;
        let newer = FakeHost::new(&fleet, &id).take(&signed).generation > 2;
        if newer {
            break host.take(&signed);
        }
    };
    assert_eq!(spec.leases.len(), 0);
    let rest = fleet.rest();
    assert_eq!(condition(&rest.get(LEASE).1, "Released")["reason"], "WaitingForHost");
    host.settle();
    host.report(&stream).await;
    rest.until(LEASE, |status, _| status == 404);
}

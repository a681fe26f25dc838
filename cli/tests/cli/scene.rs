//! Runs `bulkhead` against a registry of the tests, in a folder of its own.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bulkhead_api::time::Timestamp;
use bulkhead_cli::console::Console;
use serde_json::json;
use tempfile::TempDir;

use crate::registry::{Registry, TOKEN};

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u8,
    pub(crate) out: String,
    pub(crate) err: String,
    /// Both, in the order in which they were written.
    pub(crate) all: String,
}

impl Said {
    /// Standard output of a run that was to succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.all);
        self.out
    }

    /// Standard error of a run that was to fail.
    #[track_caller]
    pub(crate) fn failed(self, status: u8) -> String {
        assert_eq!(self.status, status, "{}", self.all);
        assert_eq!(self.out, "", "nothing on standard output");
        self.err
    }
}

/// A registry and a user's folder.
pub(crate) struct Scene {
    pub(crate) registry: Registry,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// A user who has not logged in. `ca.pem` and `token` are in the folder.
    pub(crate) fn stranger() -> Self {
        let scene = Self { registry: Registry::start(), dir: TempDir::new().unwrap() };
        scene.file("ca.pem", &scene.registry.ca);
        scene.file("token", &format!("{TOKEN}\n"));
        scene
    }

    /// A user who has logged in.
    pub(crate) fn new() -> Self {
        let scene = Self::stranger();
        scene.login().ok();
        scene
    }

    /// A user who has logged in to a fleet with a host.
    pub(crate) fn with_host() -> Self {
        let scene = Self::new();
        scene.registry.fleet().put(host());
        scene
    }

    pub(crate) fn login(&self) -> Said {
        let (ca, token) = (self.path("ca.pem"), self.path("token"));
        self.run(&["login", "--server", &self.registry.url, "--ca", &ca, "--token-file", &token])
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with("", arguments)
    }

    pub(crate) fn run_with(&self, input: &str, arguments: &[&str]) -> Said {
        run(self.dir.path().to_owned(), input, arguments, |_| Ok(()))
    }

    /// Runs with a reader of standard output who acts on what is there so far, and may leave.
    pub(crate) fn run_read(
        &self,
        arguments: &[&str],
        reader: impl FnMut(&str) -> io::Result<()> + 'static,
    ) -> Said {
        run(self.dir.path().to_owned(), "", arguments, reader)
    }
}

/// Runs a command line with its configuration below a folder.
pub(crate) fn run(
    home: PathBuf,
    input: &str,
    arguments: &[&str],
    reader: impl FnMut(&str) -> io::Result<()> + 'static,
) -> Said {
    let (out, err, all) = (Text::default(), Text::default(), Text::default());
    let reader: Reader = Box::new(reader);
    let mut console = Console {
        input: Box::new(Cursor::new(input.as_bytes().to_vec())),
        input_is_terminal: false,
        out_is_terminal: false,
        out: Box::new(Tap { texts: [out.clone(), all.clone()], reader }),
        err: Box::new(Tap { texts: [err.clone(), all.clone()], reader: Box::new(|_| Ok(())) }),
        colour_out: false,
        colour_err: false,
        config_home: Some(home),
        clock: now,
        pause: Duration::from_millis(1),
    };
    let arguments = ["bulkhead"].iter().chain(arguments).map(Into::into);
    let status = bulkhead_cli::run(arguments, &mut console);
    Said { status, out: text(&out), err: text(&err), all: text(&all) }
}

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

type Text = Rc<RefCell<Vec<u8>>>;
type Reader = Box<dyn FnMut(&str) -> io::Result<()>>;

fn text(bytes: &Text) -> String {
    String::from_utf8(bytes.borrow().clone()).unwrap()
}

struct Tap {
    texts: [Text; 2],
    reader: Reader,
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for text in &self.texts {
            text.borrow_mut().extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.reader)(&text(&self.texts[0]))
    }
}

/// A host with three cores for leases.
pub(crate) fn host() -> serde_json::Value {
    json!({
        "apiVersion": "bulkhead.io/v1", "kind": "Host",
        "metadata": { "name": "lab-01-000001", "site": "lab-01" },
        "spec": { "mac": "52:54:00:00:00:01" },
        "status": {
            "phase": "Ready", "generation": 1, "lastSeen": "2026-03-01T11:59:58Z",
            "capacity": { "cores": 3, "coresFree": 3, "memory": "3500Mi", "memoryFree": "3500Mi" },
            "reported": status(),
        },
    })
}

/// What the host's supervisor reports.
pub(crate) fn status() -> serde_json::Value {
    json!({
        "host": "lab-01-000001", "boot": 1, "seq": 12, "observed": "2026-03-01T11:59:58Z",
        "acceptedGeneration": 1, "settledGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Observed", "owner": "supervisor",
            "since": "2026-03-01T11:55:00Z",
        }],
        "leases": [{ "id": { "tenant": "demo", "name": "hello" }, "status": {
            "phase": "Running", "starts": 1, "pid": 812,
            "holding": { "cpus": [2, 3], "memoryNodes": [0], "memory": "256Mi" },
        } }],
        "inventory": {
            "firmware": { "vendor": "QEMU", "product": "Standard PC", "biosVersion": "2025.02", "uefi": true },
            "kernel": "6.12.48+deb13-amd64", "image": "0.1.0",
            "cpu": { "model": "AMD EPYC Processor", "cores": [
                { "socket": 0, "id": 0, "node": 0, "cpus": [0, 1] },
                { "socket": 0, "id": 1, "node": 0, "cpus": [2, 3] },
                { "socket": 1, "id": 0, "node": 1, "cpus": [4, 5] },
                { "socket": 1, "id": 1, "node": 1, "cpus": [6, 7] },
            ] },
            "memory": [
                { "id": 0, "total": "2000Mi", "cpus": [0, 1, 2, 3] },
                { "id": 1, "total": "2000Mi", "cpus": [4, 5, 6, 7] },
            ],
            "nics": [{
                "name": "enp1s0", "mac": "52:54:00:00:00:01", "driver": "virtio_net", "up": true,
            }],
        },
        "supervisorRss": 14_680_064,
    })
}

/// The lease of `examples/lease.yaml`.
pub(crate) const LEASE: &str = include_str!("../../../examples/lease.yaml");
/// The tenant of `examples/tenant.yaml`.
pub(crate) const TENANT: &str = include_str!("../../../examples/tenant.yaml");
/// The site of `examples/site.yaml`.
pub(crate) const SITE: &str = include_str!("../../../examples/site.yaml");

impl Said {
    /// Standard error of a run that succeeded and had nothing to show.
    #[track_caller]
    pub(crate) fn nothing(self) -> String {
        assert_eq!((self.status, self.out.as_str()), (0, ""), "{}", self.all);
        self.err
    }
}

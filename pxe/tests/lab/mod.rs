//! A whole site on the loopback interface, with ports that the system picks.
//!
//! DHCP's port 67 answers to port 68 by broadcast and cannot be heard here; its socket is exercised by
//! the virtual servers. Everything else is the real program: port 4011, TFTP, HTTP, TLS.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![expect(unreachable_pub, reason = "modules of a test program have no outside")]

pub mod fleet;
pub mod host;
pub mod raw;
pub mod registry;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use bulkhead_api::boot::{ImageManifest, VerityImage};
use bulkhead_api::id::{MacAddr, SystemUuid};
use bulkhead_api::machine::Machine;
use bulkhead_api::site::{Admission, AdmissionMode};
use bulkhead_api::time::Timestamp;
use bulkhead_pxe::bindings::Pool;
use bulkhead_pxe::config::{Ports, RegistryConfig, SiteConfig};
use bulkhead_pxe::machines::LoopLimits;
use bulkhead_pxe::run::Bound;
use bulkhead_pxe::site::State;
use bulkhead_pxe::store::Store;
use bulkhead_pxe::tickets::Secret;
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Where the site serves.
pub const SITE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The address that machine 1 has.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 100);

/// Fails when `future` takes unreasonably long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(30), future).await;
    limit.unwrap_or_else(|_| panic!("{what}: nothing in 30 s"))
}

/// Asks again and again until the answer is there.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, asking).await
}

pub fn mac(number: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, number])
}

pub fn uuid(number: u8) -> SystemUuid {
    SystemUuid::new([number; 16])
}

pub fn secret(number: u8) -> Secret {
    Secret::new([number; 16])
}

/// A folder with everything that a site needs, and the state it begins with.
pub struct Lab {
    pub dir: TempDir,
    pub config: SiteConfig,
}

/// A site that runs.
pub struct Running {
    pub ports: Ports,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Lab {
    /// A site that admits everybody, with machine 1 known, bound to [`MACHINE`] and given ticket 1.
    pub fn new() -> Self {
        // The second lab of a program finds the log set up.
        let log = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
        drop(log);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::create_dir(&image).unwrap();
        write_image(&image);
        let config = SiteConfig {
            site: "lab".parse().unwrap(),
            interface: "lo".to_owned(),
            address: SITE,
            prefix: 8,
            pool: Pool { first: MACHINE, last: Ipv4Addr::new(127, 0, 0, 199) },
            ports: Ports { dhcp: 0, boot_server: 0, tftp: 0, http: 0, tls: 0 },
            state_dir: dir.path().join("state"),
            image_dir: image,
            trust_dir: dir.path().join("trust"),
            oci_dir: None,
            admission: Admission { mode: AdmissionMode::Auto, machines: Vec::new() },
            extensions: Vec::new(),
            authoritative: true,
            boot_loop: LoopLimits::default(),
            registry: None,
        };
        let lab = Self { dir, config };
        lab.change_state(|state| {
            let now = Timestamp::now();
            state.bindings.bind(mac(1), MACHINE);
            state.machines.see(mac(1), now).uuid = Some(uuid(1));
            state.tickets.mint(secret(1), mac(1), Some(uuid(1)), now);
        });
        lab
    }

    /// The same, told of a registry at `url`.
    pub fn with_registry(url: &str) -> Self {
        let mut lab = Self::new();
        let join_ticket_file = lab.dir.path().join("join-ticket");
        std::fs::write(&join_ticket_file, "join-me\n").unwrap();
        lab.config.registry = Some(RegistryConfig { url: url.to_owned(), join_ticket_file });
        lab
    }

    /// Changes what the site remembers, while it does not run.
    pub fn change_state(&self, change: impl FnOnce(&mut State)) {
        let (store, mut state) = Store::open(&self.config.state_dir).unwrap();
        change(&mut state);
        store.save(&state).unwrap();
    }

    /// A ticket for machine 1 that was made so many seconds ago.
    pub fn mint(&self, number: u8, seconds_ago: i64) {
        let then = Timestamp::now() - SignedDuration::from_secs(seconds_ago);
        self.change_state(|state| {
            state.tickets.mint(secret(number), mac(1), Some(uuid(1)), then);
        });
    }

    /// What the site has on disk of machine `number`.
    pub fn machine(&self, number: u8) -> Option<Machine> {
        let (_, state) = Store::open(&self.config.state_dir).unwrap();
        state.machines.get(mac(number)).map(|known| known.report(mac(number), None))
    }

    pub async fn start(&self) -> Running {
        let bound = Bound::bind(&self.config).await.unwrap();
        let ports = bound.ports;
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ended = bound.run(async { stopped.await.unwrap_or_default() }).await;
            ended.unwrap();
        });
        Running { ports, stop: Some(stop), tasks }
    }
}

impl Running {
    /// Stops the site as SIGTERM does and waits until its sockets are closed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        within("stop of the site", self.tasks.join_next()).await.unwrap().unwrap();
    }
}

pub fn uki() -> Vec<u8> {
    pattern(300_007)
}

pub fn root() -> Vec<u8> {
    pattern(8192)
}

pub fn root_hash() -> String {
    "ab".repeat(32)
}

/// Bytes of which no two blocks are alike.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_be_bytes()[3]).collect()
}

fn write_image(dir: &Path) {
    let (uki, root) = (uki(), root());
    std::fs::write(dir.join("uki.efi"), &uki).unwrap();
    std::fs::write(dir.join("root.img"), &root).unwrap();
    let manifest = ImageManifest {
        image_version: "1".to_owned(),
        kernel: "6.12.0".to_owned(),
        root: VerityImage {
            name: "root".to_owned(),
            root_hash: root_hash(),
            salt: String::new(),
            data_blocks: 1,
            size: root.len() as u64,
            crc32: None,
        },
        extensions: Vec::new(),
        uki_sha256: "00".repeat(32),
        uki_size: uki.len() as u64,
    };
    std::fs::write(dir.join("image.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

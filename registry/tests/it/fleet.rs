//! A founded fleet in a folder, with signer and registry running on threads of this process.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use bulkhead_api::spec::SpecKeys;
use bulkhead_api::time::Timestamp;
use bulkhead_registry::config::RegistryConfig;
use bulkhead_registry::init::init;
use bulkhead_registry::server;
use bulkhead_registry::signer::authority::Authority;
use bulkhead_registry::signer::server as signer;
use bulkhead_registry::store::Store;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::people::Rest;

/// A program on a thread, until it is dropped.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start<F: Future<Output = ()>>(
        program: impl FnOnce(oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(program(stopped));
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the program panicked");
        }
    }
}

/// Starts the signer of a fleet.
pub(crate) fn start_signer(folder: &Path) -> Running {
    let (keys, socket) = (folder.join("signer"), folder.join("signer.sock"));
    let (listens, listening) = std::sync::mpsc::channel();
    let running = Running::start(async move |stopped| {
        let authority = Authority::load(&keys).unwrap();
        let listener = signer::listen(&socket).unwrap();
        listens.send(()).unwrap();
        signer::run(listener, authority, async move { drop(stopped.await) }).await.unwrap();
    });
    listening.recv().unwrap();
    running
}

/// A fleet.
pub(crate) struct Fleet {
    // In the order of going: nobody is left to complain about an absent signer.
    registry: Option<Running>,
    pub(crate) signer: Option<Running>,
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &[], Timestamp::now()).unwrap();
        let signer = Some(start_signer(folder.path()));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut fleet = Self { registry: None, signer, folder, address };
        fleet.start_registry();
        fleet
    }

    fn start_registry(&mut self) {
        let config = RegistryConfig::load(&self.folder.path().join("registry.json")).unwrap();
        let (listens, listening) = std::sync::mpsc::channel();
        self.registry = Some(Running::start(async move |stopped| {
            let listener = server::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            listens.send(listener.local_addr().unwrap()).unwrap();
            server::serve(&config, listener, async move { drop(stopped.await) }).await.unwrap();
        }));
        self.address = listening.recv().unwrap();
    }

    /// Stops the registry as SIGTERM does, and starts it on the same folder.
    pub(crate) fn restart(&mut self) {
        drop(self.registry.take());
        self.start_registry();
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("trust/ca.pem")).unwrap()
    }

    pub(crate) fn spec_keys(&self) -> SpecKeys {
        let text = std::fs::read(self.folder.path().join("trust/spec-keys.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The admin.
    pub(crate) fn rest(&self) -> Rest {
        let token = std::fs::read_to_string(self.folder.path().join("admin-token")).unwrap();
        Rest::new(self.address, &self.ca_pem(), &token)
    }

    /// The database, beside the running registry.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.folder.path().join("registry.db")).await.unwrap()
    }
}

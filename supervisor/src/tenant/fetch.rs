//! Downloads in the background, one a lease: a slow site holds up nobody's release.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_api::id::LeaseId;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tracing::info;

use crate::oci::pull::{Image, Order, PullError, pull};

#[derive(Debug)]
struct Running {
    task: Id,
    cancel: watch::Sender<bool>,
}

/// What is being fetched and what failed. Dropping it cancels all.
#[derive(Debug)]
pub struct Fetches {
    running: BTreeMap<LeaseId, Running>,
    failed: BTreeMap<LeaseId, PullError>,
    tasks: JoinSet<Result<Image, PullError>>,
    wake: Arc<Notify>,
}

impl Fetches {
    /// None. `wake` is notified when one ends.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { running: BTreeMap::new(), failed: BTreeMap::new(), tasks: JoinSet::new(), wake }
    }

    /// Leases whose image is being fetched.
    pub fn running(&self) -> impl Iterator<Item = &LeaseId> {
        self.running.keys()
    }

    /// Whether a lease's image is being fetched.
    #[must_use]
    pub fn is_running(&self, id: &LeaseId) -> bool {
        self.running.contains_key(id)
    }

    /// Why the last fetch for a lease failed, once.
    pub fn take_failure(&mut self, id: &LeaseId) -> Option<PullError> {
        self.failed.remove(id)
    }

    /// Starts one, unless it runs already.
    pub fn start(&mut self, id: &LeaseId, order: Order) {
        if self.is_running(id) {
            return;
        }
        let (cancel, cancelled) = watch::channel(false);
        let wake = Arc::clone(&self.wake);
        info!(lease = %id, image = %order.reference, "fetching image");
        let task = self.tasks.spawn(async move {
            let result = pull(order, cancelled).await;
            wake.notify_one();
            result
        });
        self.running.insert(id.clone(), Running { task: task.id(), cancel });
    }

    /// Asks one to stop; [`Fetches::is_running`] says when it has.
    pub fn cancel(&mut self, id: &LeaseId) {
        self.failed.remove(id);
        if let Some(running) = self.running.get(id) {
            running.cancel.send_replace(true);
        }
    }

    /// Notes which have ended.
    pub fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let (task, result) = match ended {
                Ok((task, result)) => (task, result),
                Err(error) => (error.id(), Err(PullError::Thread(error.to_string()))),
            };
            let id = self.running.iter().find(|(_, running)| running.task == task);
            let Some(id) = id.map(|(id, _)| id.clone()) else { continue };
            let cancelled =
                self.running.remove(&id).is_some_and(|running| *running.cancel.borrow());
            match result {
                Ok(image) => info!(lease = %id, digest = %image.digest, "image fetched"),
                Err(error) if !cancelled => drop(self.failed.insert(id, error)),
                // It is not wanted any more: how it ended does not matter.
                Err(_) => {}
            }
        }
    }
}

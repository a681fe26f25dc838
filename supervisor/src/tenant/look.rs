//! Looks at resources, a thread for each class: one that does not answer makes its own resources unseen and no others.

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_api::chain::Chain;
use bulkhead_api::id::LeaseId;
use bulkhead_api::resource::{Resource, ResourceClass};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::class::{Attached, Classes, Order};
use crate::tenant::beside::aside;

/// All classes together have answered within this time, or are left alone until they do.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen of the resources of each lease.
pub(super) type Seen = BTreeMap<LeaseId, BTreeMap<Resource, Attached>>;

/// What a class said: what is there, and how each resource that was asked for stands.
type Said = (Result<Vec<(LeaseId, Resource)>, String>, Vec<Attached>);

/// What is being looked at.
#[derive(Debug)]
pub struct Looks {
    patience: Duration,
    /// Classes that were asked and have not answered.
    silent: BTreeMap<ResourceClass, (Instant, oneshot::Receiver<Said>)>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { patience: PATIENCE, silent: BTreeMap::new() }
    }
}

impl Looks {
    /// What is there for leases, those of the orders among them; and why a class could not be listed.
    pub(super) async fn look(
        &mut self,
        classes: &Classes,
        orders: Vec<Order>,
    ) -> (Seen, Option<String>) {
        let mut by_class: BTreeMap<ResourceClass, Vec<Order>> = BTreeMap::new();
        for order in orders {
            by_class.entry(order.resource.class()).or_default().push(order);
        }
        let (mut seen, mut unlisted) = (Seen::new(), None);
        let mut asked = Vec::new();
        for (class, handler) in classes.all() {
            let orders = by_class.remove(&class).unwrap_or_default();
            if let Some((since, answer)) = self.silent.get_mut(&class) {
                // What it says now is of an earlier look.
                if matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                    let why = silence(class, *since);
                    unseen(&mut seen, &orders, &why);
                    unlisted.get_or_insert(why);
                    continue;
                }
                self.silent.remove(&class);
            }
            let (handler, given) = (handler.clone(), orders.clone());
            let look = move || {
                let found = handler.found().map_err(|error| Chain(&error).to_string());
                let state = |order: &Order| {
                    let said = handler.observe(order);
                    said.unwrap_or_else(|error| Attached::Unseen(Chain(&error).to_string()))
                };
                (found, given.iter().map(state).collect())
            };
            match aside(&format!("look-{class}"), None, look) {
                Ok(answer) => asked.push((class, orders, answer)),
                Err(error) => {
                    let why = format!("have a thread to look at {class} resources: {error}");
                    unseen(&mut seen, &orders, &why);
                    unlisted.get_or_insert(why);
                }
            }
        }
        for orders in by_class.into_values() {
            unseen(&mut seen, &orders, "this version cannot handle it");
        }
        let (since, until) = (Instant::now(), Instant::now() + self.patience);
        let mut states = Vec::new();
        for (class, orders, mut answer) in asked {
            match timeout_at(until, &mut answer).await {
                Ok(Ok((found, state))) => {
                    let found = found.unwrap_or_else(|why| {
                        warn!(%class, error = why, "resources of a class cannot be listed");
                        unlisted.get_or_insert(format!("list {class} resources: {why}"));
                        Vec::new()
                    });
                    for (lease, resource) in found {
                        seen.entry(lease).or_default().insert(resource, Attached::Yes);
                    }
                    states.extend(orders.into_iter().zip(state));
                }
                Ok(Err(_)) => {
                    let why = format!("looking at {class} resources broke");
                    unseen(&mut seen, &orders, &why);
                    unlisted.get_or_insert(why);
                }
                Err(_) => {
                    let why = silence(class, since);
                    warn!(%class, "a class does not answer");
                    unseen(&mut seen, &orders, &why);
                    unlisted.get_or_insert(why);
                    self.silent.insert(class, (since, answer));
                }
            }
        }
        // What is asked for goes before what was merely found.
        for (Order { lease, resource, .. }, state) in states {
            let resources = seen.entry(lease).or_default();
            if state == Attached::No {
                resources.remove(&resource);
            } else {
                resources.insert(resource, state);
            }
        }
        (seen, unlisted)
    }
}

fn silence(class: ResourceClass, since: Instant) -> String {
    format!("{class} resources cannot be looked at: no answer for {} s", since.elapsed().as_secs())
}

fn unseen(seen: &mut Seen, orders: &[Order], why: &str) {
    for Order { lease, resource, .. } in orders {
        let resources = seen.entry(lease.clone()).or_default();
        resources.insert(resource.clone(), Attached::Unseen(why.to_owned()));
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;

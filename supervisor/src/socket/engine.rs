//! Requests about the ledger and the quarantine. Looking needs nobody; a change is the engine's to make
//! ([`crate::node::ask`]), between two passes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use bulkhead_api::chain::Chain;
use bulkhead_api::document::from_json;
use bulkhead_api::local::{Ledger, ReceiptsRepair, Repair, RepairOrder, Retry, RetryOrder};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::View;
use super::reply::{Refused, bad_field, broken, refused};
use crate::ledger;
use crate::node::ask::{Ask, Declined};
use crate::tenant::repair::shown;

type Answer<T> = Result<Json<T>, Refused>;

pub(super) async fn ledger(State(view): State<View>) -> Answer<Ledger> {
    let path = view.paths.ledger();
    match tokio::task::spawn_blocking(move || ledger::load(&path)).await {
        Ok(Ok(ledger)) => Ok(Json(shown(&ledger))),
        Ok(Err(problem)) => {
            let message = Chain(&problem).to_string();
            Err(refused(StatusCode::CONFLICT, problem.label(), message))
        }
        Err(error) => Err(broken(&Chain(&error).to_string())),
    }
}

pub(super) async fn repair(State(view): State<View>, body: Bytes) -> Answer<Repair> {
    let RepairOrder { apply } = order(&body)?;
    ask(&view, |reply| Ask::RepairLedger { apply, reply }).await
}

pub(super) async fn repair_receipts(
    State(view): State<View>,
    body: Bytes,
) -> Answer<ReceiptsRepair> {
    let RepairOrder { apply } = order(&body)?;
    ask(&view, |reply| Ask::RepairReceipts { apply, reply }).await
}

pub(super) async fn retry(State(view): State<View>, body: Bytes) -> Answer<Retry> {
    let RetryOrder { resource } = order(&body)?;
    ask(&view, |reply| Ask::RetryQuarantine { resource, reply }).await
}

/// Reads an order; an empty body is the default one, which changes least.
fn order<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Refused> {
    if body.is_empty() {
        return Ok(T::default());
    }
    from_json(body).map_err(|fault| bad_field(&fault.path, fault.message))
}

async fn ask<T>(
    view: &View,
    question: impl FnOnce(oneshot::Sender<Result<T, Declined>>) -> Ask,
) -> Answer<T> {
    let (reply, answer) = oneshot::channel();
    let busy = "the supervisor has enough to answer: ask again".to_owned();
    match view.asks.try_send(question(reply)) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "Busy", busy));
        }
        Err(TrySendError::Closed(_)) => return Err(broken("the supervisor is ending")),
    }
    match answer.await {
        Ok(Ok(done)) => Ok(Json(done)),
        Ok(Err(declined)) => Err(declined.into()),
        Err(_) => Err(broken("the supervisor ended before it answered: ask again")),
    }
}

impl From<Declined> for Refused {
    fn from(declined: Declined) -> Self {
        let (status, reason) = match &declined {
            Declined::LedgerWhole => (StatusCode::CONFLICT, "LedgerWhole"),
            Declined::ReceiptsWhole => (StatusCode::CONFLICT, "ReceiptsWhole"),
            Declined::NotInQuarantine(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Declined::NotNow(_) => (StatusCode::CONFLICT, "NotNow"),
            Declined::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        };
        refused(status, reason, declined.to_string())
    }
}

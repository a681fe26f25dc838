//! The same requests, asked from far: by the registry, over the link.
//!
//! A host at a site without people has no shell, so that whoever operates it asks this way. Statements and receipts
//! are signed by the host itself: nobody on the way can make one. Orders are those of the socket: each takes back
//! or erases, none gives anything to anybody.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::IntoResponse as _;
use bulkhead_api::chain::Chain;
use bulkhead_api::link::rpc::{Answer, Question};
use tower::ServiceExt as _;

use super::reply::{Refused, bad_field, broken, refused};
use super::{View, route};

/// A message of the link holds 4 MiB (tonic's default).
const MOST: usize = 3 << 20;
/// What is asked is read from memory and small files.
const PATIENCE: Duration = Duration::from_secs(8);
/// An order waits for the end of a pass ([`crate::node::PASS_DEADLINE`]).
const PATIENCE_FOR_ORDERS: Duration = Duration::from_secs(320);

/// The requests, without the socket.
#[derive(Debug, Clone)]
pub struct Interface(Router);

impl Interface {
    /// Of what the socket shows.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self(route::routes(view))
    }

    /// Answers as the socket would, in bounded time and size.
    pub async fn answer(&self, question: Question) -> Answer {
        let (id, order) = (question.id, question.order);
        let patience = if order { PATIENCE_FOR_ORDERS } else { PATIENCE };
        match tokio::time::timeout(patience, self.answered(question)).await {
            Ok(Ok((status, body))) => Answer { id, status: status.as_u16().into(), body },
            Ok(Err(refusal)) => refusal_of(id, refusal).await,
            Err(_) => {
                let message = format!("not answered within {} s: ask again", patience.as_secs());
                refusal_of(id, refused(StatusCode::SERVICE_UNAVAILABLE, "Busy", message)).await
            }
        }
    }

    /// Says that there are too many questions.
    pub async fn busy(&self, question: &Question) -> Answer {
        let message = "the supervisor has enough to answer: ask again".to_owned();
        refusal_of(question.id, refused(StatusCode::SERVICE_UNAVAILABLE, "Busy", message)).await
    }

    async fn answered(&self, question: Question) -> Result<(StatusCode, bytes::Bytes), Refused> {
        let Question { path, order, body, .. } = question;
        let request = Request::builder()
            .method(if order { Method::POST } else { Method::GET })
            .uri(&path)
            .body(Body::from(body))
            .map_err(|e| bad_field("path", format!("{path:?}: {e}")))?;
        let response = match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (status, body) = (response.status(), response.into_body());
        let body = to_bytes(body, MOST).await.map_err(|error| {
            let size = std::error::Error::source(&error)
                .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
            if size {
                let message = format!(
                    "more than the {} MiB that fit into one answer: ask for less, such as the receipts of one lease",
                    MOST >> 20
                );
                refused(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message)
            } else {
                broken(&Chain(&error).to_string())
            }
        })?;
        Ok((status, body))
    }
}

async fn refusal_of(id: u64, refusal: Refused) -> Answer {
    let response = refusal.into_response();
    let status = response.status().as_u16().into();
    let body = to_bytes(response.into_body(), MOST).await.unwrap_or_default();
    Answer { id, status, body }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;

//! Who asks, and what is written down of it.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION};
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bulkhead_api::chain::Chain;
use bulkhead_api::document::ApiError;
use bulkhead_api::time::Timestamp;
use tracing::{Instrument as _, debug, error, info_span};

use super::Shared;
use super::answer::Fault;
use crate::store::audit::{self, Entry};
use crate::store::{Durability, StoreError, Write};
use crate::token::Purpose;

/// The one user of this version.
pub const ADMIN: &str = "admin";

/// Lets only requests with the admin's token through.
pub(crate) async fn require_token(
    State(registry): Shared,
    request: Request,
    next: Next,
) -> Result<Response, Fault> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, token)) = header.and_then(|header| header.split_once(' ')) else {
        return Err(Fault::unauthorized("a bearer token is wanted; log in with `bulkhead login`"));
    };
    if !scheme.eq_ignore_ascii_case("bearer")
        || !registry.admin.matches(Purpose::Bearer, token.trim())
    {
        return Err(Fault::unauthorized("this token is not known; log in with `bulkhead login`"));
    }
    Ok(next.run(request).await)
}

/// Writes refused changes into the audit log; a change that is made is written with the change itself.
pub(crate) async fn audit_refusals(
    State(registry): Shared,
    request: Request,
    next: Next,
) -> Response {
    let Some(action) = action(request.method()) else { return next.run(request).await };
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let Some(refused) = response.extensions().get::<ApiError>() else { return response };
    let entry = Entry {
        at: Timestamp::now(),
        who: ADMIN.to_owned(),
        action,
        object: object(&path),
        status: response.status().as_u16(),
        reason: format!("{}: {}", refused.reason, refused.message),
    };
    let keep = async {
        let mut write = registry.store.write(Durability::Durable).await?;
        audit::append(write.conn(), &entry).await?;
        write.commit().await
    };
    match keep.await {
        Ok(()) => response,
        Err(fault) => {
            error!(error = %Chain(&fault), "refusal not written into the audit log");
            response
        }
    }
}

fn action(method: &Method) -> Option<&'static str> {
    match *method {
        Method::PUT => Some("PUT"),
        Method::DELETE => Some("DELETE"),
        Method::POST => Some("POST"),
        _ => None,
    }
}

fn object(path: &str) -> String {
    // Paths are the client's text: no more of them than an object's name can have.
    path.trim_start_matches("/v1/").chars().take(200).collect()
}

/// Adds the entry of a change to its transaction.
pub(crate) async fn audit_change(
    write: &mut Write,
    action: &'static str,
    object: String,
    status: u16,
) -> Result<(), StoreError> {
    let who = ADMIN.to_owned();
    let entry = Entry { at: Timestamp::now(), who, action, object, status, reason: String::new() };
    audit::append(write.conn(), &entry).await
}

/// One span a request. Tells a client of HTTP/1 when its connection ends with the answer: a body that was
/// not read, because it is too large or nobody may send it, is not read to its end.
pub(crate) async fn log_request(request: Request, next: Next) -> Response {
    let one_at_a_time = request.version() <= Version::HTTP_11;
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    async {
        let mut response = next.run(request).await.into_response();
        let unread = [StatusCode::UNAUTHORIZED, StatusCode::PAYLOAD_TOO_LARGE];
        if one_at_a_time && unread.contains(&response.status()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        debug!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await
}

//! Replies that are not what was asked for.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulkhead_api::document::ApiError;

/// Status and reason.
#[derive(Debug)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) Box<ApiError>);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

pub(super) fn refused(status: StatusCode, reason: &str, message: String) -> Refused {
    let reason = reason.to_owned();
    Refused(status, Box::new(ApiError { reason, message, field: None, shortages: Vec::new() }))
}

pub(super) fn not_found(message: String) -> Refused {
    refused(StatusCode::NOT_FOUND, "NotFound", message)
}

pub(super) fn broken(message: &str) -> Refused {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal", message.to_owned())
}

pub(super) fn bad_field(field: &str, message: String) -> Refused {
    let mut refusal = refused(StatusCode::BAD_REQUEST, "BadField", message);
    refusal.1.field = Some(field.to_owned());
    refusal
}

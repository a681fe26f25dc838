//! Errors as people get them.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bulkhead_api::chain::Chain;
use bulkhead_api::document::{ApiError, FieldError, HostShortage};
use tracing::error;

use crate::store::StoreError;

/// Status and body of a refusal.
#[derive(Debug, Clone)]
pub struct Fault {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub error: ApiError,
}

impl Fault {
    fn new(status: StatusCode, reason: &str, field: Option<&str>, message: String) -> Self {
        let error = ApiError {
            reason: reason.to_owned(),
            message,
            field: field.map(str::to_owned),
            shortages: Vec::new(),
        };
        Self { status, error }
    }

    /// 400: a field of what was sent.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadField", Some(field), message.into())
    }

    /// 404: there is no such object.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", None, message.into())
    }

    /// 404: what a field names is not there.
    pub fn missing(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", Some(field), message.into())
    }

    /// 409: not in the state that the object is in.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", None, message.into())
    }

    /// 409: no host has room.
    pub fn does_not_fit(message: String, shortages: Vec<HostShortage>) -> Self {
        let mut fault = Self::new(StatusCode::CONFLICT, "DoesNotFit", None, message);
        fault.error.shortages = shortages;
        fault
    }

    /// 401: no token, or a wrong one.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", None, message.into())
    }

    /// 503: try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", None, message.into())
    }
}

impl From<FieldError> for Fault {
    fn from(error: FieldError) -> Self {
        Self::field(&error.path, error.message)
    }
}

impl From<StoreError> for Fault {
    fn from(fault: StoreError) -> Self {
        error!(error = %Chain(&fault), "store");
        Self::unavailable("the registry's database does not answer; try again")
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self.error)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, challenge);
        }
        // For the audit log.
        response.extensions_mut().insert(self.error);
        response
    }
}

/// 404 of the router.
pub(crate) async fn no_such_path(uri: Uri) -> Fault {
    Fault::not_found(format!("no such path: {}; see /v1/openapi.json", uri.path()))
}

/// 405 of the router.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Fault {
    let message = format!("{method} is not for {}; see /v1/openapi.json", uri.path());
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "BadMethod", None, message)
}

//! Documents and names that people send, read with the field at fault.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bulkhead_api::document::{Document, FieldError, Kind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Fault;

/// Reads a document of one kind.
///
/// The kind is taken out first: a type that is told apart by a field of its own cannot say which of its
/// other fields is wrong.
///
/// # Errors
/// 400 with the field.
pub fn document<T: DeserializeOwned>(kind: Kind, body: &Bytes) -> Result<T, Fault> {
    let mut value: Value =
        serde_json::from_slice(body).map_err(|e| Fault::field(".", e.to_string()))?;
    let Value::Object(fields) = &mut value else {
        return Err(Fault::field(".", format!("a document of kind {} is wanted", kind.name())));
    };
    match fields.remove("kind") {
        Some(Value::String(found)) if found == kind.name() => {}
        Some(found) => {
            let message = format!("{found}: expected {:?} on this path", kind.name());
            return Err(Fault::field("kind", message));
        }
        None => return Err(Fault::field("kind", format!("expected {:?}", kind.name()))),
    }
    let read = serde_path_to_error::deserialize(value);
    let fault = |e: serde_path_to_error::Error<serde_json::Error>| FieldError {
        path: e.path().to_string(),
        message: e.inner().to_string(),
    };
    read.map_err(|e| fault(e).into())
}

/// 400 unless the name in the document is that of the path.
///
/// # Errors
/// 400 with the field.
pub fn same_name<T: PartialEq + std::fmt::Display>(
    field: &str,
    path: &T,
    document: &T,
) -> Result<(), Fault> {
    if path == document {
        return Ok(());
    }
    Err(Fault::field(field, format!("{document}: the path says {path}")))
}

/// Names in the path, checked.
#[derive(Debug, Clone)]
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        // A name that cannot be is of nothing.
        path.map(|Path(names)| Self(names)).map_err(|e| Fault::not_found(e.body_text()))
    }
}

/// What follows the question mark, checked.
#[derive(Debug, Clone)]
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked.map(|Query(asked)| Self(asked)).map_err(|e| Fault::field("query", e.body_text()))
    }
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// 201.
    Created,
    /// 200.
    Changed,
    /// 200.
    Unchanged,
    /// 202: the object is on its way out.
    Releasing,
}

impl Done {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Created => StatusCode::CREATED,
            Self::Changed | Self::Unchanged => StatusCode::OK,
            Self::Releasing => StatusCode::ACCEPTED,
        }
    }
}

/// A document after a change.
#[derive(Debug)]
pub struct After(pub Done, pub Document);

impl IntoResponse for After {
    fn into_response(self) -> Response {
        (self.0.status(), Json(self.1)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_api::document::{Lease, Tenant};
    use proptest::prelude::*;

    use super::*;

    fn fault<T: DeserializeOwned>(kind: Kind, text: &str) -> (String, String) {
        let Err(fault) = document::<T>(kind, &Bytes::copy_from_slice(text.as_bytes())) else {
            panic!("{text} was read");
        };
        (fault.error.field.unwrap(), fault.error.message)
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let lease = r#"{"apiVersion":"bulkhead.io/v1","kind":"Lease",
            "metadata":{"name":"a","tenant":"b"},
            "spec":{"instance":"container","cpus":"many","memory":"1Gi",
            "workload":{"image":"oci://x/y:z"}}}"#;
        assert_eq!(fault::<Lease>(Kind::Lease, lease).0, "spec.cpus");
        let typo = lease.replace("\"cpus\":\"many\"", "\"cpu\":1");
        let (field, message) = fault::<Lease>(Kind::Lease, &typo);
        assert_eq!(field, "spec.cpu");
        assert!(message.contains("unknown field `cpu`"), "{message}");
        let name = lease.replace("\"name\":\"a\"", "\"name\":\"A b\"");
        assert_eq!(fault::<Lease>(Kind::Lease, &name).0, "metadata.name");
    }

    #[test]
    fn another_kind_is_refused() {
        let (field, message) = fault::<Tenant>(Kind::Tenant, r#"{"kind":"Lease"}"#);
        assert_eq!(
            (field.as_str(), message.as_str()),
            ("kind", "\"Lease\": expected \"Tenant\" on this path")
        );
        assert_eq!(fault::<Tenant>(Kind::Tenant, "{}").0, "kind");
        assert_eq!(fault::<Tenant>(Kind::Tenant, "[]").0, ".");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(document::<Lease>(Kind::Lease, &Bytes::from(bytes)).is_err());
        }
    }
}

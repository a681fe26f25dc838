//! Between values and columns. What was written is checked again when it is read: a file can be damaged.

use std::fmt::Display;
use std::str::FromStr;

use bulkhead_api::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

#[expect(clippy::needless_pass_by_value, reason = "callers hand their error over")]
fn damaged(column: &'static str, message: impl ToString) -> StoreError {
    StoreError::Damaged { column, message: message.to_string() }
}

pub(super) fn parse<T>(column: &'static str, text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| damaged(column, e))
}

pub(super) fn from_json<T: DeserializeOwned>(
    column: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| damaged(column, e))
}

pub(super) fn to_json(column: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| damaged(column, e))
}

pub(super) fn time(column: &'static str, milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|e| damaged(column, e))
}

pub(super) fn count(column: &'static str, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|e| damaged(column, e))
}

/// SQLite's integers end at 2^63 - 1.
pub(super) fn integer(column: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|e| damaged(column, e))
}

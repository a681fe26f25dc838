//! A JSON value together with where it stands.

use std::fmt;

use serde_json::{Map, Value};

use super::JsonError;

/// One step into a value.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A value and the way to it; costs nothing until an error asks for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    above: Option<&'a At<'a>>,
    step: Step<'a>,
}

impl<'a> At<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self { value, above: None, step: Step::Root }
    }

    /// An error at this value.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> JsonError {
        JsonError::Form { at: self.to_string(), problem: problem.into() }
    }

    /// "expected … and not …".
    pub(super) fn unexpected(&self, expected: &str) -> JsonError {
        let mut found = self.value.to_string();
        if found.len() > 60 {
            found = found.chars().take(60).chain(['…']).collect();
        }
        self.wrong(format!("expected {expected}, found {found}"))
    }

    /// An object that has no key but these.
    pub(super) fn object(&self, keys: &[&str]) -> Result<&'a Map<String, Value>, JsonError> {
        let Value::Object(map) = self.value else { return Err(self.unexpected("an object")) };
        match map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => Err(self.wrong(format!("unknown key {key:?}"))),
            None => Ok(map),
        }
    }

    /// The only key of an object, and its value.
    pub(super) fn only<'b>(&'b self) -> Result<(&'b str, At<'b>), JsonError> {
        if let Value::Object(map) = self.value
            && map.len() == 1
            && let Some((key, value)) = map.iter().next()
        {
            return Ok((key, At { value, above: Some(self), step: Step::Key(key) }));
        }
        Err(self.unexpected("an object with one key"))
    }

    /// The value of a key, where it is there.
    pub(super) fn optional<'b>(&'b self, key: &'b str) -> Option<At<'b>> {
        let value = self.value.get(key)?;
        Some(At { value, above: Some(self), step: Step::Key(key) })
    }

    /// The value of a key.
    pub(super) fn get<'b>(&'b self, key: &'b str) -> Result<At<'b>, JsonError> {
        self.optional(key).ok_or_else(|| self.wrong(format!("key {key:?} is missing")))
    }

    /// The members of a list.
    pub(super) fn items<'b>(&'b self) -> Result<impl Iterator<Item = At<'b>> + 'b, JsonError> {
        let Value::Array(items) = self.value else { return Err(self.unexpected("a list")) };
        Ok(items.iter().enumerate().map(|(index, value)| At {
            value,
            above: Some(self),
            step: Step::Index(index),
        }))
    }

    /// The two members of a list of two.
    pub(super) fn pair<'b>(&'b self) -> Result<(At<'b>, At<'b>), JsonError> {
        let mut items = self.items()?;
        match (items.next(), items.next(), items.next()) {
            (Some(first), Some(second), None) => Ok((first, second)),
            _ => Err(self.unexpected("a list of two")),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, JsonError> {
        self.value.as_str().ok_or_else(|| self.unexpected("a text"))
    }

    pub(super) fn number<T: TryFrom<u64>>(&self) -> Result<T, JsonError> {
        let number = self.value.as_u64().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.unexpected("a number of its range"))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            fmt::Display::fmt(above, f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if self.above.is_some_and(|above| above.above.is_some()) => {
                write!(f, ".{key}")
            }
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

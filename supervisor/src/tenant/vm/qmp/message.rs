//! Lines of QEMU's machine protocol (QEMU docs/interop/qmp-spec.rst). What comes was written by a process that a guest may have
//! taken over: it is read with bounds and never acted on beyond what is asked here. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

/// Longest line that is read. Answers to what is asked here have a few hundred bytes.
pub const MOST_LINE: usize = 64 << 10;

/// One line of QEMU's.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line: QEMU waits for `qmp_capabilities`.
    Greeting,
    /// A command was done.
    Return {
        /// Which one.
        id: Option<u64>,
        /// Its answer.
        value: Value,
    },
    /// A command was refused.
    Refused {
        /// Which one.
        id: Option<u64>,
        /// Why, in QEMU's words.
        why: String,
    },
    /// Something happened.
    Event {
        /// What, such as `SHUTDOWN`.
        name: String,
        /// Its particulars; null where there are none.
        data: Value,
    },
}

/// A line that is none of QMP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("QEMU's monitor sent a line that is none of QMP: {0}")]
pub struct NotQmp(String);

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(default, rename = "return", deserialize_with = "there")]
    done: Option<Value>,
    error: Option<RawError>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    id: Value,
}

#[derive(Deserialize)]
struct RawError {
    desc: String,
}

/// A value that is null is there too.
fn there<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Reads a line, with or without its end.
///
/// # Errors
/// [`NotQmp`].
pub fn parse(line: &[u8]) -> Result<Message, NotQmp> {
    let raw: Raw = serde_json::from_slice(line).map_err(|error| NotQmp(error.to_string()))?;
    let id = raw.id.as_u64();
    match raw {
        Raw { greeting: Some(_), done: None, error: None, event: None, .. } => {
            Ok(Message::Greeting)
        }
        Raw { greeting: None, done: Some(value), error: None, event: None, .. } => {
            Ok(Message::Return { id, value })
        }
        Raw { greeting: None, done: None, error: Some(RawError { desc }), event: None, .. } => {
            Ok(Message::Refused { id, why: desc })
        }
        Raw { greeting: None, done: None, error: None, event: Some(name), data, .. } => {
            Ok(Message::Event { name, data })
        }
        _ => Err(NotQmp("expected one of QMP, return, error and event".to_owned())),
    }
}

/// A command as a line.
#[must_use]
pub fn command(name: &str, id: u64) -> Vec<u8> {
    let mut line = json!({ "execute": name, "id": id }).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_refusals_and_events_are_told_apart() {
        let parse = |text: &str| parse(text.as_bytes());
        assert_eq!(parse(r#"{"QMP": {"version": {}, "capabilities": []}}"#), Ok(Message::Greeting));
        let done = Message::Return { id: Some(7), value: json!({}) };
        assert_eq!(parse(r#"{"return": {}, "id": 7}"#), Ok(done));
        let done = Message::Return { id: None, value: Value::Null };
        assert_eq!(parse("{\"return\": null}\r\n"), Ok(done));
        let refused = r#"{"error": {"class": "CommandNotFound", "desc": "no"}, "id": 8}"#;
        assert_eq!(parse(refused), Ok(Message::Refused { id: Some(8), why: "no".to_owned() }));
        let event =
            r#"{"event": "SHUTDOWN", "data": {"guest": true}, "timestamp": {"seconds": 1}}"#;
        let data = json!({ "guest": true });
        assert_eq!(parse(event), Ok(Message::Event { name: "SHUTDOWN".to_owned(), data }));
        for none in ["", "{}", "[]", "x", r#"{"return": 1, "event": "a"}"#, r#"{"error": {}}"#] {
            assert!(parse(none).is_err(), "{none}");
        }
    }

    #[test]
    fn a_command_is_one_line() {
        assert_eq!(
            command("system_powerdown", 3),
            b"{\"execute\":\"system_powerdown\",\"id\":3}\n"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }

        #[test]
        fn any_object_of_qmps_words_is_read_or_refused(
            keys in prop::collection::vec("QMP|return|error|event|data|id|desc", 0..4), text in "[0-9]|null|\\{\\}|\"a\"",
        ) {
            let body: Vec<String> = keys.iter().map(|key| format!("\"{key}\":{text}")).collect();
            drop(parse(format!("{{{}}}", body.join(",")).as_bytes()));
        }
    }
}

//! QEMU's monitor in its machine-readable form (QEMU docs/interop/qmp-spec.rst): JSON lines on a socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// What QEMU says on one line.
#[derive(Debug, PartialEq)]
enum Message {
    Return(Value),
    Error(String),
    /// Something happened that nobody asked about.
    Event,
}

fn parse(line: &str) -> Result<Message> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("read QMP {line:?}"))?;
    if let Some(result) = value.get("return") {
        return Ok(Message::Return(result.clone()));
    }
    if let Some(error) = value.get("error") {
        let text = error.get("desc").and_then(Value::as_str).unwrap_or("no description");
        return Ok(Message::Error(text.to_owned()));
    }
    if value.get("event").is_some() || value.get("QMP").is_some() {
        return Ok(Message::Event);
    }
    bail!("QMP line {line:?} is neither reply nor event")
}

/// A connection to the monitor. QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Connects and leaves the negotiation mode.
    ///
    /// # Errors
    /// The socket is not there or does not answer.
    pub fn connect(socket: &Path) -> Result<Self> {
        let name = || format!("connect {}", socket.display());
        let writer = UnixStream::connect(socket).with_context(name)?;
        // savevm of a large guest is the slowest command.
        writer.set_read_timeout(Some(Duration::from_secs(120))).with_context(name)?;
        let reader = BufReader::new(writer.try_clone().with_context(name)?);
        let mut qmp = Self { reader, writer };
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives its result.
    ///
    /// # Errors
    /// QEMU refuses it, or the connection ends.
    pub fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": name, "arguments": arguments });
        writeln!(self.writer, "{request}").with_context(|| format!("send QMP {name}"))?;
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            if read.with_context(|| format!("await the answer to QMP {name}"))? == 0 {
                bail!("QMP {name}: QEMU closed the connection");
            }
            match parse(&line)? {
                Message::Return(value) => return Ok(value),
                Message::Error(text) => bail!("QMP {name}: {text}"),
                Message::Event => {}
            }
        }
    }

    /// Runs a command of the human monitor. These report errors as text: any text is one.
    ///
    /// # Errors
    /// The command printed something.
    pub fn human(&mut self, line: &str) -> Result<()> {
        let reply = self.command("human-monitor-command", &json!({ "command-line": line }))?;
        match reply.as_str() {
            Some("") => Ok(()),
            _ => bail!("QEMU monitor {line}: {reply}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_errors_and_events_are_told_apart() {
        let reply = parse(r#"{"return": {"running": true}}"#).unwrap();
        assert_eq!(reply, Message::Return(json!({"running": true})));
        let error = parse(r#"{"error": {"class": "GenericError", "desc": "no"}}"#).unwrap();
        assert_eq!(error, Message::Error("no".into()));
        assert_eq!(parse(r#"{"event": "RESET", "timestamp": {}}"#).unwrap(), Message::Event);
        assert_eq!(parse(r#"{"QMP": {"version": {}}}"#).unwrap(), Message::Event);
        assert!(parse("{}").is_err() && parse("x").is_err());
    }
}

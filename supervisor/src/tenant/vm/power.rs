//! `bulkheadd power-down SOCKET --within SECONDSs`: what systemd runs first when the service of a virtual machine is stopped.
//!
//! ```text
//!  press the power button, again every other second ─► guest powers off ─► QEMU ends      status 0
//!                                                   └► not within the time                status 1: systemd sends SIGTERM
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::tenant::vm::qmp::{Monitor, QmpError};

/// Name of the subcommand.
pub const COMMAND: &str = "power-down";

/// A guest that has not come so far as to hear its button hears a later press.
const AGAIN: Duration = Duration::from_secs(2);

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerDown {
    /// There was no machine to switch off.
    WasOff,
    /// The machine is off.
    Off,
    /// The guest did not heed its button in time.
    StillOn,
}

/// What the subcommand was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The QMP socket.
    pub socket: PathBuf,
    /// How long the guest has.
    pub within: Duration,
}

impl Arguments {
    /// Reads `SOCKET --within Ns`, N from 1 to 3600.
    #[must_use]
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let [socket, option, time] = arguments else { return None };
        let seconds: u64 = time.strip_suffix('s')?.parse().ok()?;
        let good = option == "--within" && (1..=3600).contains(&seconds);
        good.then(|| Self { socket: PathBuf::from(socket), within: Duration::from_secs(seconds) })
    }

    /// The words that [`Arguments::parse`] reads.
    #[must_use]
    pub fn words(socket: &Path, within: Duration) -> [String; 3] {
        let socket = socket.to_string_lossy().into_owned();
        [socket, "--within".to_owned(), format!("{}s", within.as_secs())]
    }
}

/// Switches a machine off by its power button.
///
/// # Errors
/// QEMU is there and cannot be spoken to.
pub fn power_down(socket: &Path, within: Duration) -> Result<PowerDown, QmpError> {
    let end = Instant::now().checked_add(within).unwrap_or_else(Instant::now);
    let mut monitor = match Monitor::connect(socket, end) {
        Ok(monitor) => monitor,
        Err(error) if error.is_gone() => return Ok(PowerDown::WasOff),
        Err(error) => return Err(error),
    };
    loop {
        match monitor.press_power(end) {
            Ok(()) => {}
            Err(error) if error.is_gone() => return Ok(PowerDown::Off),
            Err(QmpError::Late(_)) => return Ok(PowerDown::StillOn),
            Err(error) => return Err(error),
        }
        let pause = Instant::now().checked_add(AGAIN).map_or(end, |again| again.min(end));
        loop {
            // QEMU ends when its guest powered off, and its end is the end of the connection.
            match monitor.event(pause) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.is_gone() => return Ok(PowerDown::Off),
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= end {
            return Ok(PowerDown::StillOn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_read_back_and_others_are_refused() {
        let wanted = Arguments { socket: PathBuf::from("/a/sock"), within: Duration::from_secs(8) };
        let words = Arguments::words(&wanted.socket, wanted.within);
        assert_eq!(Arguments::parse(&words), Some(wanted));
        for bad in
            ["", "/a", "/a --within 8", "/a --within 0s", "/a --until 8s", "/a --within 8s x"]
        {
            let words: Vec<String> = bad.split_whitespace().map(ToOwned::to_owned).collect();
            assert_eq!(Arguments::parse(&words), None, "{bad}");
        }
    }

    #[test]
    fn a_machine_that_is_not_there_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("sock");
        assert_eq!(power_down(&none, Duration::from_secs(5)).unwrap(), PowerDown::WasOff);
        // A socket that nobody listens on any more.
        drop(std::os::unix::net::UnixListener::bind(&none).unwrap());
        assert_eq!(power_down(&none, Duration::from_secs(5)).unwrap(), PowerDown::WasOff);
    }
}

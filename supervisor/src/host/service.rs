//! What this process tells systemd about itself (sd_notify(3)); nothing where systemd did not start it.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Our side of `Type=notify` and `WatchdogSec=`.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    /// As systemd started this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often [`Service::alive`] must be said: half of what systemd grants.
    #[must_use]
    pub fn alive_interval(self) -> Option<Duration> {
        self.watchdog.map(|granted| granted / 2)
    }

    /// The start is over.
    pub fn ready(self) {
        tell(NotifyState::Ready);
    }

    /// There is progress.
    pub fn alive(self) {
        if self.watchdog.is_some() {
            tell(NotifyState::Watchdog);
        }
    }

    /// The end began.
    pub fn stopping(self) {
        tell(NotifyState::Stopping);
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd not told");
    }
}

//! systemd over D-Bus.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use zbus::Connection;

/// A D-Bus call to systemd failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus is not there.
    #[error("connect to the system bus")]
    Connect(#[source] zbus::Error),
}

/// A connection to systemd.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: Connection,
    wake: Arc<Notify>,
}

impl Systemd {
    /// Over the system bus.
    ///
    /// # Errors
    /// [`SystemdError::Connect`].
    pub async fn connect() -> Result<Self, SystemdError> {
        let connection = zbus::connection::Builder::system()
            .method_timeout(Duration::from_secs(25))
            .build()
            .await
            .map_err(SystemdError::Connect)?;
        Ok(Self { connection, wake: Arc::new(Notify::new()) })
    }

    /// Notified when a tenant's unit changes.
    #[must_use]
    pub fn wakeups(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

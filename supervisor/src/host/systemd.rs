//! systemd over D-Bus: transient units, their properties, and a signal when a tenant's unit changes.
//!
//! Methods and properties: org.freedesktop.systemd1(5). Every call has a deadline. Whether something was
//! done is never taken from a call's answer: callers look at the unit afterwards.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use zbus::message::Type;
use zbus::zvariant::{DynamicType, Type as Signature};
use zbus::{
    Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, Variant,
};

const BUS: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Object paths of tenants' units begin so: systemd writes each byte of a unit's name that is not a letter
/// or digit as `_` and two hexadecimal digits, and `tenant-` is how such names begin.
const TENANT_UNITS: &str = "/org/freedesktop/systemd1/unit/tenant_2d";

/// Longest wait for an answer of systemd.
const ANSWER: Duration = Duration::from_secs(25);

/// Property of a unit, by name.
pub type Property = (&'static str, Variant<'static>);

/// A call to systemd failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus is not there.
    #[error("connect to the system bus")]
    Connect(#[source] zbus::Error),
    /// A method was refused or not answered.
    #[error("{method} of {unit} by systemd")]
    Call {
        /// The method.
        method: &'static str,
        /// The unit, or what else it was about.
        unit: String,
        /// systemd's words.
        source: zbus::Error,
    },
    /// The stream of signals ended.
    #[error("systemd's signals ended")]
    SignalsEnded,
}

impl SystemdError {
    /// The bus itself is gone: a new connection is needed.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        match self {
            Self::Connect(_) | Self::SignalsEnded => true,
            Self::Call { source, .. } => matches!(source, zbus::Error::InputOutput(_)),
        }
    }
}

/// One row of `ListUnitsByPatterns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRow {
    /// `tenant-acme.llm_a.slice`.
    pub name: String,
    /// `LoadState`: `loaded`, `not-found`, ...
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, ...
    pub active: String,
    /// `SubState`: `running`, `exited`, `auto-restart`, ...
    pub sub: String,
    /// For [`Systemd::property`].
    pub path: OwnedObjectPath,
}

/// As systemd writes a row: name, description, load, active, sub, following, path, job id, type, path.
type RawRow =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

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
        let builder = zbus::connection::Builder::system().method_timeout(ANSWER);
        Ok(Self::over(builder.build().await.map_err(SystemdError::Connect)?))
    }

    /// Over a connection that is open already.
    #[must_use]
    pub fn over(connection: Connection) -> Self {
        Self { connection, wake: Arc::new(Notify::new()) }
    }

    /// Connects anew after [`SystemdError::is_disconnected`]; who waits for changes goes on waiting.
    ///
    /// # Errors
    /// [`SystemdError::Connect`].
    pub async fn reconnect(&mut self) -> Result<(), SystemdError> {
        self.connection = Self::connect().await?.connection;
        Ok(())
    }

    /// Notified when a tenant's unit changes while [`Systemd::listen`] runs.
    #[must_use]
    pub fn wakeups(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    async fn call<B, R>(
        &self,
        path: &ObjectPath<'_>,
        interface: &'static str,
        method: &'static str,
        unit: &str,
        body: &B,
    ) -> Result<R, SystemdError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Signature,
    {
        let error = |source| SystemdError::Call { method, unit: unit.to_owned(), source };
        self.connection
            .call_method(Some(BUS), path, Some(interface), method, body)
            .await
            .and_then(|reply| reply.body().deserialize())
            .map_err(error)
    }

    async fn manage<B, R>(
        &self,
        method: &'static str,
        unit: &str,
        body: &B,
    ) -> Result<R, SystemdError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Signature,
    {
        let root = ObjectPath::from_static_str_unchecked(ROOT);
        self.call(&root, MANAGER, method, unit, body).await
    }

    /// Units whose names match any pattern, loaded ones only.
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn units(&self, patterns: &[&str]) -> Result<Vec<UnitRow>, SystemdError> {
        let states: [&str; 0] = [];
        let unit = patterns.join(" ");
        let rows: Vec<RawRow> =
            self.manage("ListUnitsByPatterns", &unit, &(states.as_slice(), patterns)).await?;
        let row = |row: RawRow| {
            let (name, _, load, active, sub, _, path, ..) = row;
            UnitRow { name, load, active, sub, path }
        };
        Ok(rows.into_iter().map(row).filter(|row| row.load != "not-found").collect())
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// [`SystemdError::Call`]; also where it is of another type.
    pub async fn property<T>(
        &self,
        row: &UnitRow,
        interface: &'static str,
        property: &'static str,
    ) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let value: OwnedVariant =
            self.call(&row.path, PROPERTIES, "Get", &row.name, &(interface, property)).await?;
        T::try_from(value).map_err(|error| SystemdError::Call {
            method: property,
            unit: row.name.clone(),
            source: error.into(),
        })
    }

    /// `StartTransientUnit`, in the mode `fail`: it never cancels another job.
    ///
    /// # Errors
    /// [`SystemdError::Call`], also where the unit exists already.
    pub async fn start_transient(
        &self,
        unit: &str,
        properties: &[Property],
    ) -> Result<(), SystemdError> {
        let auxiliary: [(&str, Vec<Property>); 0] = [];
        let body = (unit, "fail", properties, auxiliary.as_slice());
        let _job: OwnedObjectPath = self.manage("StartTransientUnit", unit, &body).await?;
        Ok(())
    }

    /// `SetUnitProperties` until the unit is gone (`runtime`).
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn set_properties(
        &self,
        unit: &str,
        properties: &[Property],
    ) -> Result<(), SystemdError> {
        self.manage("SetUnitProperties", unit, &(unit, true, properties)).await
    }

    /// `StopUnit`, in the mode `replace`. Of a unit that is not loaded it is done.
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        let stopped = self.manage("StopUnit", unit, &(unit, "replace")).await;
        done_without_unit(stopped.map(|_job: OwnedObjectPath| ()))
    }

    /// `ResetFailedUnit`: lets systemd forget a failed unit.
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn reset_failed(&self, unit: &str) -> Result<(), SystemdError> {
        done_without_unit(self.manage("ResetFailedUnit", unit, &unit).await)
    }

    /// `KillUnit`: a signal to every process of the unit's control group.
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn kill(&self, unit: &str, signal: i32) -> Result<(), SystemdError> {
        done_without_unit(self.manage("KillUnit", unit, &(unit, "all", signal)).await)
    }

    /// `Reboot`: shuts everything down in order and starts the machine anew.
    ///
    /// # Errors
    /// [`SystemdError::Call`].
    pub async fn reboot(&self) -> Result<(), SystemdError> {
        self.manage("Reboot", "the host", &()).await
    }

    /// Wakes [`Systemd::wakeups`] at each change of a tenant's unit, until the connection ends.
    ///
    /// # Errors
    /// [`SystemdError::Call`], [`SystemdError::SignalsEnded`]. It does not end well.
    pub async fn listen(self) -> Result<std::convert::Infallible, SystemdError> {
        let error =
            |source| SystemdError::Call { method: "signals", unit: ROOT.to_owned(), source };
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path_namespace(ROOT)
            .build()
            .map_err(error)?;
        let mut signals =
            MessageStream::for_match_rule(rule, &self.connection, None).await.map_err(error)?;
        let () = self.manage("Subscribe", "signals", &()).await?;
        // What changed before counts as well.
        self.wake.notify_one();
        while let Some(signal) = signals.next().await {
            if is_of_tenant(&signal.map_err(error)?) {
                self.wake.notify_one();
            }
        }
        Err(SystemdError::SignalsEnded)
    }
}

/// A tenant's unit changed, or came or went.
fn is_of_tenant(signal: &zbus::Message) -> bool {
    let header = signal.header();
    let member = header.member().map(|member| member.as_str());
    match member {
        Some("PropertiesChanged") => {
            header.path().is_some_and(|path| path.as_str().starts_with(TENANT_UNITS))
        }
        Some("UnitNew" | "UnitRemoved") => {
            let unit: Result<(String, OwnedObjectPath), _> = signal.body().deserialize();
            unit.is_ok_and(|(name, _)| name.starts_with("tenant-"))
        }
        _ => false,
    }
}

fn done_without_unit(result: Result<(), SystemdError>) -> Result<(), SystemdError> {
    const GONE: &str = "org.freedesktop.systemd1.NoSuchUnit";
    match result {
        Err(SystemdError::Call { source: zbus::Error::MethodError(name, ..), .. })
            if name.as_str() == GONE =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;

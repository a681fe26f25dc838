//! What the registry remembers: one SQLite file in WAL mode, one writer, several readers.
//!
//! ```text
//!  write(Durable)  specs, leases, identities, audit: on disk before anybody is told
//!  write(Relaxed)  reports: whole after a power cut, the last ones may be missing and come again
//!  read()          a snapshot over every table
//! ```
//!
//! One file a noun; its functions take a connection, so that the caller decides what is one
//! transaction. No transaction waits for the network.

pub mod audit;
mod column;
pub mod hosts;
pub mod leases;
pub mod machines;
pub mod refusals;
pub mod reports;
pub mod sites;
pub mod specs;
pub mod tenants;
pub mod tickets;

use std::borrow::Cow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr as _, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A snapshot of every table; reading only.
pub type Read = Transaction<'static, Sqlite>;

const READERS: u32 = 4;
const BUSY: Duration = Duration::from_secs(10);

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("open database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The file is of another version, or a migration was cut by a fault of the disk.
    #[error("bring database {} up to date", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: sqlx::migrate::MigrateError,
    },
    /// A statement.
    #[error("{doing}")]
    Statement {
        /// What it was for.
        doing: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A value that this program never wrote.
    #[error("{column} in the database: {message}")]
    Damaged {
        /// `table.column`.
        column: &'static str,
        /// What was found and expected.
        message: String,
    },
}

/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After a power cut it is there.
    Durable,
    /// After a power cut the last commits may be missing; the rest is whole.
    Relaxed,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    // SQLite lets one writer in and keeps the next one polling: they queue here instead.
    turn: Arc<Mutex<()>>,
    durable: SqlitePool,
    relaxed: SqlitePool,
    readers: SqlitePool,
}

/// The one write transaction. Dropped without [`Write::commit`], it never was.
#[derive(Debug)]
pub struct Write {
    tx: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
}

impl Write {
    /// To call the nouns' functions with.
    pub fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Makes it all true.
    ///
    /// # Errors
    /// [`StoreError::Statement`]: then nothing was done.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(doing("commit"))
    }
}

impl Store {
    /// Opens the file, makes it where it is missing and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Migrate`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        // SQLite gives its log the mode of the file.
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| failed(sqlx::Error::Io(source)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY);
        let one = || SqlitePoolOptions::new().max_connections(1);
        let full = options.clone().synchronous(SqliteSynchronous::Full);
        let durable = one().connect_with(full).await.map_err(failed)?;
        migrator()
            .run(&durable)
            .await
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        let normal = options.synchronous(SqliteSynchronous::Normal);
        let relaxed = one().connect_with(normal.clone()).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(normal.pragma("query_only", "ON"))
            .await
            .map_err(failed)?;
        Ok(Self { turn: Arc::default(), durable, relaxed, readers })
    }

    /// A snapshot.
    ///
    /// # Errors
    /// [`StoreError::Statement`].
    pub async fn read(&self) -> Result<Read, StoreError> {
        self.readers.begin().await.map_err(doing("begin to read"))
    }

    /// Waits for its turn and begins to write.
    ///
    /// # Errors
    /// [`StoreError::Statement`].
    pub async fn write(&self, durability: Durability) -> Result<Write, StoreError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let pool = match durability {
            Durability::Durable => &self.durable,
            Durability::Relaxed => &self.relaxed,
        };
        let tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(doing("begin to write"))?;
        Ok(Write { tx, _turn: turn })
    }

    /// Closes the file once running transactions ended.
    pub async fn close(&self) {
        self.readers.close().await;
        self.relaxed.close().await;
        self.durable.close().await;
    }
}

fn migrator() -> Migrator {
    let fleet = include_str!("../../migrations/0001_fleet.sql");
    let up = MigrationType::Simple;
    let first = Migration::new(1, Cow::Borrowed("fleet"), up, fleet.into_sql_str(), false);
    Migrator::with_migrations(vec![first])
}

fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Statement { doing, source }
}

#[cfg(test)]
mod tests;

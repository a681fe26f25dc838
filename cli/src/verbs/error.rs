//! Why a verb did not do its work.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_api::document::{FieldError, Kind};
use bulkhead_api::id::IdError;
use bulkhead_api::signed::Refusal;

use super::target::{NoTarget, Target};
use crate::config::{ConfigError, NotAToken};
use crate::explain::ExplainError;
use crate::local::LocalError;
use crate::manifest::fault::Fault;
use crate::rest::error::RestError;
use crate::{FAILED, USAGE};

/// A verb that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The supervisor.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A file of documents.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
    /// The argument of `explain`.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// Arguments that name no object.
    #[error(transparent)]
    Target(#[from] NoTarget),
    /// An argument that is no name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The token.
    #[error("token from {from}")]
    Token {
        /// Where it was read.
        from: String,
        /// Why it is none.
        source: NotAToken,
    },
    /// A token would show on the screen.
    #[error("the token is not read from a terminal, where it would show")]
    TokenOnTerminal,
    /// A file, or a standard stream.
    #[error("{verb} {}", path.display())]
    File {
        /// What was done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output.
    #[error("write to standard output")]
    Output(#[from] io::Error),
    /// A document cannot be shown.
    #[error("show {what}")]
    Show {
        /// Which.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Some documents of several; each was told.
    #[error("{failed} of {total} documents were refused")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        total: usize,
    },
    /// Leases that no host would take; each was told.
    #[error("{failed} of {total} leases would not be placed")]
    NoFit {
        /// How many.
        failed: usize,
        /// Of how many.
        total: usize,
    },
    /// A resource that is not in quarantine, or not only one.
    #[error("{found:?} names {} in quarantine", if known.is_empty() { "nothing" } else { "more than one resource" })]
    NotOne {
        /// As given.
        found: String,
        /// Those that it may mean; empty where it means none.
        known: Vec<String>,
    },
    /// A repair that was only shown.
    #[error("nothing was changed")]
    OnlyShown {
        /// The command that does it.
        command: &'static str,
    },
    /// The host's leases share something.
    #[error("the host's leases are not isolated: {violations} {}", if *violations == 1 { "violation" } else { "violations" })]
    NotIsolated {
        /// How many violations.
        violations: usize,
    },
    /// A file without records that hosts sign.
    #[error("{} holds neither an isolation statement nor a receipt", path.display())]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// Where it is not one.
        source: FieldError,
    },
    /// An empty list.
    #[error("{} holds neither an isolation statement nor a receipt: its list is empty", path.display())]
    NothingToVerify {
        /// The file.
        path: PathBuf,
    },
    /// A record that is not to be believed.
    #[error("{}: entry {number} of {of} is not to be believed", path.display())]
    Unbelieved {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// Why.
        source: Refusal,
    },
    /// A record of the supervisor that cannot be read.
    #[error("reply of the supervisor")]
    Told(#[source] Refusal),
    /// Waited in vain.
    #[error("{target} is not {goal} after {}: {last}", plain(*.after))]
    TimedOut {
        /// The object.
        target: Target,
        /// What was waited for.
        goal: &'static str,
        /// How long.
        after: Duration,
        /// How it is instead.
        last: String,
    },
    /// It will never be what is waited for.
    #[error("{target} will not be {goal}: {last}")]
    Hopeless {
        /// The object.
        target: Target,
        /// What was waited for.
        goal: &'static str,
        /// How it is instead.
        last: String,
    },
    /// What is not there cannot come to be anything.
    #[error("{target} will not be {goal}: it is not there")]
    NotThere {
        /// The object.
        target: Target,
        /// What was waited for.
        goal: &'static str,
    },
    /// Objects of this kind are never in that state.
    #[error("a {kind} is never {goal}: {choices}")]
    NoSuchGoal {
        /// The kind.
        kind: String,
        /// The state.
        goal: &'static str,
        /// What can be waited for.
        choices: &'static str,
    },
}

impl VerbError {
    /// Whoever read standard output has left (`bulkhead get hosts | head -1`): nothing to tell.
    #[must_use]
    pub fn reader_left(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The program's exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Explain(_)
            | Self::Target(_)
            | Self::Name(_)
            | Self::NotOne { .. }
            | Self::NoSuchGoal { .. }
            | Self::Rest(RestError::Server { .. }) => USAGE,
            Self::Config(_)
            | Self::Rest(_)
            | Self::Local(_)
            | Self::Fault(_)
            | Self::Token { .. }
            | Self::TokenOnTerminal
            | Self::File { .. }
            | Self::Output(_)
            | Self::Show { .. }
            | Self::Some { .. }
            | Self::NoFit { .. }
            | Self::OnlyShown { .. }
            | Self::NotIsolated { .. }
            | Self::NoRecord { .. }
            | Self::NothingToVerify { .. }
            | Self::Unbelieved { .. }
            | Self::Told(_)
            | Self::TimedOut { .. }
            | Self::Hopeless { .. }
            | Self::NotThere { .. } => FAILED,
        }
    }

    /// The way out; none where the message says it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.help(),
            Self::Rest(error) => error.help(),
            Self::Local(error) => error.help(),
            Self::Target(error) => error.help(),
            Self::TokenOnTerminal => {
                Some("--token-file FILE, or bulkhead login ... < FILE".to_owned())
            }
            Self::TimedOut { target, .. } | Self::Hopeless { target, .. } => {
                let verb = if target.kind() == Kind::Tenant { "describe" } else { "explain" };
                Some(format!("bulkhead {verb} {target}"))
            }
            Self::NotOne { known, .. } => match known.as_slice() {
                [] => Some("bulkhead host quarantine lists them".to_owned()),
                known => Some(format!("one of: {}", known.join("; "))),
            },
            Self::OnlyShown { command } => Some(format!("{command} --yes does what is shown")),
            Self::Fault(_)
            | Self::Explain(_)
            | Self::Name(_)
            | Self::Token { .. }
            | Self::File { .. }
            | Self::Output(_)
            | Self::Show { .. }
            | Self::Some { .. }
            | Self::NoFit { .. }
            | Self::NotIsolated { .. }
            | Self::NoRecord { .. }
            | Self::NothingToVerify { .. }
            | Self::Unbelieved { .. }
            | Self::Told(_)
            | Self::NotThere { .. }
            | Self::NoSuchGoal { .. } => None,
        }
    }
}

/// A time as it was asked for: `5m`, `90s`.
fn plain(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

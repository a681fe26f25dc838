//! The `nft` program: one transaction in, what the kernel has out.
//!
//! Text goes in by standard input, so that no argument says what a rule says, and no shell is between. Nothing is kept
//! here: what holds is what the kernel gives back.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tracing::info;

use crate::firewall::ruleset::{
    self, Counted, Family, JsonError, Ruleset, TABLE, change, differences, parse, parse_counters,
};

/// The oldest release whose listing and maps with joined keys were seen to work.
pub const OLDEST: Version = Version(1, 1, 3);

/// A release of nftables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What went wrong with `nft`. The kernel's rules are then as they were before the call, but for [`NftError::Unlike`].
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It could not be started or spoken to.
    #[error("run {program:?}")]
    Run {
        /// The program.
        program: OsString,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is too old.
    #[error("nft {found}: older than {OLDEST}, which misreads maps with joined keys")]
    TooOld {
        /// What it says it is.
        found: Version,
    },
    /// It does not say what it is.
    #[error("nft says its version is {0:?}")]
    NoVersion(String),
    /// It refused a transaction, of which nothing was done.
    #[error("nft refuses line {line}, `{object}`: {message}")]
    Refused {
        /// Line of the transaction, from 1.
        line: usize,
        /// The part of the line that it names.
        object: String,
        /// Why.
        message: String,
    },
    /// It failed and named no line.
    #[error("nft fails ({status}): {text}")]
    Failed {
        /// How it ended.
        status: String,
        /// What it said.
        text: String,
    },
    /// Its answer is not understood.
    #[error("read nft's answer")]
    Answer(#[source] JsonError),
    /// After the transaction the kernel has something else than was asked for.
    #[error("read back after the transaction: {}", .0.join("; "))]
    Unlike(Vec<String>),
}

/// What [`Nft::converge`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was so before.
    AlreadySo,
    /// One transaction made it so.
    Changed,
}

/// The program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: OsString,
    leading: Vec<OsString>,
}

impl Default for Nft {
    fn default() -> Self {
        Self { program: "/usr/sbin/nft".into(), leading: Vec::new() }
    }
}

impl Nft {
    /// Another program, with arguments before ours: a loader that runs an unpacked `nft`.
    #[must_use]
    pub fn by(program: impl Into<OsString>, leading: Vec<OsString>) -> Self {
        Self { program: program.into(), leading }
    }

    /// Which release it is.
    ///
    /// # Errors
    /// It cannot be run, does not say, or is older than [`OLDEST`].
    pub fn version(&self) -> Result<Version, NftError> {
        let output = self.run(&["--version"], "")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let Some(found) = parse_version(&text) else { return Err(NftError::NoVersion(text)) };
        if found < OLDEST { Err(NftError::TooOld { found }) } else { Ok(found) }
    }

    /// Does all of a transaction or nothing.
    ///
    /// # Errors
    /// It cannot be run, or refuses: the rules are as they were.
    pub fn apply(&self, transaction: &str) -> Result<(), NftError> {
        let output = self.run(&["-f", "-"], transaction)?;
        if output.status.success() { Ok(()) } else { Err(refusal(&output, transaction)) }
    }

    /// Our tables as the kernel has them.
    ///
    /// # Errors
    /// It cannot be run, or its answer is not understood.
    pub fn read(&self) -> Result<Ruleset, NftError> {
        let mut all = Ruleset::default();
        for family in self.families()? {
            let listed = parse(&self.list(&["table", family.word(), TABLE])?);
            all.tables.extend(listed.map_err(NftError::Answer)?.tables);
        }
        Ok(all)
    }

    /// Named counters of our tables.
    ///
    /// # Errors
    /// As [`Nft::read`].
    pub fn counters(&self) -> Result<BTreeMap<(Family, String), Counted>, NftError> {
        let mut all = BTreeMap::new();
        for family in self.families()? {
            let answer = self.list(&["counters", "table", family.word(), TABLE])?;
            all.extend(parse_counters(&answer).map_err(NftError::Answer)?);
        }
        Ok(all)
    }

    /// Makes our tables as `wanted`: reads, changes what differs in one transaction, reads again. Tables that are not
    /// understood, because somebody else wrote in them, are replaced whole.
    ///
    /// # Errors
    /// As [`Nft::apply`] and [`Nft::read`]; [`NftError::Unlike`] names what is still otherwise.
    pub fn converge(&self, wanted: &Ruleset) -> Result<Outcome, NftError> {
        let transaction = match self.read() {
            Ok(found) => change(&found, wanted),
            Err(NftError::Answer(_)) => Some(ruleset::render(wanted)),
            Err(error) => return Err(error),
        };
        let Some(transaction) = transaction else { return Ok(Outcome::AlreadySo) };
        self.apply(&transaction)?;
        let left = differences(&self.read()?, wanted);
        if !left.is_empty() {
            return Err(NftError::Unlike(left));
        }
        info!(bytes = transaction.len(), "firewall changed");
        Ok(Outcome::Changed)
    }

    /// Families that have a table of ours.
    fn families(&self) -> Result<Vec<Family>, NftError> {
        let answer = self.list(&["tables"])?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|error| NftError::Answer(JsonError::Syntax(error.to_string())))?;
        let tables: Vec<&Value> = value
            .get("nftables")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|object| object.get("table"))
            .collect();
        let is = |table: &Value, key: &str, text: &str| {
            table.get(key).and_then(Value::as_str) == Some(text)
        };
        let has = |family: &Family| {
            tables
                .iter()
                .any(|table| is(table, "name", TABLE) && is(table, "family", family.word()))
        };
        Ok(Family::ALL.into_iter().filter(has).collect())
    }

    fn list(&self, what: &[&str]) -> Result<Vec<u8>, NftError> {
        let output = self.run(&[&["-j", "list"], what].concat(), "")?;
        if output.status.success() { Ok(output.stdout) } else { Err(refusal(&output, "")) }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Output, NftError> {
        let run = || -> io::Result<Output> {
            #[expect(clippy::disallowed_methods, reason = "this is the seam for nft")]
            let mut command = Command::new(&self.program);
            let mut child = command
                .args(&self.leading)
                .args(arguments.iter().map(OsStr::new))
                .env_clear()
                .env("LC_ALL", "C")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let pipe = child.stdin.take();
            std::thread::scope(|scope| {
                // It may end before it read everything; then its status says why.
                scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
                child.wait_with_output()
            })
        };
        run().map_err(|source| NftError::Run { program: self.program.clone(), source })
    }
}

/// Keeps bridged frames from rules of IP, which would judge them by their bridge alone and drop them: for kernels with
/// bridge netfilter (`net.bridge.bridge-nf-call-*`), in the caller's network namespace. `sysctl` is `/proc/sys`.
///
/// # Errors
/// A switch is there and cannot be turned off.
pub fn part_bridges_from_ip(sysctl: &Path) -> io::Result<()> {
    for table in ["iptables", "ip6tables", "arptables"] {
        let switch = sysctl.join(format!("net/bridge/bridge-nf-call-{table}"));
        match fs::write(switch, "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Reads `nftables v1.1.3 (Commodore Bullmoose #4)`.
fn parse_version(text: &str) -> Option<Version> {
    let number = text.strip_prefix("nftables v")?.split(' ').next()?;
    let mut parts = number.split('.').map(str::parse);
    let version = Version(parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    parts.next().is_none().then_some(version)
}

/// Reads `/dev/stdin:5:28-43: Error: Could not process rule: File exists`.
fn refusal(output: &Output, transaction: &str) -> NftError {
    let text = String::from_utf8_lossy(&output.stderr);
    let named = text.lines().find_map(|line| {
        let (place, message) = line.strip_prefix("/dev/stdin:")?.split_once(": ")?;
        let (line, columns) = place.split_once(':')?;
        let (first, last) = columns.split_once('-')?;
        let (line, first): (usize, usize) = (line.parse().ok()?, first.parse().ok()?);
        let whole = transaction.lines().nth(line.checked_sub(1)?)?;
        let part = whole.get(first.checked_sub(1)?..last.parse::<usize>().ok()?.min(whole.len()));
        // A single brace says little: then the line.
        let object = part.filter(|part| part.len() > 2).unwrap_or(whole);
        let object = object.chars().take(200).collect();
        let message = message.strip_prefix("Error: ").unwrap_or(message).to_owned();
        Some(NftError::Refused { line, object, message })
    });
    named.unwrap_or_else(|| NftError::Failed {
        status: output.status.to_string(),
        text: text.trim().chars().take(400).collect(),
    })
}

#[cfg(test)]
mod tests;

//! The supervisor that the `host` verbs ask: of this very host over its socket, or of another by way of the registry.

use bulkhead_api::id::{HostId, LeaseId};
use bulkhead_api::receipt::SignedReceipt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::VerbError;
use crate::args::SupervisorArgs;
use crate::local;
use crate::rest::Registry;

/// Receipts of one answer: each has some 2 KiB, and a message of the link 4 MiB.
const PART: usize = 512;

/// Whom to ask.
#[derive(Debug)]
pub(super) enum Supervisor<'a> {
    /// That of this host.
    Here(&'a std::path::Path),
    /// That of another.
    There(Box<Registry>, HostId),
}

impl<'a> Supervisor<'a> {
    pub(super) fn of(
        args: &'a SupervisorArgs,
        registry: impl FnOnce() -> Result<Registry, VerbError>,
    ) -> Result<Self, VerbError> {
        match &args.host {
            Some(host) => Ok(Self::There(Box::new(registry()?), host.parse()?)),
            None => Ok(Self::Here(&args.socket)),
        }
    }

    /// Asks for a document.
    pub(super) fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, VerbError> {
        match self {
            Self::Here(socket) => Ok(local::ask(socket, path)?),
            Self::There(registry, host) => Ok(registry.ask_host(host, path)?),
        }
    }

    /// Every receipt that is kept, or those of one lease. Over the link they come in parts: a message has an end.
    pub(super) fn receipts(
        &self,
        lease: Option<&LeaseId>,
    ) -> Result<Vec<SignedReceipt>, VerbError> {
        let of = lease.map_or_else(String::new, |lease| format!("lease={lease}"));
        if matches!(self, Self::Here(_)) {
            return self.ask(&format!("/v1/receipts?{of}"));
        }
        let mut all: Vec<SignedReceipt> = Vec::new();
        loop {
            let after = match all.last() {
                Some(last) => last.unchecked().map_err(VerbError::Told)?.sequence,
                None => 0,
            };
            let path = format!("/v1/receipts?{of}&after={after}&most={PART}");
            let part: Vec<SignedReceipt> = self.ask(&path)?;
            let last = part.len() < PART;
            all.extend(part);
            if last {
                return Ok(all);
            }
        }
    }

    /// Asks for a change, and for what became of it.
    pub(super) fn order<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl Serialize,
    ) -> Result<T, VerbError> {
        match self {
            Self::Here(socket) => Ok(local::order(socket, path, order)?),
            Self::There(registry, host) => Ok(registry.order_host(host, path, order)?),
        }
    }
}

//! Packets on their way through a host's rules, and the links that they pass by.

use std::fmt;

use super::space::Space;
use crate::firewall::ruleset::{Family, Rule, Verdict};

/// A link as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its group.
    pub(super) group: u32,
}

/// Links that packets come in and go out by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ways<'a> {
    /// In by; absent = they are the host's own.
    pub(super) incoming: Option<Seen<'a>>,
    /// Out by; absent = not known yet, or they are for the host.
    pub(super) outgoing: Option<Seen<'a>>,
}

/// A rule that decided about packets, or the policy of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop<'r> {
    pub(super) family: Family,
    pub(super) chain: &'r str,
    pub(super) verdict: Option<&'r Verdict>,
    pub(super) rule: Option<(usize, &'r Rule)>,
    pub(super) accepts: bool,
}

impl fmt::Display for Hop<'_> {
    /// `inet between 0: iifname . oifname vmap @paths (goto egress)`, `inet between: policy drop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.word(), self.chain)?;
        let Some((at, rule)) = self.rule else {
            return write!(f, ": policy {}", if self.accepts { "accept" } else { "drop" });
        };
        write!(f, " {at}: {rule}")?;
        match self.verdict {
            Some(verdict) => write!(f, " ({verdict})"),
            None => Ok(()),
        }
    }
}

/// Packets on their way through rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow<'r> {
    /// Which.
    pub(super) space: Space,
    /// Whether a rule keeps them below a rate.
    pub(super) limited: bool,
    /// Their conntrack zone.
    pub(super) zone: u16,
    /// What decided, in order.
    pub(super) trace: Vec<Hop<'r>>,
}

impl<'r> Flow<'r> {
    /// All packets of a space, before any rule.
    #[must_use]
    pub(super) const fn of(space: Space) -> Self {
        Self { space, limited: false, zone: 0, trace: Vec::new() }
    }

    /// What decided, in words.
    #[must_use]
    pub(super) fn path(&self) -> Vec<String> {
        self.trace.iter().map(ToString::to_string).collect()
    }

    pub(super) fn narrowed(&self, space: Space) -> Self {
        Self { space, ..self.clone() }
    }
}

/// What becomes of packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Judged<'r> {
    /// These pass.
    pub(super) passed: Vec<Flow<'r>>,
    /// These are dropped; the last of the trace is what dropped them.
    pub(super) dropped: Vec<Flow<'r>>,
}

//! Names of profiles and slices: `1g.10gb`, `1g.12gb+me`, `1c.3g.40gb`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name that is read; NVML has room for 96 bytes, the longest known name takes 19.
const MAX_LENGTH: usize = 64;

/// Why a text names no profile or slice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than any name.
    #[error("MIG profile name of {length} bytes: at most {MAX_LENGTH}")]
    TooLong {
        /// Length in bytes.
        length: usize,
    },
    /// The part before the first dot.
    #[error("MIG profile {text:?}: {part:?} is no number of compute slices such as 3g")]
    Slices {
        /// The text as given.
        text: String,
        /// What stands where the slices belong.
        part: String,
    },
    /// The compute instance's part, `1c`.
    #[error("MIG profile {text:?}: {part:?} is no compute instance such as 1c of {slices} slices")]
    Compute {
        /// The text as given.
        text: String,
        /// What stands where the compute instance belongs.
        part: String,
        /// Compute slices of the GPU instance around it; 0 = unreadable.
        slices: u8,
    },
    /// A compute instance where only a GPU instance is meant.
    #[error(
        "MIG profile {text:?}: names a compute instance, expected a GPU instance such as 3g.40gb"
    )]
    NoCompute {
        /// The text as given.
        text: String,
    },
    /// The part behind the first dot.
    #[error("MIG profile {text:?}: {part:?} is no amount of memory such as 40gb")]
    Memory {
        /// The text as given.
        text: String,
        /// What stands where the memory belongs.
        part: String,
    },
    /// An attribute.
    #[error("MIG profile {text:?}: {part:?} is no attribute such as +me")]
    Attribute {
        /// The text as given.
        text: String,
        /// What stands where the attribute belongs.
        part: String,
    },
}

/// Name of a GPU instance profile: compute slices, memory in GB as the vendor rounds it, attributes.
///
/// Text: `3g.40gb`, `1g.10gb+me`, `1g.24gb+me.all`, `1g.24gb-me`. Read besides: `MIG 3g.40gb` (NVML),
/// `mig-1g.10gb.me` (resource names of Kubernetes, which have no `+`). Attributes are an open set, as drivers add some;
/// whether a GPU has a profile is its geometry's to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName {
    slices: u8,
    memory_gb: u16,
    with: BTreeSet<String>,
    without: BTreeSet<String>,
}

impl ProfileName {
    /// Compute slices, above 0.
    #[must_use]
    pub fn slices(&self) -> u8 {
        self.slices
    }

    /// Memory in GB, rounded as the vendor does: a name, not an amount.
    #[must_use]
    pub fn memory_gb(&self) -> u16 {
        self.memory_gb
    }

    /// Attributes that it has beyond the plain profile (`me`, `gfx`, `me.all`).
    #[must_use]
    pub fn with(&self) -> &BTreeSet<String> {
        &self.with
    }

    /// Attributes that it lacks against the plain profile (`me`).
    #[must_use]
    pub fn without(&self) -> &BTreeSet<String> {
        &self.without
    }
}

/// `40`, `7`: no sign, no leading zero, above 0.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

fn without_prefix(text: &str) -> &str {
    text.strip_prefix("MIG ").or_else(|| text.strip_prefix("mig-")).unwrap_or(text)
}

fn check_length(text: &str) -> Result<(), NameError> {
    let length = text.len();
    if length > MAX_LENGTH { Err(NameError::TooLong { length }) } else { Ok(()) }
}

/// `+me,gfx-x`: the sets of attributes behind `+` and `-`.
fn attributes(text: &str, part: &str) -> Result<[BTreeSet<String>; 2], NameError> {
    let bad = |part: &str| NameError::Attribute { text: text.to_owned(), part: part.to_owned() };
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    let mut rest = part;
    while let Some(sign) = rest.chars().next() {
        let body = rest.get(sign.len_utf8()..).unwrap_or_default();
        let end = body.find(['+', '-']).unwrap_or(body.len());
        let (list, behind) = body.split_at_checked(end).ok_or_else(|| bad(rest))?;
        let into = match sign {
            // Kubernetes has no '+' in its resource names.
            '+' | '.' => &mut with,
            '-' => &mut without,
            _ => return Err(bad(rest)),
        };
        for word in list.split(',') {
            let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            let first = word.bytes().next().is_some_and(good);
            if !first || !word.bytes().all(|c| good(c) || matches!(c, b'.' | b'_')) {
                return Err(bad(word));
            }
            if !into.insert(word.to_owned()) {
                return Err(bad(word));
            }
        }
        rest = behind;
    }
    match with.intersection(&without).next() {
        Some(both) => Err(bad(both)),
        None => Ok([with, without]),
    }
}

impl FromStr for ProfileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_length(text)?;
        let name = without_prefix(text);
        let (head, tail) = name.split_once('.').unwrap_or((name, ""));
        if head.strip_suffix('c').and_then(number::<u8>).is_some() {
            return Err(NameError::NoCompute { text: text.to_owned() });
        }
        let slices = head
            .strip_suffix('g')
            .and_then(number)
            .ok_or_else(|| NameError::Slices { text: text.to_owned(), part: head.to_owned() })?;
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let (memory, behind) = tail.split_at_checked(digits).unwrap_or((tail, ""));
        let parts = behind.strip_prefix("gb").and_then(|rest| Some((number(memory)?, rest)));
        let (memory_gb, rest) = parts
            .ok_or_else(|| NameError::Memory { text: text.to_owned(), part: tail.to_owned() })?;
        let [with, without] = attributes(text, rest)?;
        Ok(Self { slices, memory_gb, with, without })
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}g.{}gb", self.slices, self.memory_gb);
        for (sign, words) in [('+', &self.with), ('-', &self.without)] {
            let mut lead = sign;
            for word in words {
                text.push(lead);
                text.push_str(word);
                lead = ',';
            }
        }
        f.pad(&text)
    }
}

/// Name of a slice: a GPU instance, or a compute instance that has a part of its compute slices (`1c.3g.40gb`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SliceName {
    compute: Option<u8>,
    profile: ProfileName,
}

impl SliceName {
    /// The whole GPU instance of a profile.
    #[must_use]
    pub fn whole(profile: ProfileName) -> Self {
        Self { compute: None, profile }
    }

    /// Compute slices of the compute instance; absent = all of the GPU instance. Always fewer than those.
    #[must_use]
    pub fn compute(&self) -> Option<u8> {
        self.compute
    }

    /// The GPU instance around it.
    #[must_use]
    pub fn profile(&self) -> &ProfileName {
        &self.profile
    }
}

impl FromStr for SliceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_length(text)?;
        let name = without_prefix(text);
        let part = name.split_once('.').filter(|(head, _)| head.ends_with('c'));
        let Some((head, rest)) = part else {
            return text.parse().map(Self::whole);
        };
        let bad =
            |slices| NameError::Compute { text: text.to_owned(), part: head.to_owned(), slices };
        let compute: u8 = head.strip_suffix('c').and_then(number).ok_or_else(|| bad(0))?;
        let profile: ProfileName = rest.parse()?;
        if compute > profile.slices {
            return Err(bad(profile.slices));
        }
        let compute = (compute < profile.slices).then_some(compute);
        Ok(Self { compute, profile })
    }
}

impl fmt::Display for SliceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compute {
            Some(compute) => f.pad(&format!("{compute}c.{}", self.profile)),
            None => fmt::Display::fmt(&self.profile, f),
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                String::schema()
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $name {}

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }
    };
}

as_text!(ProfileName);
as_text!(SliceName);

//! `oci://HOST/NAME:TAG` and `oci://HOST/NAME@sha256:…`: which image, and from whom.
//!
//! Grammar of names and tags: OCI distribution spec v1.1, "Pulling manifests".

use std::fmt;
use std::str::FromStr;

/// The one host that images are pulled from.
pub const SITE: &str = "bulkhead.site";

/// Why a text is no image that this host can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the form.
    #[error("image {0:?}: expected oci://{SITE}/NAME:TAG or oci://{SITE}/NAME@sha256:DIGEST")]
    Form(String),
    /// On another host.
    #[error(
        "image {image:?} is on {host}: images come from the site's cache; publish it there and name it \
         oci://{SITE}/…"
    )]
    OtherHost {
        /// The reference.
        image: String,
        /// Its host.
        host: String,
    },
}

/// SHA-256 of a blob: 64 lower-case hexadecimal digits. Text with `sha256:` before them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
    }

    /// From the result of a hash.
    #[must_use]
    pub fn from_sha256(hash: &[u8]) -> Self {
        Self(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A digest is of another algorithm or form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("digest {0:?}: expected sha256: and 64 of 0-9a-f")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bad = || DigestError(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if hex.len() == 64 && hex.bytes().all(digit) {
            Ok(Self(hex.to_owned()))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// What the tag means when it is asked for.
    Tag(String),
    /// These very bytes.
    Digest(Digest),
}

/// An image in the site's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Repository, `demo` or `team/app`.
    pub name: String,
    /// Which of its manifests.
    pub version: Version,
}

impl Reference {
    /// The last part of the manifest's path: tag or digest.
    #[must_use]
    pub fn version_text(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(f, "oci://{SITE}/{}{separator}{}", self.name, self.version_text())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let form = || ReferenceError::Form(text.to_owned());
        let rest = text.strip_prefix("oci://").ok_or_else(form)?;
        let (host, rest) = rest.split_once('/').ok_or_else(form)?;
        let (name, version) = if let Some((name, digest)) = rest.split_once('@') {
            (name, Version::Digest(digest.parse().map_err(|_| form())?))
        } else {
            let (name, tag) = rest.split_once(':').ok_or_else(form)?;
            (name, Version::Tag(Some(tag).filter(|tag| is_tag(tag)).ok_or_else(form)?.to_owned()))
        };
        if !is_name(name) || host.is_empty() {
            return Err(form());
        }
        if host != SITE {
            let (image, host) = (text.to_owned(), host.to_owned());
            return Err(ReferenceError::OtherHost { image, host });
        }
        Ok(Self { name: name.to_owned(), version })
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= 128 && text.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'))
}

/// Components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`; at most 255 characters.
fn is_name(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = text.starts_with(letter) && text.ends_with(letter);
    let mut runs = text.split(letter).filter(|run| !run.is_empty());
    ends && runs.all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|c| c == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_of_the_site_are_read_and_written_back() {
        let digest = format!("oci://bulkhead.site/a@sha256:{}", "0a".repeat(32));
        for text in
            ["oci://bulkhead.site/demo:latest", "oci://bulkhead.site/a/b__c.d--e:V1_x", &digest]
        {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_image_elsewhere_is_refused_with_the_way_out() {
        let error = "oci://docker.io/library/busybox:1".parse::<Reference>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "image \"oci://docker.io/library/busybox:1\" is on docker.io: images come from the site's \
             cache; publish it there and name it oci://bulkhead.site/…"
        );
    }

    #[test]
    fn paths_that_lead_elsewhere_are_no_names() {
        for text in [
            "oci://bulkhead.site/../x:1",
            "oci://bulkhead.site/a//b:1",
            "oci://bulkhead.site/a/:1",
            "oci://bulkhead.site/A:1",
            "oci://bulkhead.site/a:1/../2",
            "oci://bulkhead.site/a:.1",
            "oci://bulkhead.site/a",
            "oci://bulkhead.site/a@sha256:00",
            "oci://bulkhead.site/a@sha512:00",
            "oci://bulkhead.site/a?x:1",
            "oci:///a:1",
            "https://bulkhead.site/a:1",
        ] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::Form(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", tail in "[a-z0-9._/:@-]{0,40}") {
            for text in [text, format!("oci://bulkhead.site/{tail}")] {
                if let Ok(reference) = text.parse::<Reference>() {
                    prop_assert_eq!(reference.to_string(), text);
                    prop_assert!(!reference.name.contains(".."));
                }
            }
        }
    }
}

//! Bearer tokens and tickets: 256 random bits as text, kept as a keyed hash only.
//!
//! The texts are random and long, so that a fast hash suffices: there is nothing to guess.

use std::fmt;

use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::signer::authority::hex;

/// What a hash is for; one of one kind never passes as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The token of an operator.
    Bearer,
    /// The ticket with which a site joins.
    Join,
}

impl Purpose {
    fn key(self) -> hmac::Key {
        let label: &[u8] = match self {
            Self::Bearer => b"bulkhead bearer token v1",
            Self::Join => b"bulkhead join ticket v1",
        };
        hmac::Key::new(HMAC_SHA256, label)
    }
}

/// The system gives no randomness.
#[derive(Debug, thiserror::Error)]
#[error("system randomness is not available")]
pub struct NoRandomness;

/// A new secret text: 64 hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`].
pub fn fresh() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(hex(&bytes))
}

/// What is kept of a secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash(Vec<u8>);

impl TokenHash {
    /// Of a secret text.
    #[must_use]
    pub fn of(purpose: Purpose, secret: &str) -> Self {
        Self(hmac::sign(&purpose.key(), secret.as_bytes()).as_ref().to_vec())
    }

    /// Reads hexadecimal digits; `None` if they are not 32 octets.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let octet = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let plain = text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let bytes: Option<Vec<u8>> = (0..32).map(|n| octet(n * 2)).collect();
        bytes.filter(|_| plain).map(Self)
    }

    /// Hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the hash is of this secret, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, purpose: Purpose, secret: &str) -> bool {
        hmac::verify(&purpose.key(), secret.as_bytes(), &self.0).is_ok()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_secret_and_purpose_only() {
        let secret = fresh().unwrap();
        let hash = TokenHash::from_hex(&TokenHash::of(Purpose::Bearer, &secret).to_hex()).unwrap();
        assert!(hash.matches(Purpose::Bearer, &secret));
        assert!(!hash.matches(Purpose::Join, &secret));
        assert!(!hash.matches(Purpose::Bearer, &fresh().unwrap()));
        assert!(!hash.matches(Purpose::Bearer, ""));
    }

    #[test]
    fn only_32_octets_are_a_hash() {
        for text in ["", "ab", &"g".repeat(64), &"+1".repeat(32), &"a".repeat(66), &"é".repeat(32)]
        {
            assert!(TokenHash::from_hex(text).is_none(), "{text}");
        }
    }
}

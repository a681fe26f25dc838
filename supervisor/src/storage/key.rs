//! Keys of volumes in the kernel's keyring, for as long as it takes to hand one to dm-crypt.
//!
//! ```text
//!  getrandom ─► 64 bytes here ─► thread keyring, type logon ─► dm-crypt's own copy
//!               wiped at once    invalidated after the load     until the mapping is wiped
//! ```
//!
//! The thread's keyring is the narrowest that dm-crypt looks into when it loads a table (`request_key` of the
//! calling thread): no other thread, program or restarted supervisor ever sees the key, and it goes with the
//! thread whatever happens. Nothing needs it afterwards, as dm-crypt keeps its own copy.

use std::ffi::CString;

use nix::errno::Errno;
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::error;
use zeroize::Zeroizing;

use super::sys;

/// Two AES-256 keys: what `aes-xts` takes.
pub const KEY_BYTES: usize = 64;

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel gave no random bytes.
    #[error("random bytes")]
    Random,
    /// A description that no key can have.
    #[error("key description {0:?}")]
    Description(String),
    /// The keyring refuses.
    #[error("add key {description}")]
    Add {
        /// Which.
        description: String,
        /// Why.
        source: Errno,
    },
    /// It could not be looked for.
    #[error("look for key {description}")]
    Find {
        /// Which.
        description: String,
        /// Why.
        source: Errno,
    },
    /// It was to be gone and is not.
    #[error("invalidate key {description}")]
    Invalidate {
        /// Which.
        description: String,
        /// Why.
        source: Errno,
    },
}

/// A fresh random key in the calling thread's keyring; gone when this is dropped.
#[derive(Debug)]
pub struct Key {
    description: String,
    number: Option<i32>,
}

impl Key {
    /// Makes one that `description` finds: a word, a colon, and more (the type asks for it).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn fresh(description: &str) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0_u8; KEY_BYTES]);
        SystemRandom::new().fill(&mut *secret).map_err(|_| KeyError::Random)?;
        let name = c_string(description)?;
        let number = sys::add_key(&name, &*secret)
            .map_err(|source| KeyError::Add { description: description.to_owned(), source })?;
        Ok(Self { description: description.to_owned(), number: Some(number) })
    }

    /// Its description.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Makes it unusable.
    ///
    /// # Errors
    /// [`KeyError::Invalidate`].
    pub fn end(mut self) -> Result<(), KeyError> {
        self.invalidate()
    }

    fn invalidate(&mut self) -> Result<(), KeyError> {
        let Some(number) = self.number.take() else { return Ok(()) };
        let description = self.description.clone();
        sys::invalidate_key(number).map_err(|source| KeyError::Invalidate { description, source })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Err(error) = self.invalidate() {
            error!(%error, "a key stays until its thread ends");
        }
    }
}

/// Whether a key of that description can be found by this thread.
///
/// # Errors
/// [`KeyError::Find`], [`KeyError::Description`].
pub fn is_there(description: &str) -> Result<bool, KeyError> {
    match sys::find_key(&c_string(description)?) {
        Ok(_) => Ok(true),
        Err(Errno::ENOKEY | Errno::EKEYREVOKED | Errno::EKEYEXPIRED) => Ok(false),
        Err(source) => Err(KeyError::Find { description: description.to_owned(), source }),
    }
}

fn c_string(description: &str) -> Result<CString, KeyError> {
    CString::new(description).map_err(|_| KeyError::Description(description.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_until_it_is_dropped_and_only_for_its_thread() {
        let description = format!("bulkhead:test-{}", std::process::id());
        assert!(!is_there(&description).unwrap());
        let key = Key::fresh(&description).unwrap();
        assert!(is_there(&description).unwrap());
        let other = description.clone();
        let seen = std::thread::spawn(move || is_there(&other).unwrap()).join().unwrap();
        assert!(!seen, "another thread found it");
        drop(key);
        assert!(!is_there(&description).unwrap());
    }

    #[test]
    fn a_key_that_was_ended_is_gone() {
        let description = format!("bulkhead:ended-{}", std::process::id());
        Key::fresh(&description).unwrap().end().unwrap();
        assert!(!is_there(&description).unwrap());
    }

    #[test]
    fn a_description_that_the_kernel_does_not_take_is_named() {
        assert!(matches!(Key::fresh("no-colon"), Err(KeyError::Add { .. })));
        assert!(matches!(Key::fresh("a:\0"), Err(KeyError::Description(_))));
    }
}

//! The kernel command line must be the one that was signed.
//!
//! systemd-stub takes a boot loader's text in its place without Secure Boot, and appends SMBIOS strings to it even with
//! Secure Boot; either could switch systemd to a debug shell.

/// The command line is not the expected one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Words were put behind it.
    #[error("kernel command line has `{0}` appended")]
    Appended(String),
    /// It is another one.
    #[error("kernel command line is `{found}`, the image was signed with `{expected}`")]
    Other {
        /// What the kernel was given.
        found: String,
        /// What the initrd says.
        expected: String,
    },
}

/// Compares `/proc/cmdline` with the expected text; `None` accepts any.
///
/// # Errors
/// [`Refused`].
pub fn check(expected: Option<&str>, found: &str) -> Result<(), Refused> {
    let Some(expected) = expected else { return Ok(()) };
    // the kernel ends the file with a newline, the stub may end the text with a NUL
    let found = found.trim_end_matches(['\n', '\0', ' ']);
    if found == expected {
        return Ok(());
    }
    Err(match found.strip_prefix(expected) {
        Some(rest) => Refused::Appended(rest.trim().to_owned()),
        None => Refused::Other { found: found.to_owned(), expected: expected.to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_text_is_accepted() {
        assert_eq!(check(Some("console=ttyS0 quiet"), "console=ttyS0 quiet\n"), Ok(()));
        assert_eq!(
            check(Some("quiet"), "quiet systemd.debug_shell\n"),
            Err(Refused::Appended("systemd.debug_shell".into()))
        );
        assert!(matches!(check(Some("quiet"), "uki.efi\n"), Err(Refused::Other { .. })));
        assert!(check(Some("quiet"), "").is_err());
    }

    #[test]
    fn without_an_expected_text_any_is_accepted() {
        assert_eq!(check(None, "anything"), Ok(()));
    }
}

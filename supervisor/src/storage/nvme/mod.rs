//! Which erase a whole NVMe disk may get when a tenant had it to itself: pure.
//!
//! A controller may do a format or an erase for all of its namespaces though one was named (NVM Express Base
//! Specification, Identify Controller, FNA). While another namespace is in use, nothing that could reach it is
//! chosen (law 7).

pub mod tool;

use std::fmt;

/// What Identify Controller says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Optional admin commands (OACS): bit 1 = Format NVM.
    pub oacs: u16,
    /// Format NVM attributes (FNA): bit 0 = a format, bit 1 = an erase is of all namespaces; bit 2 = the
    /// cryptographic erase is there.
    pub fna: u8,
    /// Sanitize capabilities (SANICAP): bit 0 = crypto erase, bit 1 = block erase, bit 2 = overwrite.
    pub sanicap: u32,
}

/// An erase by the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// Format NVM, secure erase setting 2.
    FormatCrypto,
    /// Format NVM, secure erase setting 1.
    FormatUser,
    /// Sanitize: crypto erase.
    SanitizeCrypto,
    /// Sanitize: block erase.
    SanitizeBlock,
}

impl Capabilities {
    /// Out of the 4096 bytes of Identify Controller (OACS at 256, SANICAP at 328, FNA at 524; little-endian); none out of
    /// fewer.
    #[must_use]
    pub fn read(identify: &[u8]) -> Option<Self> {
        Some(Self {
            oacs: u16::from_le_bytes(*identify.get(256..)?.first_chunk()?),
            sanicap: u32::from_le_bytes(*identify.get(328..)?.first_chunk()?),
            fna: *identify.get(524)?,
        })
    }
}

/// How the last sanitize went, out of the log of it (SSTAT, bytes 2 and 3, bits 2:0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sanitize {
    /// There was none, or it ended well.
    Done,
    /// It goes on.
    Running,
    /// It failed.
    Failed,
}

impl Sanitize {
    /// Out of the log's bytes; none out of fewer than four, or where the state is none of the specification's.
    #[must_use]
    pub fn read(log: &[u8]) -> Option<Self> {
        let status = u16::from_le_bytes(*log.get(2..)?.first_chunk()?);
        match status & 0b111 {
            // 4: ended well, and nothing was asked to be deallocated.
            0 | 1 | 4 => Some(Self::Done),
            2 => Some(Self::Running),
            3 => Some(Self::Failed),
            _ => None,
        }
    }
}

impl Erase {
    /// One word for receipts.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::FormatCrypto => "nvmeFormatCrypto",
            Self::FormatUser => "nvmeFormatUser",
            Self::SanitizeCrypto => "nvmeSanitizeCrypto",
            Self::SanitizeBlock => "nvmeSanitizeBlock",
        }
    }
}

impl fmt::Display for Erase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FormatCrypto => "format, cryptographic erase",
            Self::FormatUser => "format, user data erase",
            Self::SanitizeCrypto => "sanitize, crypto erase",
            Self::SanitizeBlock => "sanitize, block erase",
        })
    }
}

/// Why none is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoErase {
    /// Every erase that there is would reach another namespace.
    #[error("every erase of the controller reaches other namespaces, and one is in use")]
    ReachesOthers,
    /// There is none.
    #[error("the controller has no erase")]
    None,
}

/// The first that fits: cryptographic before user data, a format before a sanitize. `others` says that another
/// namespace of the NVM subsystem is in use; a sanitize is always of the whole subsystem.
///
/// # Errors
/// [`NoErase`].
pub fn choose(has: Capabilities, others: bool) -> Result<Erase, NoErase> {
    let format = has.oacs & 1 << 1 != 0;
    let format_reaches = has.fna & 0b11 != 0;
    let all = [
        (Erase::FormatCrypto, format && has.fna & 1 << 2 != 0, format_reaches),
        (Erase::FormatUser, format, format_reaches),
        (Erase::SanitizeCrypto, has.sanicap & 1 != 0, true),
        (Erase::SanitizeBlock, has.sanicap & 1 << 1 != 0, true),
    ];
    let mut there = all.iter().filter(|(_, there, _)| *there).peekable();
    if there.peek().is_none() {
        return Err(NoErase::None);
    }
    let fits = there.find(|(_, _, reaches)| !(others && *reaches));
    fits.map(|(erase, ..)| *erase).ok_or(NoErase::ReachesOthers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMAT: u16 = 1 << 1;

    #[test]
    fn each_capability_missing_leads_to_the_next() {
        let has = |oacs, fna, sanicap| Capabilities { oacs, fna, sanicap };
        for (capabilities, alone, beside) in [
            (has(FORMAT, 0b100, 3), Ok(Erase::FormatCrypto), Ok(Erase::FormatCrypto)),
            (has(FORMAT, 0, 3), Ok(Erase::FormatUser), Ok(Erase::FormatUser)),
            (has(FORMAT, 0b101, 0), Ok(Erase::FormatCrypto), Err(NoErase::ReachesOthers)),
            (has(FORMAT, 0b110, 0), Ok(Erase::FormatCrypto), Err(NoErase::ReachesOthers)),
            (has(0, 0b100, 3), Ok(Erase::SanitizeCrypto), Err(NoErase::ReachesOthers)),
            (has(0, 0, 2), Ok(Erase::SanitizeBlock), Err(NoErase::ReachesOthers)),
            (has(0, 0, 4), Err(NoErase::None), Err(NoErase::None)),
        ] {
            assert_eq!(choose(capabilities, false), alone, "{capabilities:?}");
            assert_eq!(choose(capabilities, true), beside, "{capabilities:?}");
        }
    }

    #[test]
    fn capabilities_are_where_the_specification_has_them() {
        let mut identify = [0; 4096];
        identify[256..258].copy_from_slice(&[0x1e, 0x01]);
        identify[328..332].copy_from_slice(&[3, 0, 0, 0xa0]);
        identify[524] = 4;
        let has = Capabilities { oacs: 0x011e, fna: 4, sanicap: 0xa000_0003 };
        assert_eq!(Capabilities::read(&identify), Some(has));
    }

    proptest! {
        #[test]
        fn any_answer_of_a_controller_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Capabilities::read(&bytes).is_some(), bytes.len() > 524);
            let known = bytes.get(2).is_some_and(|status| status & 7 <= 4) && bytes.len() >= 4;
            prop_assert_eq!(Sanitize::read(&bytes).is_some(), known);
        }

        #[test]
        fn beside_a_neighbour_only_a_format_that_stays_in_its_namespace_is_chosen(
            oacs in any::<u16>(), fna in any::<u8>(), sanicap in any::<u32>(),
        ) {
            if let Ok(erase) = choose(Capabilities { oacs, fna, sanicap }, true) {
                prop_assert!(matches!(erase, Erase::FormatCrypto | Erase::FormatUser));
                prop_assert_eq!(fna & 0b11, 0);
            }
        }
    }
}

//! What kind of client asks, told from several facts that must agree.
//!
//! Architectures are those of the IANA registry of processor architecture types (RFC 4578, RFC 5970
//! and later additions) as firmware sends them in option 93.

use std::fmt;

use bulkhead_api::boot::STAGE_ONE_CLASS;
use serde::{Deserialize, Serialize};

/// What boots there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientKind {
    /// UEFI firmware that fetches by HTTP.
    HttpBoot,
    /// UEFI firmware that fetches by TFTP.
    Pxe,
    /// Our own stage 1.
    Stage1,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpBoot => "UEFI HTTP boot",
            Self::Pxe => "UEFI PXE",
            Self::Stage1 => "stage 1",
        })
    }
}

/// Why the client cannot be given a boot file although it asks for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownClient {
    /// A number nobody defined, or nobody told us of.
    #[error("architecture {arch} (DHCP option 93) is unknown")]
    Arch {
        /// The first number sent.
        arch: u16,
    },
    /// Known, but there is no image for it.
    #[error("architecture {arch} ({name}): there is no image for it")]
    NoImage {
        /// The number.
        arch: u16,
        /// What it stands for.
        name: &'static str,
    },
    /// The class text and the architecture contradict each other.
    #[error("class {class:?} with architecture {arch}: these contradict each other")]
    Contradiction {
        /// First word of option 60.
        class: String,
        /// The architecture.
        arch: u16,
    },
    /// A boot class without any architecture.
    #[error("class {class:?} without an architecture (DHCP option 93)")]
    NoArch {
        /// First word of option 60.
        class: String,
    },
}

enum Arch {
    X64,
    HttpX64,
    Other(&'static str),
}

fn arch(number: u16) -> Option<Arch> {
    Some(match number {
        // Some firmware calls x64 "EBC".
        0x07 | 0x09 => Arch::X64,
        0x10 => Arch::HttpX64,
        0x00 => Arch::Other("x86 BIOS"),
        0x06 => Arch::Other("UEFI ia32"),
        0x0a => Arch::Other("UEFI arm32"),
        0x0b => Arch::Other("UEFI arm64"),
        0x0f => Arch::Other("UEFI ia32 HTTP"),
        0x12 => Arch::Other("UEFI arm32 HTTP"),
        0x13 => Arch::Other("UEFI arm64 HTTP"),
        0x14 => Arch::Other("x86 BIOS HTTP"),
        0x16 => Arch::Other("U-Boot arm64"),
        0x29 => Arch::Other("Raspberry Pi"),
        _ => return None,
    })
}

/// Tells the kind from options 60 and 93. `Ok(None)`: the client does not ask to boot.
///
/// # Errors
/// It asks to boot, but nothing here fits it.
pub fn classify(vendor_class: &[u8], archs: &[u16]) -> Result<Option<ClientKind>, UnknownClient> {
    if vendor_class == STAGE_ONE_CLASS.as_bytes() {
        return Ok(Some(ClientKind::Stage1));
    }
    let http = vendor_class.starts_with(b"HTTPClient");
    if !http && !vendor_class.starts_with(b"PXEClient") {
        return Ok(None);
    }
    let class = || if http { "HTTPClient".to_owned() } else { "PXEClient".to_owned() };
    let Some(&first) = archs.first() else { return Err(UnknownClient::NoArch { class: class() }) };
    // The first one known wins; a list may begin with something newer than we are.
    let known = archs.iter().find_map(|number| arch(*number).map(|arch| (*number, arch)));
    match (known, http) {
        (None, _) => Err(UnknownClient::Arch { arch: first }),
        (Some((_, Arch::X64)), false) => Ok(Some(ClientKind::Pxe)),
        (Some((_, Arch::HttpX64)), true) => Ok(Some(ClientKind::HttpBoot)),
        (Some((arch, Arch::Other(name))), _) => Err(UnknownClient::NoImage { arch, name }),
        (Some((arch, _)), _) => Err(UnknownClient::Contradiction { class: class(), arch }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_its_answer() {
        let pxe = b"PXEClient:Arch:00007:UNDI:003000";
        let http = b"HTTPClient:Arch:00016:UNDI:003000";
        assert_eq!(classify(pxe, &[7]), Ok(Some(ClientKind::Pxe)));
        assert_eq!(classify(pxe, &[9]), Ok(Some(ClientKind::Pxe)), "EBC means x64 in the field");
        assert_eq!(classify(http, &[16]), Ok(Some(ClientKind::HttpBoot)));
        for number in [0, 6, 0x0a, 0x0b, 0x16, 0x29] {
            let refusal = classify(pxe, &[number]).unwrap_err();
            assert!(matches!(refusal, UnknownClient::NoImage { arch, .. } if arch == number));
        }
        for number in [0x0f, 0x12, 0x13, 0x14] {
            let refusal = classify(http, &[number]).unwrap_err();
            assert!(matches!(refusal, UnknownClient::NoImage { arch, .. } if arch == number));
        }
        let refusal = classify(pxe, &[0x1234]).unwrap_err();
        assert_eq!(refusal, UnknownClient::Arch { arch: 0x1234 });
        assert!(refusal.to_string().contains("4660"), "the number is in the text: {refusal}");
    }

    #[test]
    fn the_first_known_architecture_of_a_list_wins() {
        assert_eq!(classify(b"PXEClient", &[0x7777, 7, 0]), Ok(Some(ClientKind::Pxe)));
        let refusal = classify(b"PXEClient", &[0, 7]).unwrap_err();
        assert!(matches!(refusal, UnknownClient::NoImage { arch: 0, .. }));
    }

    #[test]
    fn class_and_architecture_must_agree() {
        for (class, number) in [(&b"HTTPClient:Arch:00007"[..], 7), (b"PXEClient:Arch:00016", 16)] {
            let refusal = classify(class, &[number]).unwrap_err();
            assert!(matches!(refusal, UnknownClient::Contradiction { arch, .. } if arch == number));
        }
        assert!(matches!(classify(b"PXEClient", &[]), Err(UnknownClient::NoArch { .. })));
    }

    #[test]
    fn stage_1_and_operating_systems_need_no_architecture() {
        assert_eq!(classify(b"bulkhead-stage1", &[]), Ok(Some(ClientKind::Stage1)));
        assert_eq!(classify(b"", &[7]), Ok(None), "no class: an operating system");
        assert_eq!(classify(b"MSFT 5.0", &[]), Ok(None));
    }
}

//! Local storage: which disks are ours, the host's state on one, encrypted volumes on all.
//!
//! ```text
//!  disk ─► claim (blank ones by themselves) ─┬─ bulkhead-state ─► state: ledger, accepted spec, receipts
//!                                            └─ bulkhead-pool  ─► volume: dm-crypt mappings of leases
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`claim`], [`gpt`], [`mark`] | whose a disk is, and how it becomes ours |
//! | [`state`], [`settle`] | the file system that outlives a reboot |
//! | [`pools`] | which disk a pool is, without waiting for others |
//! | [`volume`] | the class of volumes: given, taken back, shown to be clean |
//! | [`dm`], [`key`] | device mapper and keyring |
//! | [`nvme`] | which erase a whole NVMe disk may get |
//! | [`disk`], [`mounts`], [`block`], [`tool`] | sysfs, mounts, raw bytes, e2fsprogs |

pub mod block;
pub mod claim;
pub mod disk;
pub mod dm;
pub mod gpt;
pub mod key;
pub mod mark;
pub mod mounts;
pub mod nvme;
pub mod pools;
pub mod settle;
pub mod state;
mod sys;
pub mod tool;
pub mod volume;

/// Lower-case hexadecimal text.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal text.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hexadecimal_text_leads_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            if let Some(bytes) = unhex(&text) {
                prop_assert_eq!(hex(&bytes), text.to_lowercase());
            }
        }
    }
}

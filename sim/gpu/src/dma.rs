//! Guest memory that the device may reach: what QEMU maps for it, which is what the guest's IOMMU lets it have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What the device may do with a stretch of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

#[derive(Debug)]
struct Mapping {
    size: u64,
    access: Access,
    file: File,
    offset: u64,
}

/// A mapping that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMapping {
    /// Of no bytes, or behind the end of the address space.
    #[error("{size} bytes at {address:#x}: expected at least one, all below 2^64")]
    Extent {
        /// First byte.
        address: u64,
        /// How many.
        size: u64,
    },
    /// Something is mapped there.
    #[error("{size} bytes at {address:#x} overlap what is mapped at {there:#x}")]
    Overlap {
        /// First byte.
        address: u64,
        /// How many.
        size: u64,
        /// First byte of what is mapped.
        there: u64,
    },
    /// Memory without a file: QEMU needs a shared memfd (`memory-backend-memfd,share=on`).
    #[error("memory at {0:#x} has no file: the guest's memory is not shared")]
    NotShared(u64),
}

/// An address is not mapped, or not for that.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The address.
    #[error("address {0:#x} is not mapped for this")]
    NotMapped(u64),
    /// The file of the mapping.
    #[error("memory at {0:#x}")]
    File(u64, #[source] io::Error),
}

/// Everything that is mapped.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<u64, Mapping>);

impl Memory {
    /// Maps `size` bytes at `address`.
    ///
    /// # Errors
    /// [`NoMapping`]; nothing has changed.
    pub fn map(
        &mut self,
        address: u64,
        size: u64,
        access: Access,
        file: Option<(File, u64)>,
    ) -> Result<(), NoMapping> {
        let end = address.checked_add(size).filter(|_| size > 0);
        let end = end.ok_or(NoMapping::Extent { address, size })?;
        let before = self.0.range(..end).next_back();
        if let Some((there, mapping)) = before
            && there.saturating_add(mapping.size) > address
        {
            return Err(NoMapping::Overlap { address, size, there: *there });
        }
        let (file, offset) = file.ok_or(NoMapping::NotShared(address))?;
        self.0.insert(address, Mapping { size, access, file, offset });
        Ok(())
    }

    /// Takes back every mapping that lies within; one that lies there in part only is taken back whole.
    pub fn unmap(&mut self, address: u64, size: u64) {
        let end = address.saturating_add(size);
        self.0.retain(|there, mapping| {
            size == 0 || there.saturating_add(mapping.size) <= address || *there >= end
        });
    }

    /// Takes back everything.
    pub fn unmap_all(&mut self) {
        self.0.clear();
    }

    /// Reads `bytes` at `address`, over several mappings where they are neighbours.
    ///
    /// # Errors
    /// [`Fault`] at the first byte that cannot be read; those before it are.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = after(address, done)?;
            let (mapping, within, count) = self.find(at, rest.len(), |access| access.read)?;
            let part = rest.get_mut(..count).unwrap_or_default();
            let read = mapping.file.read_exact_at(part, mapping.offset.saturating_add(within));
            read.map_err(|error| Fault::File(at, error))?;
            done += count;
        }
        Ok(())
    }

    /// Writes `bytes` at `address`, over several mappings where they are neighbours.
    ///
    /// # Errors
    /// [`Fault`] at the first byte that cannot be written; those before it are.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = after(address, done)?;
            let (mapping, within, count) = self.find(at, rest.len(), |access| access.write)?;
            let part = rest.get(..count).unwrap_or_default();
            let wrote = mapping.file.write_all_at(part, mapping.offset.saturating_add(within));
            wrote.map_err(|error| Fault::File(at, error))?;
            done += count;
        }
        Ok(())
    }

    /// The mapping of an address, the byte in it, and how many of `wanted` bytes it has from there.
    fn find(
        &self,
        at: u64,
        wanted: usize,
        may: impl Fn(Access) -> bool,
    ) -> Result<(&Mapping, u64, usize), Fault> {
        let (start, mapping) = self.0.range(..=at).next_back().ok_or(Fault::NotMapped(at))?;
        let within = at.saturating_sub(*start);
        let left = mapping.size.saturating_sub(within);
        if left == 0 || !may(mapping.access) {
            return Err(Fault::NotMapped(at));
        }
        Ok((mapping, within, wanted.min(usize::try_from(left).unwrap_or(usize::MAX))))
    }
}

fn after(address: u64, count: usize) -> Result<u64, Fault> {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    address.checked_add(count).ok_or(Fault::NotMapped(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: Access = Access { read: true, write: true };

    fn file(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn a_transfer_goes_over_neighbours_and_stops_at_the_first_hole() {
        let mut memory = Memory::default();
        memory.map(0x1000, 0x1000, BOTH, Some((file(0x1000), 0))).unwrap();
        memory.map(0x2000, 0x1000, BOTH, Some((file(0x2000), 0x1000))).unwrap();
        memory.write(0x1ffe, b"four").unwrap();
        let mut read = [0; 4];
        memory.read(0x1ffe, &mut read).unwrap();
        assert_eq!(&read, b"four");
        assert!(matches!(memory.write(0x2ffe, b"four"), Err(Fault::NotMapped(0x3000))));
        assert!(matches!(memory.read(0xfff, &mut read), Err(Fault::NotMapped(0xfff))));
        memory.unmap(0x2000, 0x1000);
        assert!(matches!(memory.read(0x1ffe, &mut read), Err(Fault::NotMapped(0x2000))));
    }

    #[test]
    fn what_may_only_be_read_is_not_written() {
        let mut memory = Memory::default();
        let access = Access { read: true, write: false };
        memory.map(0, 16, access, Some((file(16), 0))).unwrap();
        memory.read(0, &mut [0; 16]).unwrap();
        assert!(matches!(memory.write(0, b"x"), Err(Fault::NotMapped(0))));
    }

    #[test]
    fn a_mapping_that_cannot_be_is_refused_and_changes_nothing() {
        let mut memory = Memory::default();
        memory.map(0x1000, 0x1000, BOTH, Some((file(0x1000), 0))).unwrap();
        let mut map = |address, size, file| memory.map(address, size, BOTH, file).unwrap_err();
        let over = NoMapping::Overlap { address: 0xfff, size: 2, there: 0x1000 };
        assert_eq!(map(0xfff, 2, Some((file(2), 0))), over);
        assert!(matches!(map(0x1fff, 2, Some((file(2), 0))), NoMapping::Overlap { .. }));
        assert!(matches!(map(0, 0, Some((file(2), 0))), NoMapping::Extent { .. }));
        assert!(matches!(map(u64::MAX, 2, Some((file(2), 0))), NoMapping::Extent { .. }));
        assert_eq!(map(0x5000, 2, None), NoMapping::NotShared(0x5000));
    }

    proptest! {
        /// Beside a table of single bytes.
        #[test]
        fn what_is_mapped_and_nothing_else_is_reached(
            changes in prop::collection::vec((any::<bool>(), 0_u64..48, 0_u64..16), 0..12),
            at in 0_u64..64, length in 0_usize..16,
        ) {
            let (mut memory, mut table) = (Memory::default(), [None; 80]);
            for (index, (map, address, size)) in changes.into_iter().enumerate() {
                let range = usize::try_from(address).unwrap()..usize::try_from(address + size).unwrap();
                if map {
                    if memory.map(address, size, BOTH, Some((file(size), 0))).is_ok() {
                        prop_assert!(size > 0 && table[range.clone()].iter().all(Option::is_none));
                        table[range].fill(Some(index));
                    } else {
                        prop_assert!(size == 0 || table[range].iter().any(Option::is_some));
                    }
                } else {
                    let touched: Vec<usize> = table[range].iter().flatten().copied().collect();
                    memory.unmap(address, size);
                    table.iter_mut().filter(|byte| byte.is_some_and(|b| touched.contains(&b))).for_each(|byte| *byte = None);
                }
            }
            let from = usize::try_from(at).unwrap();
            let reachable = table[from..from + length].iter().all(Option::is_some);
            prop_assert_eq!(memory.write(at, &vec![7; length]).is_ok(), reachable);
            let mut read = vec![0; length];
            prop_assert_eq!(memory.read(at, &mut read).is_ok(), reachable);
            prop_assert!(!reachable || read.iter().all(|byte| *byte == 7));
        }
    }
}

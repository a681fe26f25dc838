//! The device: what its regions hold, what its engine does, what a reset leaves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::config::{Asked, Config, Identity};
use crate::dma::Memory;
use crate::register::{
    COMMAND, DONE, FAULT, IDENTITY, IDLE, LENGTH, MAGIC, MEMORY, MOST, REFUSED, RESETS, SCRUB,
    STATUS, TO_MEMORY, TO_VRAM, VRAM, VRAM_MIB,
};

/// Bytes of BAR0.
pub const REGISTERS: u32 = 64 << 10;

/// What the driver has written into the registers.
#[derive(Debug, Clone, Copy, Default)]
struct Registers {
    memory: u64,
    vram: u64,
    length: u32,
    status: u32,
}

/// One GPU.
#[derive(Debug)]
pub struct Device {
    config: Config,
    registers: Registers,
    resets: u32,
    vram: File,
    vram_size: u64,
    /// Guest memory.
    pub memory: Memory,
}

/// VRAM of a size that no BAR has.
#[derive(Debug, thiserror::Error)]
pub enum VramError {
    /// Not a power of two, or too small or large.
    #[error("VRAM of {0} bytes: expected a power of two from 1 MiB to 1 TiB")]
    Size(u64),
    /// The file of the VRAM.
    #[error("make the VRAM's file {0} bytes long")]
    File(u64, #[source] io::Error),
}

impl Device {
    /// After power-on, with VRAM in a file, which keeps what is in it and is made `vram_size` bytes long.
    ///
    /// # Errors
    /// [`VramError`].
    pub fn new(identity: Identity, vram: File, vram_size: u64) -> Result<Self, VramError> {
        if !vram_size.is_power_of_two() || !(1 << 20..=1 << 40).contains(&vram_size) {
            return Err(VramError::Size(vram_size));
        }
        vram.set_len(vram_size).map_err(|error| VramError::File(vram_size, error))?;
        let config = Config::new(identity, REGISTERS, vram_size);
        let (registers, memory) = (Registers::default(), Memory::default());
        Ok(Self { config, registers, resets: 0, vram, vram_size, memory })
    }

    /// Everything but VRAM and the number of resets is as after power-on. What is mapped stays: that is the IOMMU's.
    pub fn reset(&mut self) {
        self.config.reset();
        self.registers = Registers::default();
        self.resets = self.resets.wrapping_add(1);
    }

    /// Reads configuration space.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    /// Writes configuration space, and resets the function where that is asked for.
    pub fn config_write(&mut self, offset: u64, data: &[u8]) {
        if self.config.write(offset, data) == Asked::Reset {
            self.reset();
        }
    }

    /// Reads registers.
    pub fn registers_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let value = self.register(at & !3).to_le_bytes();
            *byte = value.get(usize::try_from(at & 3).unwrap_or(0)).copied().unwrap_or(0);
        }
    }

    fn register(&self, at: u64) -> u32 {
        let Registers { memory, vram, length, status } = self.registers;
        let high = |value: u64| low(value >> 32);
        match at {
            IDENTITY => MAGIC,
            VRAM_MIB => low(self.vram_size >> 20),
            RESETS => self.resets,
            MEMORY => low(memory),
            0x14 => high(memory),
            VRAM => low(vram),
            0x1c => high(vram),
            LENGTH => length,
            STATUS => status,
            _ => 0,
        }
    }

    /// Writes registers: whole words at their addresses; other writes are without effect, as on a bus that has no bytes.
    pub fn registers_write(&mut self, offset: u64, data: &[u8]) {
        let (words, rest) = data.as_chunks::<4>();
        if !rest.is_empty() || !offset.is_multiple_of(4) {
            return;
        }
        for (at, word) in (offset..=u64::MAX).step_by(4).zip(words) {
            self.set(at, u32::from_le_bytes(*word));
        }
    }

    fn set(&mut self, at: u64, value: u32) {
        let registers = &mut self.registers;
        let (low, high) = (u64::from(value), u64::from(value) << 32);
        let (low_half, high_half) = (0xffff_ffff_u64, 0xffff_ffff_0000_0000);
        match at {
            MEMORY => registers.memory = registers.memory & high_half | low,
            0x14 => registers.memory = registers.memory & low_half | high,
            VRAM => registers.vram = registers.vram & high_half | low,
            0x1c => registers.vram = registers.vram & low_half | high,
            LENGTH => registers.length = value,
            COMMAND => self.registers.status = self.transfer(value),
            _ => {}
        }
    }

    fn transfer(&self, command: u32) -> u32 {
        let Registers { memory, vram, length, .. } = self.registers;
        let inside = vram.checked_add(length.into()).is_some_and(|end| end <= self.vram_size);
        if length > MOST || !inside {
            return REFUSED;
        }
        // A function that is no bus master reaches no memory.
        if command != SCRUB && !self.config.is_bus_master() {
            return FAULT;
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let done = match command {
            SCRUB => self.vram.write_all_at(&bytes, vram).is_ok(),
            TO_MEMORY => {
                self.vram.read_exact_at(&mut bytes, vram).is_ok()
                    && self.memory.write(memory, &bytes).is_ok()
            }
            TO_VRAM => {
                self.memory.read(memory, &mut bytes).is_ok()
                    && self.vram.write_all_at(&bytes, vram).is_ok()
            }
            _ => return REFUSED,
        };
        if done { DONE } else { FAULT }
    }

    /// Reads VRAM; zeros behind its end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn vram_read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        let there = self.within(offset, data.len());
        self.vram.read_exact_at(data.get_mut(..there).unwrap_or_default(), offset)
    }

    /// Writes VRAM; nothing behind its end.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn vram_write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let there = self.within(offset, data.len());
        self.vram.write_all_at(data.get(..there).unwrap_or_default(), offset)
    }

    fn within(&self, offset: u64, length: usize) -> usize {
        let left = self.vram_size.saturating_sub(offset);
        length.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Bytes of VRAM.
    #[must_use]
    pub fn vram_size(&self) -> u64 {
        self.vram_size
    }

    /// Whether no transfer was made since the last reset.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.registers.status == IDLE
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dma::Access;

    const H100: Identity = Identity { vendor: 0x10de, device: 0x2330, class: 0x03_0200 };
    const SIZE: u64 = 1 << 20;

    fn device() -> Device {
        Device::new(H100, tempfile::tempfile().unwrap(), SIZE).unwrap()
    }

    fn guest(size: u64) -> (File, Option<(File, u64)>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        (file.try_clone().unwrap(), Some((file, 0)))
    }

    fn order(device: &mut Device, command: u32, memory: u64, vram: u64, length: u32) -> u32 {
        device.registers_write(MEMORY, &[memory.to_le_bytes(), vram.to_le_bytes()].concat());
        device.registers_write(LENGTH, &[length.to_le_bytes(), command.to_le_bytes()].concat());
        let mut status = [0; 4];
        device.registers_read(STATUS, &mut status);
        u32::from_le_bytes(status)
    }

    #[test]
    fn what_is_in_vram_outlives_a_reset_and_not_a_scrub() {
        let mut device = device();
        device.vram_write(4096, b"of tenant a").unwrap();
        device.config_write(0x48, &[0, 0x80]);
        let mut left = [0; 11];
        device.vram_read(4096, &mut left).unwrap();
        assert_eq!(&left, b"of tenant a");
        let mut resets = [0; 4];
        device.registers_read(RESETS, &mut resets);
        assert_eq!((resets, device.is_idle()), ([1, 0, 0, 0], true));
        assert_eq!(order(&mut device, SCRUB, 0, 0, MOST), DONE);
        device.vram_read(4096, &mut left).unwrap();
        assert_eq!(left, [0; 11]);
    }

    #[test]
    fn the_engine_reaches_what_is_mapped_for_it_and_nothing_else() {
        let mut device = device();
        let (memory, file) = guest(8192);
        device.memory.map(0x10_0000, 8192, Access { read: true, write: true }, file).unwrap();
        memory.write_all_at(b"from memory", 100).unwrap();
        assert_eq!(order(&mut device, TO_VRAM, 0x10_0064, 0, 11), FAULT, "no bus master yet");
        device.config_write(4, &[0x06, 0]);
        assert_eq!(order(&mut device, TO_VRAM, 0x10_0064, 0, 11), DONE);
        assert_eq!(order(&mut device, TO_MEMORY, 0x10_1000, 0, 11), DONE);
        let mut copied = [0; 11];
        memory.read_exact_at(&mut copied, 4096).unwrap();
        assert_eq!(&copied, b"from memory");
        assert_eq!(order(&mut device, TO_MEMORY, 0x10_1ff8, 0, 11), FAULT);
        assert_eq!(order(&mut device, TO_VRAM, 0xf_ffff, 0, 1), FAULT);
        assert_eq!(order(&mut device, TO_VRAM, 0x10_0000, SIZE - 1, 2), REFUSED);
        assert_eq!(order(&mut device, TO_VRAM, 0x10_0000, 0, MOST + 1), REFUSED);
        assert_eq!(order(&mut device, 9, 0x10_0000, 0, 1), REFUSED);
        device.memory.unmap_all();
        assert_eq!(order(&mut device, TO_MEMORY, 0x10_0000, 0, 1), FAULT);
    }

    #[test]
    fn vram_of_a_size_that_no_bar_has_is_refused() {
        for size in [0, 1 << 19, (1 << 20) + 1, 1 << 41] {
            let error = Device::new(H100, tempfile::tempfile().unwrap(), size).unwrap_err();
            assert!(matches!(error, VramError::Size(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_access_is_borne(
            accesses in prop::collection::vec((0_u8..6, any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
        ) {
            let mut device = device();
            for (region, offset, near, mut data) in accesses {
                let offset = if near { offset % 64 } else { offset };
                match region {
                    0 => device.config_write(offset, &data),
                    1 => device.config_read(offset, &mut data),
                    2 => device.registers_write(offset, &data),
                    3 => device.registers_read(offset, &mut data),
                    4 => device.vram_write(offset, &data).unwrap(),
                    _ => device.vram_read(offset, &mut data).unwrap(),
                }
            }
            prop_assert_eq!(device.vram.metadata().unwrap().len(), SIZE);
        }
    }
}

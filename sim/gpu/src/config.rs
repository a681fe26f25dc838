//! Configuration space of a PCI Express endpoint (PCI Express Base Specification, chapter 7: type 0 header, PCI Express
//! capability), as far as a driver and Linux's `drivers/pci` look.

/// Bytes of the configuration space of a PCI Express function.
pub const SIZE: usize = 4096;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR0: usize = 0x10;
const BAR1: usize = 0x14;
const BAR2: usize = 0x18;
const BARS_END: usize = 0x28;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const EXPRESS: usize = 0x40;
const DEVICE_CAPABILITIES: usize = EXPRESS + 0x04;
const DEVICE_CONTROL: usize = EXPRESS + 0x08;
const LINK_CAPABILITIES: usize = EXPRESS + 0x0c;
const LINK_STATUS: usize = EXPRESS + 0x12;

/// Memory space, bus master, interrupt disable.
const COMMAND_BITS: u16 = 0x0406;
const HAS_CAPABILITIES: u16 = 0x0010;
/// "Function Level Reset Capability".
const FLR_CAPABLE: u32 = 1 << 28;
/// "Initiate Function Level Reset", reads as 0.
const INITIATE_FLR: u16 = 1 << 15;
/// A 64-bit prefetchable memory BAR; its size is a power of two.
const MEMORY_64_PREFETCHABLE: u32 = 0b1100;

/// Who the function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass and interface: `0x030200` is a 3D controller.
    pub class: u32,
}

/// Configuration space.
#[derive(Debug, Clone)]
pub struct Config {
    bytes: Box<[u8; SIZE]>,
    identity: Identity,
    bar0: u32,
    bar1: u64,
}

/// What a write asks for beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// A function-level reset.
    Reset,
}

impl Config {
    /// After power-on. `bar0` and `bar1` are sizes in bytes, powers of two of at least 16.
    #[must_use]
    pub fn new(identity: Identity, bar0: u32, bar1: u64) -> Self {
        let mut config = Self { bytes: Box::new([0; SIZE]), identity, bar0, bar1 };
        config.reset();
        config
    }

    /// As after power-on: what a driver wrote is gone.
    pub fn reset(&mut self) {
        self.bytes.fill(0);
        let Identity { vendor, device, class } = self.identity;
        self.set16(0, vendor);
        self.set16(2, device);
        self.set16(STATUS, HAS_CAPABILITIES);
        self.set(REVISION, &[0xa1]);
        let [interface, subclass, base, _] = class.to_le_bytes();
        self.set(CLASS, &[interface, subclass, base]);
        self.set32(BAR1, MEMORY_64_PREFETCHABLE);
        self.set16(SUBSYSTEM_VENDOR, vendor);
        self.set16(SUBSYSTEM, device);
        self.set(CAPABILITIES, &[0x40]);
        // PCI Express capability, version 2, endpoint, the last of the list.
        self.set(EXPRESS, &[0x10, 0x00, 0x02, 0x00]);
        self.set32(DEVICE_CAPABILITIES, FLR_CAPABLE | 0x8001);
        self.set32(LINK_CAPABILITIES, 0x0000_0104);
        self.set16(LINK_STATUS, 0x0104);
    }

    /// Bytes from `offset`; zeros behind the end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.bytes.get(start..).unwrap_or_default();
        data.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
    }

    /// Writes what can be written, byte for byte; all else keeps its value.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Asked {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, byte) in (start..SIZE).zip(data) {
            let mask = self.writable(at);
            if let Some(old) = self.bytes.get_mut(at) {
                *old = *old & !mask | byte & mask;
            }
        }
        self.size_bars();
        let control = self.get16(DEVICE_CONTROL);
        self.set16(DEVICE_CONTROL, control & !INITIATE_FLR);
        if control & INITIATE_FLR == 0 { Asked::Nothing } else { Asked::Reset }
    }

    /// Whether the driver lets the function reach memory ("Bus Master Enable").
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.get16(COMMAND) & 0x4 != 0
    }

    fn writable(&self, at: usize) -> u8 {
        let half = |bits: u16, first: usize| bits.to_le_bytes().get(at - first).copied();
        match at {
            COMMAND..STATUS => half(COMMAND_BITS, COMMAND),
            BAR0..BARS_END | INTERRUPT_LINE => Some(0xff),
            DEVICE_CONTROL..=0x49 => Some(0xff),
            _ => None,
        }
        .unwrap_or(0)
    }

    /// Of an address only the bits above its BAR's size stay.
    fn size_bars(&mut self) {
        let low = self.get32(BAR0) & !(self.bar0.wrapping_sub(1));
        self.set32(BAR0, low);
        let address = u64::from(self.get32(BAR2)) << 32 | u64::from(self.get32(BAR1));
        let address = address & !(self.bar1.wrapping_sub(1)) | u64::from(MEMORY_64_PREFETCHABLE);
        self.set(BAR1, &address.to_le_bytes());
        self.set(BAR2 + 4, &[0; BARS_END - BAR2 - 4]);
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        let there = self.bytes.iter_mut().skip(at);
        there.zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn set16(&mut self, at: usize, value: u16) {
        self.set(at, &value.to_le_bytes());
    }

    fn set32(&mut self, at: usize, value: u32) {
        self.set(at, &value.to_le_bytes());
    }

    fn get16(&self, at: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(u64::try_from(at).unwrap_or(u64::MAX), &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn get32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(u64::try_from(at).unwrap_or(u64::MAX), &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const H100: Identity = Identity { vendor: 0x10de, device: 0x2330, class: 0x03_0200 };

    fn h100() -> Config {
        Config::new(H100, 1 << 16, 1 << 24)
    }

    fn word(config: &Config, at: u64) -> u32 {
        let mut bytes = [0; 4];
        config.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn it_is_a_3d_controller_that_can_be_reset_by_function() {
        let config = h100();
        assert_eq!(word(&config, 0), 0x2330_10de);
        assert_eq!(word(&config, 8) >> 8, 0x03_0200);
        assert_eq!(word(&config, 0x34) & 0xff, 0x40);
        assert_eq!(word(&config, 0x40), 0x0002_0010);
        assert_ne!(word(&config, 0x44) & FLR_CAPABLE, 0);
    }

    #[test]
    fn bars_tell_their_size_and_keep_an_address() {
        let mut config = h100();
        for bar in [0x10, 0x14, 0x18] {
            config.write(bar, &[0xff; 4]);
        }
        assert_eq!(word(&config, 0x10), !0xffff);
        assert_eq!(word(&config, 0x14), !0x00ff_ffff | 0xc);
        assert_eq!(word(&config, 0x18), 0xffff_ffff);
        config.write(0x14, &0x4200_0000_u32.to_le_bytes());
        config.write(0x18, &0x38_u32.to_le_bytes());
        assert_eq!((word(&config, 0x14), word(&config, 0x18)), (0x4200_000c, 0x38));
    }

    #[test]
    fn a_reset_is_asked_for_by_one_bit_which_reads_as_zero() {
        let mut config = h100();
        assert_eq!(config.write(4, &[0x06, 0x04]), Asked::Nothing);
        assert!(config.is_bus_master());
        assert_eq!(config.write(0x48, &[0, 0x80]), Asked::Reset);
        assert_eq!(word(&config, 0x48) & 0x8000, 0);
        config.reset();
        assert!(!config.is_bus_master());
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_changes_who_it_is(
            writes in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..9)), 0..9),
            near in prop::collection::vec((0_u64..0x60, any::<u8>()), 0..64),
        ) {
            let mut config = h100();
            for (offset, bytes) in writes {
                config.write(offset, &bytes);
            }
            for (offset, byte) in near {
                config.write(offset, &[byte]);
            }
            prop_assert_eq!((word(&config, 0), word(&config, 8)), (word(&h100(), 0), word(&h100(), 8)));
            prop_assert_eq!((word(&config, 0x40), word(&config, 0x44)), (word(&h100(), 0x40), word(&h100(), 0x44)));
        }
    }
}

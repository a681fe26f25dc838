//! Registers in BAR0: little endian, 4 bytes each; where two make 64 bits the lower half comes first. Other
//! addresses read 0.

/// Reads [`MAGIC`].
pub const IDENTITY: u64 = 0x00;
/// VRAM in MiB.
pub const VRAM_MIB: u64 = 0x04;
/// Resets since the program began; a reset does not clear it.
pub const RESETS: u64 = 0x08;
/// Guest address of a transfer, 64 bits.
pub const MEMORY: u64 = 0x10;
/// Byte of VRAM at which a transfer begins, 64 bits.
pub const VRAM: u64 = 0x18;
/// Bytes of a transfer, at most [`MOST`].
pub const LENGTH: u64 = 0x20;
/// Written: one of [`TO_MEMORY`], [`TO_VRAM`], [`SCRUB`]. The transfer is over when the write is.
pub const COMMAND: u64 = 0x24;
/// How the last transfer ended: [`IDLE`], [`DONE`], [`FAULT`], [`REFUSED`].
pub const STATUS: u64 = 0x28;

/// `BHGP`.
pub const MAGIC: u32 = 0x5047_4842;
/// Bytes of one transfer at most.
pub const MOST: u32 = 1 << 20;

/// Copies VRAM to memory.
pub const TO_MEMORY: u32 = 1;
/// Copies memory to VRAM.
pub const TO_VRAM: u32 = 2;
/// Fills VRAM with zeros; [`MEMORY`] is not used.
pub const SCRUB: u32 = 3;

/// There was none since the last reset.
pub const IDLE: u32 = 0;
/// Whole.
pub const DONE: u32 = 1;
/// An address is not mapped for the device, or not for this direction: nothing was copied behind it.
pub const FAULT: u32 = 2;
/// Outside of VRAM, too long, or no command.
pub const REFUSED: u32 = 3;

//! Requests and answers of the device mapper as bytes (kernel `include/uapi/linux/dm-ioctl.h`): pure.

use crate::storage::disk::DeviceNumber;

/// Length of `struct dm_ioctl`.
pub const HEAD: usize = 312;
const NAME_AT: usize = 48;
const NAME: usize = 128;
const UUID_AT: usize = 176;
const UUID: usize = 129;
const SPEC: usize = 40;

/// Bits of the flags field.
pub mod flag {
    /// Suspend, in a request; suspended, in an answer.
    pub const SUSPEND: u32 = 1 << 1;
    /// Tables and not their state are asked for.
    pub const STATUS_TABLE: u32 = 1 << 4;
    /// A table is live.
    pub const ACTIVE_PRESENT: u32 = 1 << 5;
    /// The buffer was too small.
    pub const BUFFER_FULL: u32 = 1 << 8;
    /// File systems are not frozen first.
    pub const SKIP_LOCKFS: u32 = 1 << 10;
}

/// One target of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// First sector of 512 bytes.
    pub start: u64,
    /// Sectors of 512 bytes.
    pub length: u64,
    /// Type: `crypt`, `error`.
    pub kind: String,
    /// What the type takes.
    pub parameters: String,
}

/// What every answer says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name.
    pub name: String,
    /// Its UUID; empty for none.
    pub uuid: String,
    /// How many have it open.
    pub open_count: u32,
    /// It takes no requests.
    pub suspended: bool,
    /// It has a table.
    pub live: bool,
}

/// Why a request cannot be made, or an answer not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A name or text that does not fit.
    #[error("{0:?} does not fit into a device-mapper request")]
    Long(String),
    /// An answer that ends too early or points outside itself.
    #[error("answer of the device mapper: {0} is out of its bounds")]
    Short(&'static str),
    /// The answer is larger than the buffer.
    #[error("answer of the device mapper: larger than {0} bytes")]
    Full(usize),
}

/// A request for a device by name; its buffer has `room` bytes for what goes with it either way.
///
/// # Errors
/// [`WireError::Long`].
pub fn request(name: &str, flags: u32, body: &[u8], room: usize) -> Result<Vec<u8>, WireError> {
    let size = HEAD.saturating_add(room.max(body.len()));
    let mut bytes = vec![0; size];
    let numbers: [u32; 8] =
        [4, 0, 0, u32::try_from(size).unwrap_or(u32::MAX), HEAD_U32, 0, 0, flags];
    for (to, from) in bytes.chunks_exact_mut(4).zip(numbers) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    put(&mut bytes, NAME_AT, NAME, name)?;
    if let Some(place) = bytes.get_mut(HEAD..HEAD.saturating_add(body.len())) {
        place.copy_from_slice(body);
    }
    Ok(bytes)
}

const HEAD_U32: u32 = 312;

/// As [`request`], of a device that is made with that UUID.
///
/// # Errors
/// [`WireError::Long`].
pub fn create(name: &str, uuid: &str) -> Result<Vec<u8>, WireError> {
    let mut bytes = request(name, 0, &[], 0)?;
    put(&mut bytes, UUID_AT, UUID, uuid)?;
    Ok(bytes)
}

/// As [`request`], with a table.
///
/// # Errors
/// [`WireError::Long`].
pub fn load(name: &str, targets: &[Target]) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::new();
    for target in targets {
        let Target { start, length, kind, parameters } = target;
        let from = body.len();
        body.resize(from.saturating_add(SPEC), 0);
        let spec = body.get_mut(from..).unwrap_or_default();
        let whole = SPEC.saturating_add(parameters.len()).saturating_add(1).next_multiple_of(8);
        for (at, number) in [(0, start.to_ne_bytes()), (8, length.to_ne_bytes())] {
            spec.get_mut(at..at + 8).unwrap_or_default().copy_from_slice(&number);
        }
        let next = u32::try_from(whole).map_err(|_| WireError::Long(parameters.clone()))?;
        spec.get_mut(20..24).unwrap_or_default().copy_from_slice(&next.to_ne_bytes());
        put(spec, 24, 16, kind)?;
        if parameters.contains('\0') {
            return Err(WireError::Long(parameters.clone()));
        }
        body.extend(parameters.as_bytes());
        body.resize(from.saturating_add(whole), 0);
    }
    let mut bytes = request(name, 0, &body, 0)?;
    let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    bytes.get_mut(20..24).unwrap_or_default().copy_from_slice(&count.to_ne_bytes());
    Ok(bytes)
}

/// As [`request`], with a message for the target that has a sector.
///
/// # Errors
/// [`WireError::Long`].
pub fn message(name: &str, sector: u64, text: &str) -> Result<Vec<u8>, WireError> {
    let mut body = sector.to_ne_bytes().to_vec();
    body.extend(text.as_bytes());
    body.push(0);
    request(name, 0, &body, 0)
}

/// Copies text and leaves a zero behind.
fn put(bytes: &mut [u8], at: usize, room: usize, text: &str) -> Result<(), WireError> {
    let place = bytes.get_mut(at..at.saturating_add(text.len()));
    match place {
        Some(place) if text.len() < room && !text.contains('\0') => {
            place.copy_from_slice(text.as_bytes());
            Ok(())
        }
        _ => Err(WireError::Long(text.to_owned())),
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u32, WireError> {
    let field = bytes.get(at..at.saturating_add(4)).and_then(|field| field.try_into().ok());
    field.map(u32::from_ne_bytes).ok_or(WireError::Short("a number"))
}

fn long(bytes: &[u8], at: usize) -> Result<u64, WireError> {
    let field = bytes.get(at..at.saturating_add(8)).and_then(|field| field.try_into().ok());
    field.map(u64::from_ne_bytes).ok_or(WireError::Short("a number"))
}

/// The text that starts there and ends before a zero or at the end of `bytes`.
fn text(bytes: &[u8], at: usize, room: usize) -> Result<String, WireError> {
    let rest = bytes.get(at..).ok_or(WireError::Short("a text"))?;
    let rest = rest.get(..room.min(rest.len())).unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    Ok(String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned())
}

/// Huge device numbers (kernel `include/linux/kdev_t.h`, `new_encode_dev`).
fn device_number(encoded: u64) -> DeviceNumber {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
    DeviceNumber {
        major: low((encoded & 0xf_ff00) >> 8),
        minor: low((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00)),
    }
}

/// Reads what an answer says of its device.
///
/// # Errors
/// [`WireError::Short`].
pub fn device(answer: &[u8]) -> Result<Device, WireError> {
    let flags = number(answer, 28)?;
    Ok(Device {
        number: device_number(long(answer, 40)?),
        name: text(answer, NAME_AT, NAME)?,
        uuid: text(answer, UUID_AT, UUID)?,
        open_count: number(answer, 24)?,
        suspended: flags & flag::SUSPEND != 0,
        live: flags & flag::ACTIVE_PRESENT != 0,
    })
}

/// The part of an answer behind its head.
fn body(answer: &[u8]) -> Result<&[u8], WireError> {
    if number(answer, 28)? & flag::BUFFER_FULL != 0 {
        return Err(WireError::Full(answer.len()));
    }
    let start = usize::try_from(number(answer, 16)?).unwrap_or(usize::MAX);
    answer.get(start..).ok_or(WireError::Short("the data"))
}

/// Reads the list of all devices: names with numbers (`struct dm_name_list`).
///
/// # Errors
/// [`WireError`].
pub fn names(answer: &[u8]) -> Result<Vec<(String, DeviceNumber)>, WireError> {
    let mut rest = body(answer)?;
    let mut names = Vec::new();
    while long(rest, 0)? != 0 {
        names.push((text(rest, 12, NAME)?, device_number(long(rest, 0)?)));
        // The next entry is counted from this one.
        let next = usize::try_from(number(rest, 8)?).unwrap_or(usize::MAX);
        if next == 0 {
            break;
        }
        rest = rest.get(next..).ok_or(WireError::Short("the next name"))?;
    }
    Ok(names)
}

/// Reads a table (`struct dm_target_spec`).
///
/// # Errors
/// [`WireError`].
pub fn targets(answer: &[u8]) -> Result<Vec<Target>, WireError> {
    let count = number(answer, 20)?;
    let all = if count == 0 { &[] } else { body(answer)? };
    let (mut targets, mut at) = (Vec::new(), 0);
    for _ in 0..count {
        let spec = all.get(at..).ok_or(WireError::Short("the next target"))?;
        targets.push(Target {
            start: long(spec, 0)?,
            length: long(spec, 8)?,
            kind: text(spec, 24, 16)?,
            parameters: text(spec, SPEC, usize::MAX)?,
        });
        // The next one is counted from the first.
        let next = usize::try_from(number(spec, 20)?).unwrap_or(usize::MAX);
        if next <= at {
            break;
        }
        at = next;
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(start: u64, parameters: &str) -> Target {
        let (kind, parameters) = ("crypt".to_owned(), parameters.to_owned());
        Target { start, length: 8, kind, parameters }
    }

    #[test]
    fn a_request_says_how_long_it_is_and_whom_it_means() {
        let bytes = request("bh-a.b.c", flag::SUSPEND, &[1, 2], 100).unwrap();
        assert_eq!(bytes.len(), HEAD + 100);
        assert_eq!(bytes[12..16], 412_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_ne_bytes());
        assert_eq!(bytes[HEAD..HEAD + 3], [1, 2, 0]);
        let device = device(&bytes).unwrap();
        assert_eq!(
            (device.name.as_str(), device.suspended, device.live),
            ("bh-a.b.c", true, false)
        );
    }

    #[test]
    fn names_and_uuids_up_to_the_kernels_bound_fit() {
        assert!(request(&"x".repeat(127), 0, &[], 0).is_ok());
        assert!(request(&"x".repeat(128), 0, &[], 0).is_err());
        assert!(create("a", &"x".repeat(128)).is_ok());
        assert!(create("a", &"x".repeat(129)).is_err());
        assert!(request("a\0b", 0, &[], 0).is_err());
    }

    #[test]
    fn device_numbers_beyond_eight_bits_are_read() {
        let expected = DeviceNumber { major: 253, minor: 0x1_2345 };
        assert_eq!(device_number(0xfd45 | 0x123 << 20), expected);
        assert_eq!(device_number(0xfd07), DeviceNumber { major: 253, minor: 7 });
    }

    #[test]
    fn an_empty_list_and_an_empty_table_are_empty() {
        let answer = request("", 0, &[], 64).unwrap();
        assert_eq!(names(&answer).unwrap(), []);
        assert_eq!(targets(&answer).unwrap(), []);
        let full = request("", flag::BUFFER_FULL, &[], 64).unwrap();
        assert_eq!(names(&full), Err(WireError::Full(HEAD + 64)));
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let mut body = Vec::new();
        for (number, next, name) in [(0xfd00_u64, 24_u32, "one"), (0xfd01, 0, "two")] {
            body.extend(number.to_ne_bytes());
            body.extend(next.to_ne_bytes());
            body.extend(name.as_bytes());
            body.resize(body.len().next_multiple_of(8), 0);
            body.resize(body.len().next_multiple_of(24), 0);
        }
        let found = names(&request("", 0, &body, 0).unwrap()).unwrap();
        let number = |minor| DeviceNumber { major: 253, minor };
        assert_eq!(found, [("one".to_owned(), number(0)), ("two".to_owned(), number(1))]);
    }

    proptest! {
        #[test]
        fn a_table_of_one_target_reads_back(start in any::<u64>(), parameters in "[ -~]{0,80}") {
            let target = target(start, &parameters);
            let bytes = load("x", std::slice::from_ref(&target)).unwrap();
            prop_assert_eq!(targets(&bytes).unwrap(), [target]);
        }

        #[test]
        fn any_answer_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
            let _ = (device(&bytes), names(&bytes), targets(&bytes));
        }

        #[test]
        fn any_body_behind_a_good_head_is_read_or_refused(
            body in prop::collection::vec(any::<u8>(), 0..400), count in 0_u32..9,
        ) {
            let mut bytes = request("x", 0, &body, 0).unwrap();
            bytes[20..24].copy_from_slice(&count.to_ne_bytes());
            let _ = (names(&bytes), targets(&bytes));
        }
    }
}

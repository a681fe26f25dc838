//! Pointers of the caller.
//!
//! Each type is a C pointer in the signature of an exported function. None can be made in Rust, so
//! each came from a C caller, who promises what nvml.h asks: NULL, or memory of that type (of that
//! many elements) that nobody else writes during the call. That promise is the ground of every
//! `SAFETY` comment here.

use std::ffi::{CStr, c_char};

use crate::code::Code;

/// `T *` that is only written.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(super) fn set(self, value: T) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not NULL, so the caller's memory for a T; unaligned, as C callers may pack.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Refuses NULL before anything is changed.
    pub(super) fn need(self) -> Result<(), Code> {
        if self.0.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(()) }
    }
}

/// `const T *`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub(super) fn get(self) -> Result<T, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not NULL, so a T of the caller's.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

/// `T *` that is read and written.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct InOut<T>(*mut T);

impl<T: Copy> InOut<T> {
    pub(super) fn get(self) -> Result<T, Code> {
        In(self.0.cast_const()).get()
    }

    pub(super) fn set(self, value: T) -> Result<(), Code> {
        Out(self.0).set(value)
    }
}

/// A structure that begins with a version, which says how long it is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Versioned(*mut u32);

impl Versioned {
    pub(super) fn version(self) -> Result<u32, Code> {
        In(self.0.cast_const()).get()
    }

    /// Writes the structure of the version that [`Versioned::version`] told.
    pub(super) fn set<T>(self, version: u32, value: T) -> Result<(), Code> {
        if self.version()? == version && version_of::<T>(version >> 24) == version {
            Out(self.0.cast::<T>()).set(value)
        } else {
            Err(Code::ARGUMENT_VERSION_MISMATCH)
        }
    }

    /// Reads the structure of that version.
    pub(super) fn get<T: Copy>(self, version: u32) -> Result<T, Code> {
        if self.version()? == version && version_of::<T>(version >> 24) == version {
            In(self.0.cast_const().cast::<T>()).get()
        } else {
            Err(Code::ARGUMENT_VERSION_MISMATCH)
        }
    }
}

/// `NVML_STRUCT_VERSION`: size in the lower three bytes, number in the upper.
pub(super) fn version_of<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | number << 24
}

/// `T *` to the first of several, whose number stands elsewhere.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct List<T>(*mut T);

impl<T: Copy> List<T> {
    /// Fills a list by NVML's protocol: `count` holds the capacity, then the number of elements.
    /// With too small a capacity, or NULL, nothing is written but the number.
    pub(super) fn fill(self, count: InOut<u32>, items: &[T]) -> Result<(), Code> {
        let capacity = count.get()?;
        let length = u32::try_from(items.len()).map_err(|_| Code::UNKNOWN)?;
        count.set(length)?;
        if length == 0 {
            return Ok(());
        }
        if self.0.is_null() || capacity < length {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        self.write(items)
    }

    /// The same for calls where NULL asks for the number and is no error.
    pub(super) fn fill_or_count(self, count: InOut<u32>, items: &[T]) -> Result<(), Code> {
        if self.0.is_null() {
            count.get()?;
            return count.set(u32::try_from(items.len()).map_err(|_| Code::UNKNOWN)?);
        }
        self.fill(count, items)
    }

    /// For calls whose documentation asks for room for every instance that is possible and that
    /// only write the number.
    pub(super) fn fill_all(self, count: Out<u32>, items: &[T]) -> Result<(), Code> {
        count.need()?;
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.write(items)?;
        count.set(u32::try_from(items.len()).map_err(|_| Code::UNKNOWN)?)
    }

    /// Fills exactly `count` elements, the rest of `items` falling away and missing ones as `rest`.
    pub(super) fn fill_exactly(self, count: u32, items: &[T], rest: T) -> Result<(), Code> {
        if self.0.is_null() || count == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let count = usize::try_from(count).unwrap_or(0);
        for at in 0..count {
            let value = items.get(at).copied().unwrap_or(rest);
            // SAFETY: below the number of elements that the caller has room for.
            unsafe { self.0.add(at).write_unaligned(value) };
        }
        Ok(())
    }

    /// Reads, changes and writes back `count` elements one by one.
    pub(super) fn each(self, count: i32, mut change: impl FnMut(T) -> T) -> Result<(), Code> {
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        if self.0.is_null() || count == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        for at in 0..count {
            // SAFETY: below the number of elements that the caller says it has.
            let place = unsafe { self.0.add(at) };
            // SAFETY: the same element, which the caller has written.
            let value = change(unsafe { place.read_unaligned() });
            // SAFETY: the same element.
            unsafe { place.write_unaligned(value) };
        }
        Ok(())
    }

    fn write(self, items: &[T]) -> Result<(), Code> {
        for (at, item) in items.iter().enumerate() {
            // SAFETY: the caller has room for as many as there are, which was checked by count or,
            // for `fill_all`, is what nvml.h asks of it.
            unsafe { self.0.add(at).write_unaligned(*item) };
        }
        Ok(())
    }
}

/// `const char *`, ended by NUL.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct TextIn(*const c_char);

impl TextIn {
    pub(super) fn get(self) -> Result<String, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not NULL, so a C string of the caller's.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| Code::INVALID_ARGUMENT)
    }
}

/// `char *` with room for some bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct TextOut(*mut c_char);

impl TextOut {
    /// Writes the text and its NUL into `length` bytes.
    pub(super) fn set(self, length: u32, text: &str) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let room = usize::try_from(length).unwrap_or(0);
        if text.len() >= room {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        for (at, byte) in text.bytes().chain([0]).enumerate() {
            // SAFETY: below `length`, for which the caller has room.
            unsafe { self.0.add(at).write(byte.cast_signed()) };
        }
        Ok(())
    }
}

/// A text in a fixed field; cut where it is too long, always ended by NUL.
pub(super) fn field<const N: usize>(text: &str) -> [c_char; N] {
    let mut bytes = [0; N];
    let places = bytes.iter_mut().take(N.saturating_sub(1));
    places.zip(text.bytes()).for_each(|(to, from)| *to = from.cast_signed());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_filled_when_there_is_room_and_counted_when_not() {
        let mut room = [0_u32; 3];
        let mut count = 2;
        let list = List(room.as_mut_ptr());
        let items = [7, 8, 9];
        assert_eq!(list.fill(InOut(&raw mut count), &items), Err(Code::INSUFFICIENT_SIZE));
        assert_eq!((count, room), (3, [0; 3]));
        let list = List(room.as_mut_ptr());
        assert_eq!(list.fill(InOut(&raw mut count), &items), Ok(()));
        assert_eq!(room, items);
        let none = List::<u32>(std::ptr::null_mut());
        assert_eq!(none.fill(InOut(&raw mut count), &items), Err(Code::INSUFFICIENT_SIZE));
        assert_eq!(none.fill_or_count(InOut(&raw mut count), &items), Ok(()));
        assert_eq!(none.fill(InOut(std::ptr::null_mut()), &[]), Err(Code::INVALID_ARGUMENT));
    }

    #[test]
    fn a_text_needs_room_for_its_end() {
        let mut room = [1; 4];
        assert_eq!(TextOut(room.as_mut_ptr()).set(3, "abc"), Err(Code::INSUFFICIENT_SIZE));
        assert_eq!(room, [1; 4]);
        assert_eq!(TextOut(room.as_mut_ptr()).set(4, "abc"), Ok(()));
        assert_eq!(room, [97, 98, 99, 0]);
        assert_eq!(field::<3>("abc"), [97, 98, 0]);
    }
}

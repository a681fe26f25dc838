//! Contents of GPU memory, by place: what a tenant leaves, the next one finds, unless it was erased.
//!
//! Each GPU has a sparse file `<state>.memory/<GPU UUID>` with a sample of [`SAMPLE`] bytes for each
//! unit of its grid (a GPU without MIG has one unit). An instance at `start` with `size` units has
//! the bytes from `start * SAMPLE` on. Making and destroying instances, resets and reloads of the
//! driver leave the file alone; [`GpuMemory::erase`] writes zeros.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::model::Gpu;
use crate::state::Store;

/// Bytes that stand for one unit of the grid.
pub const SAMPLE: u64 = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Why memory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Outside of the GPU.
    #[error("bytes {from}..{to} are outside of the {length} of {gpu}")]
    Outside {
        /// UUID.
        gpu: String,
        /// First byte.
        from: u64,
        /// After the last.
        to: u64,
        /// Bytes that there are.
        length: u64,
    },
    /// An operation on the file.
    #[error("{operation} {}", path.display())]
    Io {
        /// Such as `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The memory of one GPU.
#[derive(Debug)]
pub struct GpuMemory {
    gpu: String,
    path: PathBuf,
    file: File,
    length: u64,
}

/// A part of a GPU's memory, in units of its grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First unit.
    pub start: u32,
    /// Units.
    pub size: u32,
}

impl Range {
    /// All of a GPU.
    #[must_use]
    pub fn whole(gpu: &Gpu) -> Self {
        Self { start: 0, size: units(gpu) }
    }

    /// The bytes of the file.
    fn bytes(self) -> (u64, u64) {
        let from = u64::from(self.start) * SAMPLE;
        (from, from + u64::from(self.size) * SAMPLE)
    }
}

fn units(gpu: &Gpu) -> u32 {
    gpu.model().map_or(1, |model| model.memory_slices.max(1))
}

impl GpuMemory {
    /// Opens the memory of a GPU, making it where it is missing.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn open(store: &Store, gpu: &Gpu) -> Result<Self, MemoryError> {
        let folder = store.beside(".memory");
        let path = folder.join(&gpu.uuid);
        let length = u64::from(units(gpu)) * SAMPLE;
        let failed = |operation| {
            let path = path.clone();
            move |source| MemoryError::Io { operation, path, source }
        };
        fs::create_dir_all(&folder).map_err(failed("make the folder of"))?;
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(failed("open"))?;
        if file.metadata().map_err(failed("look at"))?.len() != length {
            file.set_len(length).map_err(failed("size"))?;
        }
        Ok(Self { gpu: gpu.uuid.clone(), path, file, length })
    }

    /// Writes bytes into a part, from its beginning plus `offset`.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn write(&self, range: Range, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let at = self.place(range, offset, bytes.len())?;
        self.file.write_all_at(bytes, at).map_err(|source| self.failed("write", source))
    }

    /// Reads that many bytes of a part, from its beginning plus `offset`.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn read(&self, range: Range, offset: u64, length: usize) -> Result<Vec<u8>, MemoryError> {
        let at = self.place(range, offset, length)?;
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|source| self.failed("read", source))?;
        Ok(bytes)
    }

    /// Writes zeros over a part.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn erase(&self, range: Range) -> Result<(), MemoryError> {
        let zeros = vec![0; CHUNK];
        let (from, to) = range.bytes();
        (0..to - from).step_by(CHUNK).try_for_each(|offset| self.write(range, offset, &zeros))
    }

    /// The first byte of a part that is not zero, counted from its beginning.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn first_dirty(&self, range: Range) -> Result<Option<u64>, MemoryError> {
        let (from, to) = range.bytes();
        for offset in (0..to - from).step_by(CHUNK) {
            let bytes = self.read(range, offset, CHUNK)?;
            if let Some(at) = (0_u64..).zip(&bytes).find(|(_, byte)| **byte != 0) {
                return Ok(Some(offset + at.0));
            }
        }
        Ok(None)
    }

    fn place(&self, range: Range, offset: u64, length: usize) -> Result<u64, MemoryError> {
        let (from, to) = range.bytes();
        let at = from.saturating_add(offset);
        let end = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if end <= to && to <= self.length {
            Ok(at)
        } else {
            Err(MemoryError::Outside {
                gpu: self.gpu.clone(),
                from: at,
                to: end,
                length: self.length,
            })
        }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> MemoryError {
        MemoryError::Io { operation, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::model;

    #[test]
    fn what_was_written_stays_at_its_place_until_it_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("state.json"));
        let mut gpu = Gpu::new(model("h100-80").unwrap(), 0);
        gpu.set_mig_mode(true).unwrap();
        let id = gpu.create_instance(19, Some((5, 1))).unwrap();
        let range = Range { start: 5, size: 1 };
        GpuMemory::open(&store, &gpu).unwrap().write(range, 100, b"secret").unwrap();
        gpu.destroy_instance(id).unwrap();
        gpu.create_instance(9, Some((4, 4))).unwrap();

        let memory = GpuMemory::open(&store, &gpu).unwrap();
        let larger = Range { start: 4, size: 4 };
        assert_eq!(memory.read(larger, SAMPLE + 100, 6).unwrap(), b"secret");
        assert_eq!(memory.first_dirty(larger).unwrap(), Some(SAMPLE + 100));
        assert_eq!(memory.first_dirty(Range { start: 0, size: 5 }).unwrap(), None);
        memory.erase(larger).unwrap();
        assert_eq!(memory.first_dirty(Range::whole(&gpu)).unwrap(), None);
    }

    #[test]
    fn no_part_reaches_into_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("state.json"));
        let gpu = Gpu::new(model("h100-80").unwrap(), 0);
        let memory = GpuMemory::open(&store, &gpu).unwrap();
        let one = Range { start: 3, size: 1 };
        assert!(memory.write(one, SAMPLE - 1, b"xy").is_err());
        assert!(memory.read(one, u64::MAX, 1).is_err());
        assert!(memory.erase(Range { start: 7, size: 2 }).is_err());
        assert!(memory.read(Range { start: u32::MAX, size: u32::MAX }, 0, 1).is_err());
    }
}

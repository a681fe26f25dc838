//! A client of the device mapper's control device.
//!
//! ```text
//!  create ─► load ─► resume ─► … ─► suspend ─► message "key wipe" ─► load error ─► resume ─► remove
//! ```

pub mod crypt;
pub mod wire;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nix::errno::Errno;

use self::wire::{Device, Target, WireError, flag};
use super::disk::DeviceNumber;
use super::sys;

/// Room for an answer: a table or a list of devices.
const ROOM: usize = 64 << 10;
/// Most that is made of it when it does not do.
const MOST_ROOM: usize = 16 << 20;

/// Why the device mapper did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DmError {
    /// There is none.
    #[error("open the device mapper's control device")]
    Open(#[source] io::Error),
    /// It refuses.
    #[error("{doing} mapping {name}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Which mapping.
        name: String,
        /// Why not.
        source: Errno,
    },
    /// Its answer or the request is of no form.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The device mapper.
#[derive(Debug)]
pub struct DeviceMapper(File);

/// Commands by number (`dm-ioctl.h`).
mod command {
    pub(super) const LIST_DEVICES: u8 = 2;
    pub(super) const CREATE: u8 = 3;
    pub(super) const REMOVE: u8 = 4;
    pub(super) const SUSPEND: u8 = 6;
    pub(super) const STATUS: u8 = 7;
    pub(super) const TABLE_LOAD: u8 = 9;
    pub(super) const TABLE_STATUS: u8 = 12;
    pub(super) const TARGET_MESSAGE: u8 = 14;
}

impl DeviceMapper {
    /// Opens it below a root.
    ///
    /// # Errors
    /// [`DmError::Open`].
    pub fn open(root: &Path) -> Result<Self, DmError> {
        let path = root.join("dev/mapper/control");
        OpenOptions::new().read(true).write(true).open(path).map(Self).map_err(DmError::Open)
    }

    fn ask(
        &self,
        doing: &'static str,
        name: &str,
        command: u8,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, DmError> {
        match sys::device_mapper(&self.0, command, &mut buffer) {
            Ok(()) => Ok(buffer),
            Err(source) => Err(DmError::Refused { doing, name: name.to_owned(), source }),
        }
    }

    /// Asks with more and more room.
    fn ask_much<T>(
        &self,
        doing: &'static str,
        name: &str,
        (command, flags): (u8, u32),
        read: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<T, DmError> {
        let mut room = ROOM;
        loop {
            let request = wire::request(name, flags, &[], room)?;
            match read(&self.ask(doing, name, command, request)?) {
                Err(WireError::Full(_)) if room < MOST_ROOM => room = room.saturating_mul(4),
                answer => return Ok(answer?),
            }
        }
    }

    /// All mappings.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn list(&self) -> Result<Vec<(String, DeviceNumber)>, DmError> {
        self.ask_much("list", "", (command::LIST_DEVICES, 0), wire::names)
    }

    /// A mapping; `None` where there is none of that name.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn status(&self, name: &str) -> Result<Option<Device>, DmError> {
        match self.ask("look at", name, command::STATUS, wire::request(name, 0, &[], 0)?) {
            Ok(answer) => Ok(Some(wire::device(&answer)?)),
            Err(DmError::Refused { source: Errno::ENXIO, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The live table of a mapping; keys are in it by description only.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn table(&self, name: &str) -> Result<Vec<Target>, DmError> {
        let command = (command::TABLE_STATUS, flag::STATUS_TABLE);
        self.ask_much("read the table of", name, command, wire::targets)
    }

    /// Makes a mapping without a table.
    ///
    /// # Errors
    /// [`DmError`]; `EBUSY` where there is one of that name or UUID.
    pub fn create(&self, name: &str, uuid: &str) -> Result<Device, DmError> {
        let answer = self.ask("make", name, command::CREATE, wire::create(name, uuid)?)?;
        Ok(wire::device(&answer)?)
    }

    /// Gives a mapping its next table, which becomes the live one with [`Self::resume`].
    ///
    /// # Errors
    /// [`DmError`].
    pub fn load(&self, name: &str, targets: &[Target]) -> Result<(), DmError> {
        let request = wire::load(name, targets)?;
        self.ask("load a table into", name, command::TABLE_LOAD, request).map(drop)
    }

    /// Has a mapping serve requests, by its next table if it has one.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn resume(&self, name: &str) -> Result<(), DmError> {
        self.ask("resume", name, command::SUSPEND, wire::request(name, 0, &[], 0)?).map(drop)
    }

    /// Waits for requests under way and holds back others.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn suspend(&self, name: &str) -> Result<(), DmError> {
        let flags = flag::SUSPEND | flag::SKIP_LOCKFS;
        self.ask("suspend", name, command::SUSPEND, wire::request(name, flags, &[], 0)?).map(drop)
    }

    /// Tells the target that has a sector of 512 bytes something.
    ///
    /// # Errors
    /// [`DmError`].
    pub fn message(&self, name: &str, sector: u64, text: &str) -> Result<(), DmError> {
        let request = wire::message(name, sector, text)?;
        self.ask("send a message to", name, command::TARGET_MESSAGE, request).map(drop)
    }

    /// Removes a mapping; none is fine.
    ///
    /// # Errors
    /// [`DmError`]; `EBUSY` while somebody has it open.
    pub fn remove(&self, name: &str) -> Result<(), DmError> {
        match self.ask("remove", name, command::REMOVE, wire::request(name, 0, &[], 0)?) {
            Ok(_) | Err(DmError::Refused { source: Errno::ENXIO, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

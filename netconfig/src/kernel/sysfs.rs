//! SR-IOV in sysfs: cards, their VFs, drivers (Linux, Documentation/ABI/testing/sysfs-bus-pci).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::model::LinkName;
use crate::sriov::model::{Driver, Pf, Vf};

/// How long the write of a number of VFs may take: a driver may block for ever in it.
pub const COUNT_PATIENCE: Duration = Duration::from_secs(120);

/// How long a driver may take to take a function and show its link.
pub const BIND_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for it.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Why sysfs could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold a number.
    #[error("{path}: {text:?} is no number")]
    Number {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// A driver blocks. The thread that waits for it stays.
    #[error("write {value:?} to {path}: no end within {seconds} s")]
    Blocked {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No driver took a function.
    #[error("{bdf}: driver {driver} did not take it")]
    NotBound {
        /// The function.
        bdf: String,
        /// The driver.
        driver: String,
    },
    /// There is no such VF.
    #[error("{pf}: there is no VF {number}")]
    NoSuchVf {
        /// The card.
        pf: String,
        /// The number.
        number: u32,
    },
}

/// The PCI functions of a host.
#[derive(Debug, Clone)]
pub struct Sysfs {
    pci: PathBuf,
}

impl Sysfs {
    /// `/sys/bus/pci`, or a folder that looks like it.
    #[must_use]
    pub fn at(pci: &Path) -> Self {
        Self { pci: pci.to_owned() }
    }

    fn device(&self, bdf: &str) -> PathBuf {
        self.pci.join("devices").join(bdf)
    }

    /// PCI addresses of cards that can have VFs, ascending. What is no network card is left out.
    ///
    /// # Errors
    /// The list of functions cannot be read.
    pub fn cards(&self) -> Result<Vec<String>, SysfsError> {
        let path = self.pci.join("devices");
        let read = |source| SysfsError::Read { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let class = fs::read_to_string(entry.path().join("class")).unwrap_or_default();
            // Class 0x02 is "network controller" (PCI Code and ID Assignment Specification).
            let network = class.trim().starts_with("0x02");
            if network && entry.path().join("sriov_totalvfs").exists() {
                found.extend(entry.file_name().into_string());
            }
        }
        found.sort();
        Ok(found)
    }

    /// A card with its VFs. Settings of VFs and mode of the switch are netlink's to say, and left empty.
    ///
    /// # Errors
    /// A file of the card cannot be read.
    pub fn card(&self, bdf: &str) -> Result<Pf, SysfsError> {
        let device = self.device(bdf);
        let most = number(&device.join("sriov_totalvfs"))?;
        let count = number(&device.join("sriov_numvfs"))?;
        let mut vfs = BTreeMap::new();
        for index in 0..count {
            vfs.insert(index, self.vf(bdf, index)?);
        }
        Ok(Pf {
            bdf: bdf.to_owned(),
            driver: Driver::named(&self.driver(bdf)?.unwrap_or_default()),
            link: self.link(bdf),
            most,
            mode: None,
            vfs,
        })
    }

    /// A VF by the card's link to it (`virtfnN`).
    ///
    /// # Errors
    /// There is none of that number.
    pub fn vf(&self, pf: &str, index: u32) -> Result<Vf, SysfsError> {
        let link = fs::read_link(self.device(pf).join(format!("virtfn{index}")));
        let bdf = link.ok().and_then(|to| to.file_name()?.to_str().map(str::to_owned));
        let bdf = bdf.ok_or_else(|| SysfsError::NoSuchVf { pf: pf.to_owned(), number: index })?;
        let driver = self.driver(&bdf)?;
        Ok(Vf {
            bdf,
            driver,
            settings: crate::model::ObservedVf { number: index, ..Default::default() },
        })
    }

    /// The driver of a function; absent = none.
    fn driver(&self, bdf: &str) -> Result<Option<String>, SysfsError> {
        let path = self.device(bdf).join("driver");
        match fs::read_link(&path) {
            Ok(to) => Ok(to.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    /// The first link of a function; absent = its driver made none, or it is in another namespace.
    #[must_use]
    pub fn link(&self, bdf: &str) -> Option<LinkName> {
        let mut links = fs::read_dir(self.device(bdf).join("net")).ok()?.flatten();
        links.next()?.file_name().to_str()?.parse().ok()
    }

    /// Writes the number of VFs, in a thread of its own: a driver may never return.
    ///
    /// # Errors
    /// The driver refuses, or does not return in time.
    pub fn set_count(&self, pf: &str, count: u32, patience: Duration) -> Result<(), SysfsError> {
        let path = self.device(pf).join("sriov_numvfs");
        let (done, outcome) = mpsc::channel();
        let (file, value) = (path.clone(), count.to_string());
        thread::spawn(move || {
            // Nobody listens any more when the patience is at its end.
            let _ = done.send(write(&file, &value));
        });
        outcome.recv_timeout(patience).unwrap_or_else(|_| {
            let value = count.to_string();
            Err(SysfsError::Blocked { path, value, seconds: patience.as_secs() })
        })
    }

    /// Takes the driver of a function away and lets none but `vfio-pci` take it again: a VF without a driver is what
    /// nobody uses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unbind(&self, bdf: &str) -> Result<(), SysfsError> {
        write(&self.device(bdf).join("driver_override"), "vfio-pci")?;
        if self.driver(bdf)?.is_some() {
            write(&self.device(bdf).join("driver/unbind"), bdf)?;
        }
        Ok(())
    }

    /// Gives a function a driver: `vfio-pci`, or with `None` the one that its kind has.
    ///
    /// # Errors
    /// The kernel refuses, or no driver takes it in time.
    pub fn bind(
        &self,
        bdf: &str,
        driver: Option<&str>,
        patience: Duration,
    ) -> Result<(), SysfsError> {
        // A newline takes the override away (sysfs-bus-pci, `driver_override`).
        write(&self.device(bdf).join("driver_override"), driver.unwrap_or("\n"))?;
        let wrong = |now: &str| driver.map_or(now == "vfio-pci", |wanted| now != wanted);
        match self.driver(bdf)? {
            Some(now) if wrong(&now) => write(&self.device(bdf).join("driver/unbind"), bdf)?,
            Some(_) => return Ok(()),
            None => {}
        }
        write(&self.pci.join("drivers_probe"), bdf)?;
        let tries = patience.as_millis() / BIND_PAUSE.as_millis();
        for _ in 0..=tries {
            let bound = self.driver(bdf)?;
            let here = driver.is_some() || self.link(bdf).is_some();
            if bound.is_some_and(|now| !wrong(&now)) && here {
                return Ok(());
            }
            thread::sleep(BIND_PAUSE);
        }
        let driver = driver.unwrap_or("of its kind").to_owned();
        Err(SysfsError::NotBound { bdf: bdf.to_owned(), driver })
    }
}

fn number(path: &Path) -> Result<u32, SysfsError> {
    let text = fs::read_to_string(path)
        .map_err(|source| SysfsError::Read { path: path.to_owned(), source })?;
    let bad = || SysfsError::Number { path: path.to_owned(), text: text.trim().to_owned() };
    text.trim().parse().map_err(|_| bad())
}

/// Writes to a file that is there: sysfs makes none.
fn write(path: &Path, value: &str) -> Result<(), SysfsError> {
    let wrap =
        |source| SysfsError::Write { path: path.to_owned(), value: value.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(wrap)?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(wrap)
}

#[cfg(test)]
mod tests;

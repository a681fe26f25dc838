//! Last-level cache and memory bandwidth of a lease's own, by resctrl (Linux, Documentation/filesystems/resctrl.rst).
//!
//! ```text
//!  /sys/fs/resctrl/schemata                   the default group: loses the lease's ways first, has them back last
//!  /sys/fs/resctrl/bulkhead-acme.a/schemata   the lease's ways
//!                                 /cpus_list  the lease's CPUs, from its control group
//! ```
//!
//! Where the processor has no such control a lease has no ways and there is nothing to do here. Lines that the lease
//! left in its ways are not read by anybody else: what is taken back is the right to fill them.

mod schemata;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_api::id::LeaseId;
use bulkhead_api::receipt::Evidence;
use bulkhead_api::resource::{CacheWays, Resource};
use nix::mount::{MsFlags, mount};

use self::schemata::Schemata;
use super::text;
use super::{Attached, Class, ClassError, Erased, Order};
use crate::host::cpulist;
use crate::tenant::cgroup;
use crate::tenant::name::{self, Kind};

const PREFIX: &str = "bulkhead-";

/// The class.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// Removes a group: the kernel's directories go with the files in them.
    remove: fn(&Path) -> io::Result<()>,
    /// The default group is changed by one at a time.
    turn: Mutex<()>,
}

impl Cache {
    /// On the host below that root.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root, remove: |path| fs::remove_dir(path), turn: Mutex::new(()) }
    }

    fn top(&self) -> PathBuf {
        self.root.join("sys/fs/resctrl")
    }

    fn group(&self, lease: &LeaseId) -> PathBuf {
        self.top().join(format!("{PREFIX}{}", name::stem(lease)))
    }

    /// Mounts it where it is not.
    fn ready(&self) -> Result<(), ClassError> {
        let top = self.top();
        if top.join("info").exists() {
            return Ok(());
        }
        if !top.exists() {
            let why = "this processor cannot part its last-level cache";
            return Err(ClassError::Unsupported(why.to_owned()));
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = mount(Some("resctrl"), &top, Some("resctrl"), flags, None::<&str>);
        mounted.map_err(|error| text::failed("mount resctrl at", &top)(error.into()))
    }

    fn schemata(group: &Path) -> Result<Schemata, ClassError> {
        let path = group.join("schemata");
        schemata::parse(&text::read(&path)?).map_err(|odd| ClassError::Refused {
            doing: format!("read {}", path.display()),
            why: odd.to_string(),
        })
    }

    /// Writes to a file of a group; the kernel says more of a refusal in a file of its own.
    fn write(&self, path: &Path, text: &str) -> Result<(), ClassError> {
        let Err(source) = fs::write(path, text) else { return Ok(()) };
        let status = text::read(&self.top().join("info/last_cmd_status")).unwrap_or_default();
        if matches!(status.as_str(), "" | "ok") {
            return Err(text::failed("write", path)(source));
        }
        let doing = format!("write {:?} to {}", text.trim(), path.display());
        Err(ClassError::Refused { doing, why: format!("{status}: {source}") })
    }

    /// Sets the default group's ways and reads them back.
    fn set_rest(&self, wanted: &Schemata) -> Result<(), ClassError> {
        let path = self.top().join("schemata");
        if let Some((cache, _)) = wanted.ways.iter().find(|(_, mask)| **mask == 0) {
            return Err(ClassError::Refused {
                doing: format!("leave the host ways of cache {cache}"),
                why: "leases would have all of them".to_owned(),
            });
        }
        if !Self::schemata(&self.top())?.has(wanted) {
            self.write(&path, &wanted.render())?;
        }
        read_back(&path, &Self::schemata(&self.top())?, wanted)
    }

    fn cpus(&self, lease: &LeaseId) -> Result<BTreeSet<u32>, ClassError> {
        let group = cgroup::tenants(&self.root).join(name::unit(lease, Kind::Slice));
        let path = group.join("cpuset.cpus.effective");
        let list = text::read(&path)?;
        let cpus = cpulist::parse(&list).filter(|cpus| !cpus.is_empty());
        cpus.ok_or_else(|| text::odd(&path, "a list of CPUs", &list))
    }
}

fn read_back(path: &Path, found: &Schemata, wanted: &Schemata) -> Result<(), ClassError> {
    if found.has(wanted) {
        return Ok(());
    }
    let line = |schemata: &Schemata| schemata.render().trim().replace('\n', " ");
    Err(ClassError::ReadBack {
        what: path.display().to_string(),
        expected: line(wanted),
        found: line(found),
    })
}

fn ways(order: &Order) -> Result<&[CacheWays], ClassError> {
    if let Resource::Cache { ways } = &order.resource {
        return Ok(ways);
    }
    Err(super::other(&order.resource))
}

impl Class for Cache {
    fn found(&self) -> Result<Vec<(LeaseId, Resource)>, ClassError> {
        let mut found = Vec::new();
        for name in text::names(&self.top())? {
            let Some(stem) = name.strip_prefix(PREFIX) else { continue };
            let Some((lease, _)) = name::lease(&format!("tenant-{stem}.slice")) else { continue };
            let group = Self::schemata(&self.top().join(&name))?;
            let share = |cache: &u32| {
                group.bandwidth.get(cache).and_then(|&share| u8::try_from(share).ok())
            };
            let rest = Self::schemata(&self.top())?;
            // Of other caches a new group has what the default group has.
            let own = group.ways.iter().filter(|(cache, mask)| {
                rest.ways.get(cache).is_some_and(|rest| rest & **mask == 0)
            });
            let own = own.map(|(&cache, &mask)| CacheWays {
                cache,
                mask,
                bandwidth_percent: share(&cache).filter(|&share| share < 100),
            });
            found.push((lease, Resource::Cache { ways: own.collect() }));
        }
        Ok(found)
    }

    fn observe(&self, order: &Order) -> Result<Attached, ClassError> {
        let (ways, group) = (ways(order)?, self.group(&order.lease));
        if !group.exists() {
            return Ok(Attached::No);
        }
        let wanted = Schemata::of(ways);
        if !Self::schemata(&group)?.has(&wanted) {
            return Ok(Attached::Drifted("its cache group has other ways".to_owned()));
        }
        let rest = Self::schemata(&self.top())?;
        if !rest.has(&rest.without(ways)) {
            return Ok(Attached::Drifted("the host fills its ways of the cache too".to_owned()));
        }
        let path = group.join("cpus_list");
        let list = text::read(&path)?;
        let cpus = cpulist::parse(&list).ok_or_else(|| text::odd(&path, "CPUs", &list))?;
        if cpus != self.cpus(&order.lease)? {
            return Ok(Attached::Drifted(format!("its cache group is for CPUs {list}")));
        }
        Ok(Attached::Yes)
    }

    fn attach(&self, order: &Order) -> Result<(), ClassError> {
        let ways = ways(order)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready()?;
        let rest = Self::schemata(&self.top())?;
        if let Some(unknown) = ways.iter().find(|ways| !rest.ways.contains_key(&ways.cache)) {
            let why = format!("this host has no last-level cache {} to part", unknown.cache);
            return Err(ClassError::Unsupported(why));
        }
        // Nobody else fills the ways before the lease does.
        self.set_rest(&rest.without(ways))?;
        let group = self.group(&order.lease);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(text::failed("make", &group)(error));
            }
            _ => {}
        }
        let (path, wanted) = (group.join("schemata"), Schemata::of(ways));
        self.write(&path, &wanted.render())?;
        read_back(&path, &Self::schemata(&group)?, &wanted)?;
        let (path, cpus) = (group.join("cpus_list"), cpulist::render(&self.cpus(&order.lease)?));
        self.write(&path, &cpus)?;
        let found = text::read(&path)?;
        if cpulist::parse(&found) != cpulist::parse(&cpus) {
            let what = path.display().to_string();
            return Err(ClassError::ReadBack { what, expected: cpus, found });
        }
        Ok(())
    }

    fn erase(&self, order: &Order) -> Result<Erased, ClassError> {
        let ways = ways(order)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready()?;
        let group = self.group(&order.lease);
        match (self.remove)(&group) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(text::failed("remove", &group)(error));
            }
            _ => {}
        }
        let gone = !group.try_exists().map_err(text::failed("look at", &group))?;
        if !gone {
            let doing = format!("remove {}", group.display());
            return Err(ClassError::Refused { doing, why: "it is still there".to_owned() });
        }
        let wanted = Self::schemata(&self.top())?.with(ways);
        self.set_rest(&wanted)?;
        let evidence = |what: &str, found: String| Evidence { what: what.to_owned(), found };
        let name = format!("group {PREFIX}{}", name::stem(&order.lease));
        Ok(Erased {
            methods: vec!["removeCacheGroup".to_owned()],
            evidence: vec![
                evidence(&name, "gone".to_owned()),
                evidence("ways of the default group", wanted.render().trim().to_owned()),
            ],
            weaker: None,
        })
    }
}

#[cfg(test)]
mod tests;
